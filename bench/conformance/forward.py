"""What a browser says with its handshake, and Autobahn cannot: Host, Origin and Cookie of a workspace.

    python -m bench.conformance.forward PORT HOST COOKIE

Tells its own port, and passes everything behind the handshake's head on as it is, both ways.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from functools import partial


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(262_144):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


async def forward(
    port: int, host: str, cookie: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    there, out = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        kept = [line for line in lines if not line.lower().startswith(("host:", "origin:"))]
        said = [
            first,
            f"Host: {host}",
            f"Origin: http://{host}",
            f"Cookie: {cookie}",
            *kept,
            "",
            "",
        ]
        out.write("\r\n".join(said).encode("latin-1"))
        async with asyncio.TaskGroup() as group:
            group.create_task(pipe(reader, out))
            await pipe(there, writer)
            out.transport.abort()
            writer.close()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        out.transport.abort()
        writer.close()


async def main() -> None:
    port, host, cookie = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    handle = partial(forward, port, host, cookie)
    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
