"""Snapshots for people to take away: fetched, checked, and given as .tar.gz, which every computer opens.

Nothing is unpacked here: one compression is taken off and another put on, in threads, piece by piece.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import zstandard

from lifecycle.agent.contract import Manifest
from lifecycle.model import Workspace
from lifecycle.snapshots import SnapshotError
from lifecycle.snapshots.tarstream import MAX_WINDOW

AT_ONCE = 8  # each holds an archive on the disk for as long as its client takes
PIECE = 256 * 1024
_GZIP = 16 + zlib.MAX_WBITS
_LEVEL = 1  # the files are on their way once, not kept: quick is better than small


@dataclass(frozen=True, slots=True)
class Archive:
    """pieces: of the .tar.gz; read to its end or closed, it leaves nothing behind."""

    created_at_ms: int
    pieces: AsyncGenerator[bytes, None]


class Downloads:
    def __init__(self, fetch: Callable[[Workspace, Path], Awaitable[Manifest]]) -> None:
        """fetch: writes the workspace's newest snapshot there, checked; its manifest."""
        self._fetch = fetch
        self._under_way = 0

    async def __call__(self, workspace: Workspace) -> Archive:
        """Raises SnapshotError."""
        if self._under_way >= AT_ONCE:
            message = "too many people take their files just now; try again in half a minute"
            raise SnapshotError("unreachable", message)
        self._under_way += 1
        directory = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="ide-gateway-download-"))
        try:
            path = directory / "archive"
            manifest = await self._fetch(workspace, path)
        except BaseException:
            await self._remove(directory)
            raise
        pieces = self._pieces(path, directory)
        await anext(pieces)  # from here on its `finally` sees to the end, whoever closes it
        return Archive(manifest.created_at_ms, pieces)

    async def _pieces(self, path: Path, directory: Path) -> AsyncGenerator[bytes, None]:
        source = as_gzip(path)
        try:
            yield b""
            while piece := await asyncio.to_thread(next, source, b""):
                yield piece
        finally:  # a thread may still be at its last piece: it holds the file itself
            await self._remove(directory)

    async def _remove(self, directory: Path) -> None:
        self._under_way -= 1
        await asyncio.shield(asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True))


def as_gzip(archive: Path) -> Iterator[bytes]:
    """The tar of an archive that was checked, compressed for gzip, in pieces that are never empty."""
    compress = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    frame = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
    with archive.open("rb") as file, frame.stream_reader(file) as inflated:
        while data := inflated.read(PIECE):
            if piece := compress.compress(data):
                yield piece
    yield compress.flush()
