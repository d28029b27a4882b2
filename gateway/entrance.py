"""Credentials as requests carry them and answers set them: auth.py and entry.py with keys and clock filled in."""

from __future__ import annotations

import time

from starlette.requests import Request

from gateway import auth
from gateway.api.parts import Entry, Principal
from gateway.entry import Codes
from gateway.hosts import Base, PublicUrl, WorkspaceHost, origin_of
from lifecycle.model import Workspace

AS_OPERATOR = "x-ide-gateway-operator"
"""A header of the dashboard's own calls: its cookie decides, not the home page's."""

DASHBOARD = "/api/dashboard"
HOME_CODE_TTL = 600.0  # seconds; only for the code that serve prints on the terminal


class Entrance:
    def __init__(
        self, codes: Codes, keys: auth.Keys, public: PublicUrl, *, entry_ttl: float, code_ttl: float
    ) -> None:
        """entry_ttl, code_ttl: seconds a cookie or token, and a one-use code, are good for."""
        self._codes, self._keys, self._public = codes, keys, public
        self._entry_ttl, self._code_ttl = entry_ttl, code_ttl
        self.home = origin_of(Base(), public) + "/"
        """Address of the home page."""

    def identify(self, request: Request) -> Principal:
        """Who calls on the base host. Raises BadCookies."""
        return self._identify(request, as_operator=AS_OPERATOR in request.headers)

    def operator(self, request: Request) -> bool:
        """Whether an operator looks at the dashboard."""
        try:
            return isinstance(self._identify(request, as_operator=True), auth.Admin)
        except auth.BadCookies:
            return False

    def _identify(self, request: Request, as_operator: bool) -> Principal:
        """The dashboard's own stream can carry no header, so its path says whose it is."""
        headers = request.scope["headers"]
        who = auth.identify_base(
            headers,
            self._keys,
            https=self._public.https,
            max_age=self._entry_ttl,
            now=time.time(),
            as_operator=as_operator or request.url.path == DASHBOARD,
        )
        sibling = isinstance(who, auth.Admin) and who.by_cookie
        if sibling and not auth.check_reader(headers, origin_of(Base(), self._public)):
            return auth.Nobody()
        return who

    def is_key(self, text: str) -> bool:
        return auth.is_api_key(text, self._keys)

    def operator_cookie(self) -> str:
        """A Set-Cookie value."""
        value = auth.make_operator_cookie(self._keys, now=time.time())
        return self._set_cookie(auth.OPERATOR_COOKIE, value)

    def operator_leaves(self) -> str:
        """A Set-Cookie value that takes the operator's cookie away."""
        return auth.set_cookie(auth.OPERATOR_COOKIE, "", https=self._public.https, max_age=0)

    def person(self, request: Request) -> str | None:
        """The user whose home cookie this is."""
        try:
            who = self.identify(request)
        except auth.BadCookies:
            return None
        return who.user if isinstance(who, auth.Person) else None

    def origin_allowed(self, request: Request, cookie_used: bool) -> bool:
        """May a page of this Origin change something on the base host?"""
        return auth.check_origin(
            auth.origin_header(request.scope["headers"]),
            origin_of(Base(), self._public),
            cookie_used=cookie_used,
        )

    def home_cookie(self, user: str) -> str:
        """A Set-Cookie value."""
        value = auth.make_home_cookie(user, self._keys, now=time.time())
        return self._set_cookie(auth.HOME_COOKIE, value)

    def workspace_cookie(self, workspace: str, user: str) -> str:
        """A Set-Cookie value."""
        value = auth.make_workspace_cookie(workspace, user, self._keys, now=time.time())
        return self._set_cookie(auth.WORKSPACE_COOKIE, value)

    def _set_cookie(self, name: str, value: str) -> str:
        return auth.set_cookie(name, value, https=self._public.https, max_age=self._entry_ttl)

    async def mint(self, user: str, workspace: str, next: str) -> str:
        """A one-use code for that workspace's host."""
        return await self._codes.mint("workspace", user, workspace, ttl=self._code_ttl, next=next)

    async def home_url(self, user: str) -> str:
        """A one-use address of the home page, for whoever started the gateway."""
        return f"{self.home}enter?code={await self._codes.mint('home', user, ttl=HOME_CODE_TTL)}"

    async def enter(self, workspace: Workspace, next: str) -> Entry:
        """A fresh way into that workspace, for its owner."""
        code = await self.mint(workspace.user_id, workspace.id, next)
        host = origin_of(WorkspaceHost(workspace.id), self._public)
        now = time.time()
        token = auth.make_workspace_token(workspace.id, workspace.user_id, self._keys, now=now)
        expires = int((now + self._code_ttl) * 1000)
        return Entry(f"{host}/_gateway/enter?code={code}", token, expires)
