"""A small IDE for tests: HTTP files and a WebSocket echo, opened only with its secret.

Run: ide.py PORT DIR, its secret in $IDE_SECRET. Paths: GET/PUT /files/NAME, GET /echo (what arrived, as
JSON), GET /die?code=N (end at once), WebSocket /ws (echoes; "close 4001 why" closes so).
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from aiohttp import WSMsgType, web

ROOT = Path(sys.argv[2])
SECRET = os.environ.get("IDE_SECRET", "")


@web.middleware
async def only_with_secret(request: web.Request, handler):  # type: ignore[no-untyped-def]
    if request.headers.get("X-IDE-Secret") != SECRET:
        return web.Response(status=403, text="wrong secret\n")
    return await handler(request)


async def front(request: web.Request) -> web.Response:
    return web.Response(
        text="<!doctype html><title>IDE</title><h1>IDE</h1>", content_type="text/html"
    )


async def read(request: web.Request) -> web.StreamResponse:
    path = ROOT / request.match_info["name"]
    return web.FileResponse(path) if path.is_file() else web.Response(status=404)


async def write(request: web.Request) -> web.Response:
    with (ROOT / request.match_info["name"]).open("wb") as file:
        async for chunk in request.content.iter_chunked(65536):
            file.write(chunk)
    return web.Response(status=201)


async def echo(request: web.Request) -> web.Response:
    return web.json_response(
        {
            "headers": [[k, v] for k, v in request.headers.items()],
            "path": request.raw_path,
            "uid": os.getuid(),
            "pid": os.getpid(),
        }
    )


async def die(request: web.Request) -> web.Response:
    os._exit(int(request.query.get("code", "1")))


async def websocket(request: web.Request) -> web.WebSocketResponse:
    ws = web.WebSocketResponse(protocols=("chat",))
    await ws.prepare(request)
    async for message in ws:
        if message.type is WSMsgType.TEXT and message.data.startswith("close "):
            _, code, reason = message.data.split(" ", 2)
            await ws.close(code=int(code), message=reason.encode())
        elif message.type is WSMsgType.TEXT and message.data == "headers":
            await ws.send_str(json.dumps([[k, v] for k, v in request.headers.items()]))
        elif message.type is WSMsgType.TEXT:
            await ws.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await ws.send_bytes(message.data)
    return ws


async def main() -> None:
    app = web.Application(middlewares=[only_with_secret], client_max_size=2**30)
    app.add_routes(
        [
            web.get("/", front),
            web.get("/files/{name}", read),
            web.put("/files/{name}", write),
            web.get("/echo", echo),
            web.get("/die", die),
            web.get("/ws", websocket),
        ]
    )
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(sys.argv[1])).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
