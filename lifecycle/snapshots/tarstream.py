"""A strict reader for the archives that `packing` writes, and for nothing else.

The standard library's tarfile is not used to read: its filters were bypassed (CVE-2025-4517, -4330,
CVE-2026-11940), its parser can be sent into loops (CVE-2024-6232, CVE-2025-8194), it loads extended
headers of any size into memory, and it takes a cut archive for a whole one. What we write is a
small part of the format: POSIX headers, one extended header before a member, four kinds of member.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NoReturn

import zstandard

from lifecycle.snapshots import SnapshotError
from lifecycle.snapshots.tree import MAX_PATH

BLOCK = 512
END = bytes(2 * BLOCK)
MAX_EXTENDED = 16 * 1024
"""Bytes of an extended header: room for two paths of MAX_PATH and their names."""

# zstd makes at most 128 KiB out of 4 bytes: what one feed can inflate to stays under 32 MiB.
FEED = 1024
MAX_WINDOW = 8 * 2**20  # level 3 uses 2 MiB

KINDS = {b"0": "file", b"1": "hardlink", b"2": "symlink", b"5": "directory"}
_OCTAL = re.compile(rb"([0-7]{1,11})[ \0]*\Z")
_RECORD = re.compile(rb"([1-9][0-9]{0,4}) (path|linkpath|size|mtime|hdrcharset)=")
_MTIME = re.compile(r"(-?)([0-9]{1,11})(?:\.([0-9]{1,9}))?\Z")


@dataclass(frozen=True, slots=True)
class Member:
    """kind: file, hardlink, symlink or directory. target: of links. size: bytes of a file."""

    path: str
    kind: str
    mode: int
    mtime_ns: int
    size: int
    target: str


def corrupt(what: str) -> NoReturn:
    raise SnapshotError(
        "corrupt", f"{what}: the archive is damaged or not ours; restore another one"
    )


class Inflated:
    """The bytes inside one zstd frame that must fill the file to its last byte."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._frame = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).decompressobj()
        self._ready = memoryview(b"")

    def some(self, limit: int) -> bytes:
        """At least one byte, at most `limit`."""
        while not self._ready:
            self._feed()
        taken, self._ready = self._ready[:limit], self._ready[limit:]
        return bytes(taken)

    def exactly(self, size: int) -> bytes:
        data = self.some(size) if size else b""
        while len(data) < size:
            data += self.some(size - len(data))
        return data

    def expect_end(self) -> None:
        while not self._frame.eof and not self._ready:
            self._feed()
        if self._ready or self._frame.unused_data or self._file.read(1):
            corrupt("there are bytes after the end")

    def _feed(self) -> None:
        data = b"" if self._frame.eof else self._file.read(FEED)
        if not data:
            corrupt("it ends too early")
        try:
            self._ready = memoryview(self._frame.decompress(data))
        except zstandard.ZstdError as error:
            corrupt(str(error))


def members(stream: Inflated) -> Iterator[tuple[Member, Iterator[bytes]]]:
    """Every member with its content, which is passed over if the caller does not take it.

    Returns only after the end marker and the end of the file. Raises SnapshotError("corrupt").
    """
    while True:
        block = stream.exactly(BLOCK)
        if block == END[:BLOCK]:
            if stream.exactly(BLOCK) != END[BLOCK:]:
                corrupt("the end marker is broken")
            return stream.expect_end()
        extended: dict[str, str] = {}
        if _type(block) == b"x":
            size = _octal(block[124:136])
            if size > MAX_EXTENDED:
                corrupt(f"an extended header of {size} bytes")
            extended = _records(stream.exactly(size))
            stream.exactly(-size % BLOCK)
            block = stream.exactly(BLOCK)
        member = _member(block, extended)
        content = _content(stream, member.size)
        yield member, content
        for _ in content:
            pass
        stream.exactly(-member.size % BLOCK)


def _content(stream: Inflated, size: int) -> Iterator[bytes]:
    while size:
        chunk = stream.some(size)
        size -= len(chunk)
        yield chunk


def _type(block: bytes) -> bytes:
    """The type of a header whose checksum holds."""
    if block[257:265] != b"ustar\x0000":
        corrupt("a header of another format")
    if sum(block) - sum(block[148:156]) + 8 * ord(" ") != _octal(block[148:156]):
        corrupt("a header's checksum is wrong")
    return block[156:157]


def _member(block: bytes, extended: dict[str, str]) -> Member:
    kind = KINDS.get(_type(block))
    if kind is None:
        corrupt(f"a member of type {block[156:157]!r}")
    size = _size(extended["size"]) if "size" in extended else _octal(block[124:136])
    if size and kind != "file":
        corrupt(f"a {kind} with content")
    prefix, name = _text(block[345:500]), _text(block[:100])
    path = extended.get("path", f"{prefix}/{name}" if prefix else name)
    target = extended.get("linkpath", _text(block[157:257]))
    mtime = extended.get("mtime") or str(_octal(block[136:148]))
    path = _checked_path(path.removesuffix("/") if kind == "directory" else path)
    if kind == "hardlink":
        _checked_path(target)
    elif kind == "symlink" and (not target or "\0" in target or _bytes(target) > MAX_PATH):
        corrupt(f"{path!r} is a link to nothing")
    return Member(path, kind, _octal(block[100:108]) & 0o7777, _mtime_ns(mtime), size, target)


def _checked_path(path: str) -> str:
    """The path, if it names something below the root and nothing else."""
    bad = any(name in ("", ".", "..") for name in path.split("/"))
    if bad or "\0" in path or _bytes(path) > MAX_PATH:
        corrupt(f"{path[:200]!r} is no name of a file below the root")
    return path


def _records(data: bytes) -> dict[str, str]:
    records, at = {}, 0
    while at < len(data):
        match = _RECORD.match(data, at)
        end = at + int(match[1]) if match else 0
        if not match or end <= match.end() or data[end - 1 : end] != b"\n":
            corrupt("a broken extended header")
        value = data[match.end() : end - 1]
        records[match[2].decode()] = value.decode("utf-8", "surrogateescape")
        at = end
    return records


def _octal(field: bytes) -> int:
    match = _OCTAL.match(field)
    return int(match[1], 8) if match else corrupt(f"a number {field!r}")


def _size(text: str) -> int:
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else corrupt(f"a size {text[:40]!r}")


def _mtime_ns(text: str) -> int:
    match = _MTIME.match(text)
    if not match:
        corrupt(f"a time {text[:40]!r}")
    ns = int(match[2]) * 10**9 + int((match[3] or "").ljust(9, "0"))
    return -ns if match[1] else ns


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogateescape"))
