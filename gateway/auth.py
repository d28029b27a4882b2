"""Who is this, and may they? Pure: headers, keys and the time in, a principal out.

Errors: BadCookies (two cookies of one of our names: somebody may have planted one; answer 400).

Three credentials, each signed with a salt of its own so that none passes for another:
a home cookie {user} on the base host, a cookie {workspace, user} on each workspace's host,
and a bearer token {workspace, user} for clients that are no browser. The API key is a fourth, and whoever
has shown it on the dashboard gets an operator's cookie {key} on the base host, good while that key is.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from itsdangerous import BadData, URLSafeSerializer

Headers = Iterable[tuple[bytes, bytes]]

HOME_COOKIE = "ide-gateway-home"
WORKSPACE_COOKIE = "ide-gateway"
OPERATOR_COOKIE = "ide-gateway-operator"
OWN_COOKIE_NAMES = frozenset(
    prefix + name
    for prefix in ("", "__Host-")
    for name in (HOME_COOKIE, WORKSPACE_COOKIE, OPERATOR_COOKIE)
)
"""Every name we ever use, under http and https: none of them travels to or from a workspace."""

TOKEN_PREFIX = "igw_"
"""Makes a token of ours known at sight: for secret scanners, for logs, and for stripping it upstream."""

_MAX_CREDENTIAL = 4096  # characters; ours have about 200


class BadCookies(Exception):
    """Two cookies of one of our names came together."""


@dataclass(frozen=True, slots=True)
class Admin:
    """Holds the API key, or the cookie of somebody who has shown it."""

    by_cookie: bool = False


@dataclass(frozen=True, slots=True)
class Person:
    """A browser on the base host."""

    user: str
    by_cookie: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class Visitor:
    """A browser on a workspace's host."""

    workspace: str
    user: str
    by_cookie: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class TokenBearer:
    """A client that is no browser, on a workspace's host."""

    workspace: str
    user: str
    by_cookie: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class Nobody:
    by_cookie: ClassVar[bool] = False


Principal = Admin | Person | Visitor | TokenBearer | Nobody


@dataclass(frozen=True, slots=True)
class Keys:
    """signing_key: signs cookies and tokens. api_key: what an admin sends; "" lets no admin in."""

    signing_key: str = field(repr=False)
    api_key: str = field(repr=False)


def may(principal: Principal, user_id: str) -> bool:
    """May they see and change what belongs to this user? The caller answers 404 if not."""
    match principal:
        case Admin():
            return True
        case Person(user) | Visitor(_, user) | TokenBearer(_, user):
            return user == user_id
        case Nobody():
            return False


def identify_base(
    headers: Headers,
    keys: Keys,
    *,
    https: bool,
    max_age: float,
    now: float,
    as_operator: bool = False,
) -> Admin | Person | Nobody:
    """Who calls on the base host. A bearer decides alone: a wrong one is not saved by a cookie.

    as_operator: it is the dashboard that calls: the operator's cookie comes before the home cookie. On the
    other pages the same browser is the person that its home cookie says.
    """
    headers = list(headers)
    credential = bearer(headers)
    if credential is not None:
        return Admin() if is_api_key(credential, keys) else Nobody()
    if as_operator:
        cookie = _cookie(headers, cookie_name(OPERATOR_COOKIE, https))
        claims = _verify(cookie, "operator cookie", keys, max_age, now)
        if claims and hmac.compare_digest(claims["key"], _digest(keys.api_key)):
            return Admin(by_cookie=True)
    cookie = _cookie(headers, cookie_name(HOME_COOKIE, https))
    claims = _verify(cookie, "home cookie", keys, max_age, now)
    return Person(claims["user"]) if claims else Nobody()


def identify_workspace(
    headers: Headers, workspace: str, keys: Keys, *, https: bool, max_age: float, now: float
) -> Visitor | TokenBearer | Nobody:
    """Who calls on a host of this workspace (its own or one of its ports).

    A bearer of ours decides alone. Another one belongs to the IDE, so the cookie decides then.
    The API key opens nothing here.
    """
    headers = list(headers)
    if authorization_is_ours(headers, keys):
        token = (bearer(headers) or "").removeprefix(TOKEN_PREFIX)
        claims = _verify(token, "workspace token", keys, max_age, now)
        if claims and claims["workspace"] == workspace:
            return TokenBearer(workspace, claims["user"])
        return Nobody()
    cookie = _cookie(headers, cookie_name(WORKSPACE_COOKIE, https))
    claims = _verify(cookie, "workspace cookie", keys, max_age, now)
    if claims and claims["workspace"] == workspace:
        return Visitor(workspace, claims["user"])
    return Nobody()


def authorization_is_ours(headers: Headers, keys: Keys) -> bool:
    """Does Authorization hold the API key or a token of ours, valid or not? Then it stays with us."""
    credential = bearer(headers)
    return credential is not None and (
        credential.startswith(TOKEN_PREFIX) or is_api_key(credential, keys)
    )


