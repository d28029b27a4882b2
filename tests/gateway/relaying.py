"""A gateway that relays every WebSocket, and the handshakes that it is asked for."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from starlette.types import Receive, Scope, Send

from gateway import closing
from gateway.headers import Header, upstream_headers
from gateway.heartbeats import TooManySessions
from gateway.opening import without_key
from gateway.passing import REMEMBER, Way
from gateway.proxy import target_of
from gateway.relay import UpstreamError, hand_over, open_upstream
from gateway.tunnel import Session
from lifecycle.model import Workspace
from lifecycle.model import WorkspaceStatus as W
from tests.gateway.proxying import Gateway

KEYS = [b64encode(bytes([n]) * 16).decode() for n in range(8)]


class Relaying(Gateway):
    """Relays every WebSocket, lets others like it open below, and counts what it looked at."""

    workspace = Workspace("w1", "ada", W.RUNNING, 0, 0, epoch=1)
    looked = 0
    full = False

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.sessions = self
        self.open: list[Session] = []
        self.codes: list[int] = []

    def known(self, workspace_id: str) -> Workspace | None:
        return self.workspace

    def admit(self, workspace: Workspace) -> Session:
        if self.full:
            raise TooManySessions(closing.TOO_MANY_SESSIONS)
        return Session(workspace=workspace.id, user="ada", id="s", epoch=workspace.epoch)

    def opened(self, session: Session) -> None:
        self.open.append(session)

    def ended(self, session: Session, code: int) -> None:
        self.codes.append(code)

    def back(self, answered: list[Header]) -> list[Header]:
        return [header for header in answered if header[0] == b"set-cookie"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.looked += 1
        if self.full:
            return await self._refuse(send, 429)
        offer = upstream_headers(
            scope["headers"], host="w1.localhost", client_ip="127.0.0.1", scheme="ws", trusted=False,
            own_cookie_names=(), drop_authorization=False, extra=None, websocket=True,
        )  # fmt: skip
        if REMEMBER in scope["extensions"]:
            kept = tuple(without_key(offer))
            lines = b"".join(b"%b: %b\r\n" % header for header in kept)
            way = Way(self.workspace, "127.0.0.1", self.target, lines, 0, b"", kept)
            scope["extensions"][REMEMBER](way, without_key(scope["headers"]))
        session = self.admit(self.workspace)
        try:
            up = await open_upstream(
                "127.0.0.1", self.target, target_of(scope), offer,
                peer_timeout=self.proxy.upstreams.peer_timeout,
            )  # fmt: skip
        except UpstreamError:
            return await self._refuse(send, 502)
        back = self.back(up.headers)
        hand_over(scope, up, session, response_headers=back, on_end=self.ended)
        self.opened(session)

    async def _refuse(self, send: Send, status: int) -> None:
        await send({"type": "websocket.http.response.start", "status": status, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b"", "more_body": False})


def opening(key: str, *lines: str, path: str = "/ws") -> bytes:
    head = [
        f"GET {path} HTTP/1.1", "Host: w1.localhost", *lines, "Connection: Upgrade", "Upgrade: websocket",
        "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}",
    ]  # fmt: skip
    return "\r\n".join([*head, "", ""]).encode()
