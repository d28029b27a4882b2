"""A proxy before moto's server: records every call, does what faults say, honours client tokens.

It runs in a thread and a loop of its own: what a test does in its loop neither blocks it nor is blocked.
"""

from __future__ import annotations

import asyncio
import io
import json
import re
import threading
import time
from collections.abc import Coroutine
from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

from tests.aws.answers import refusal, wrong_key
from tests.aws.calls import Call, read_call
from tests.aws.faults import Fault

ROLES = frozenset({"gateway", "agent", "function", "operator"})
"""Access key ids that exist here; any other is refused as AWS refuses it."""

_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}
_TOKENS = {
    ("ec2", "RunInstances"): ("ClientToken", "IdempotentParameterMismatch"),
    ("ec2", "CreateVolume"): ("ClientToken", "IdempotentParameterMismatch"),
    ("ecs", "RunTask"): ("clientToken", "ConflictException"),
}
"""Where a call may be repeated: its token's name, and the error for another call under the same token."""

Reply = tuple[int, dict[str, str], bytes]


class Proxy:
    """Calls and faults may be looked at and set from any thread. `url` answers once constructed."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self.calls: list[Call] = []
        self.faults: list[Fault] = []
        self._tokens: dict[tuple[str, str], tuple[str, asyncio.Task[Reply]]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy of AWS")
        self._thread.start()
        self.url = self._run(self._open())

    def reset(self) -> None:
        self.faults = []
        self.calls = []
        self._tokens = {}

    def close(self) -> None:
        self._run(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _open(self) -> str:
        # One connection a call: moto closes idle ones, and a race for them would look like a fault.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True, limit=0),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None),
            skip_auto_headers=("Content-Type", "User-Agent", "Accept", "Accept-Encoding"),
        )
        self._runner = web.ServerRunner(
            web.Server(self._serve, auto_decompress=False), shutdown_timeout=0.1
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _shut(self) -> None:
        await self._runner.cleanup()
        await self._session.close()
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.get("Expect", "").lower() == "100-continue":
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")  # type: ignore[union-attr]
        body = await request.content.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        path, _, query = request.raw_path.partition("?")
        call = read_call(request.method, path, query, headers, body, time.monotonic())
        self.calls.append(call)
        if call.role not in ROLES:
            return _response(_refuse(call, *wrong_key(call.service)))
        struck = [fault for fault in list(self.faults) if fault.strikes(call)]
        for fault in struck:
            if fault.delay:
                await asyncio.sleep(fault.delay)
            if fault.before:
                await asyncio.to_thread(fault.before, call)
        if any(fault.drop_request for fault in struck):
            return _cut(request)
        refused = next((fault.error for fault in struck if fault.error), None)
        reply = _refuse(call, *refused) if refused else await self._once(call, body)
        call.status, call.answered = reply[0], reply[1]
        if any(fault.drop_reply for fault in struck):
            return _cut(request)
        for fault in struck:
            if fault.answer:
                reply = (reply[0], reply[1], fault.answer(call, reply[2]))
        return _response(reply)

    async def _once(self, call: Call, body: bytes) -> Reply:
        """Do it; under a client token that was used already, give that answer again."""
        name, mismatch = _TOKENS.get((call.service, call.action), ("", ""))
        token = str(call.params.get(name, "")) if name else ""
        if not token:
            return await self._forward(call, body)
        asked = json.dumps(call.params, sort_keys=True)
        before = self._tokens.get((call.action, token))
        if before is None:
            before = (asked, asyncio.ensure_future(self._forward(call, body)))
            self._tokens[call.action, token] = before
        elif before[0] != asked:
            return _refuse(call, mismatch, 400, f"the token {token} was used for another request")
        # A caller that hangs up does not undo what its request does.
        reply = await asyncio.shield(before[1])
        if reply[0] >= 300:
            self._tokens.pop((call.action, token), None)
        return reply

    async def _forward(self, call: Call, body: bytes) -> Reply:
        target = URL(
            self._upstream + call.path + (f"?{call.query}" if call.query else ""), encoded=True
        )
        headers = {n: v for n, v in call.headers.items() if n not in {*_HOP, "expect"}}
        if call.action == "RunInstances":
            body = _as_many_as_can_be(call, body)
        async with self._session.request(
            call.method, target, headers=headers, data=io.BytesIO(body), allow_redirects=False
        ) as answer:
            given = {n.lower(): v for n, v in answer.headers.items()}
            if call.method != "HEAD":
                return answer.status, given, await answer.read()
            return answer.status, given, b""


def _as_many_as_can_be(call: Call, body: bytes) -> bytes:
    """moto starts MinCount instances, AWS up to MaxCount."""
    count = call.at_most or int(call.params.get("MaxCount", 1))
    return re.sub(rb"\bMinCount=\d+", b"MinCount=%d" % count, body)


def _refuse(call: Call, code: str, status: int, message: str = "said the test") -> Reply:
    headers, body = refusal(call.service, code, message)
    return status, headers, b"" if call.method == "HEAD" else body


def _response(reply: Reply) -> web.Response:
    status, headers, body = reply
    kept = {n: v for n, v in headers.items() if n not in _HOP}
    if not body and "content-length" in headers:  # of HEAD: the object's
        kept["content-length"] = headers["content-length"]
    return web.Response(status=status, headers=kept, body=body or None)


def _cut(request: web.BaseRequest) -> web.Response:
    if request.transport:
        request.transport.abort()
    return web.Response()