def check_origin(origin: str | None, expected: str, *, cookie_used: bool) -> bool:
    """May a page of this origin make this call? Exact, or absent when no cookie could have been ridden."""
    return not cookie_used if origin is None else origin == expected


def check_reader(headers: Headers, expected: str) -> bool:
    """May whoever asks have this, which changes nothing? Any page of this origin, and any person who comes.

    Not the page of a sibling: it is of the same site, so the browser sends our cookie along, and what is
    embedded (a script, an image) or opened by the workspace's own CORS would be its to read.
    """
    headers = list(headers)
    said = dict(headers)
    if said.get(b"sec-fetch-mode") == b"navigate":
        return True
    return origin_header(headers) in (None, expected) and (
        said.get(b"sec-fetch-site", b"none") in (b"none", b"same-origin")
    )


def origin_header(headers: Headers) -> str | None:
    """The Origin header; several are joined, and so equal to no origin."""
    values = [value.decode("latin-1") for name, value in headers if name == b"origin"]
    return ", ".join(values) if values else None


def bearer(headers: Headers) -> str | None:
    """The bearer credential; None without one. Two Authorization headers are none that anybody knows: ""."""
    values = [value for name, value in headers if name == b"authorization"]
    if not any(value[:7].lower() == b"bearer " for value in values):
        return None
    return values[0][7:].strip().decode("latin-1") if len(values) == 1 else ""


def cookie_name(name: str, https: bool) -> str:
    """Under https the browser itself refuses a `__Host-` cookie set for or from another host."""
    return f"__Host-{name}" if https else name


def make_home_cookie(user: str, keys: Keys, *, now: float) -> str:
    return _sign({"user": user}, "home cookie", keys, now)


def make_operator_cookie(keys: Keys, *, now: float) -> str:
    """Another API key ends it."""
    return _sign({"key": _digest(keys.api_key)}, "operator cookie", keys, now)


def make_workspace_cookie(workspace: str, user: str, keys: Keys, *, now: float) -> str:
    return _sign({"workspace": workspace, "user": user}, "workspace cookie", keys, now)


def make_workspace_token(workspace: str, user: str, keys: Keys, *, now: float) -> str:
    """The token that `Authorization: Bearer` carries to the workspace's host."""
    claims = {"workspace": workspace, "user": user}
    return TOKEN_PREFIX + _sign(claims, "workspace token", keys, now)


def set_cookie(name: str, value: str, *, https: bool, max_age: float) -> str:
    """A Set-Cookie value, host-only. name: one of ours. max_age: seconds, 0 clears it. An operator comes from
    nowhere but the dashboard itself."""
    secure = "; Secure" if https else ""
    same_site = "Strict" if name == OPERATOR_COOKIE else "Lax"
    return (
        f"{cookie_name(name, https)}={value}; Path=/; Max-Age={int(max_age)}; "
        f"HttpOnly; SameSite={same_site}{secure}"
    )


def _cookie(headers: Headers, name: str) -> str:
    """The value of one of our cookies, "" without one. Raises BadCookies when it came twice."""
    pairs = (
        part.partition(b"=")
        for header, value in headers
        if header == b"cookie"
        for part in value.split(b";")
    )
    values = [value.strip() for key, _, value in pairs if key.strip() == name.encode()]
    if len(values) > 1:
        raise BadCookies(f"two cookies named {name}: clear this site's cookies and enter again")
    return values[0].decode("latin-1") if values else ""


def is_api_key(credential: str, keys: Keys) -> bool:
    """In a time that tells nothing of the key."""
    # Hashed first: compare_digest takes its time from the length too.
    given, real = (hashlib.sha256(text.encode()).digest() for text in (credential, keys.api_key))
    return hmac.compare_digest(given, real) and keys.api_key != ""


def _digest(key: str) -> str:
    return hashlib.sha256(b"operator " + key.encode()).hexdigest()[:32]


def _serializer(purpose: str, keys: Keys) -> URLSafeSerializer:
    return URLSafeSerializer(
        keys.signing_key,
        salt=f"ide-gateway {purpose}",
        signer_kwargs={"digest_method": hashlib.sha256, "key_derivation": "hmac"},
    )


def _sign(claims: dict[str, str], purpose: str, keys: Keys, now: float) -> str:
    signed = _serializer(purpose, keys).dumps({**claims, "at": int(now)})
    return signed if isinstance(signed, str) else signed.decode()


def _verify(
    text: str, purpose: str, keys: Keys, max_age: float, now: float
) -> dict[str, Any] | None:
    """The claims signed for this purpose at most max_age seconds ago, or None."""
    if not text or len(text) > _MAX_CREDENTIAL:
        return None
    try:
        claims: dict[str, Any] = _serializer(purpose, keys).loads(text)
    except BadData:
        return None
    return claims if now - claims["at"] <= max_age else None
