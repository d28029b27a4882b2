"""Archives made by hand, by somebody who means harm. Each is refused, and leaves nothing behind."""

from __future__ import annotations

import io
import os
import random
import tarfile
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from lifecycle.agent.contract import Manifest
from lifecycle.snapshots import SnapshotError
from lifecycle.snapshots.archive import unpack
from lifecycle.snapshots.tarstream import END, MAX_EXTENDED

FILE, DIRECTORY, LINK, HARD = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


def member(
    name: str, kind: bytes = FILE, target: str = "", content: bytes = b"", **fields: Any
) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, len(content)
    info.mode = 0o755 if kind == DIRECTORY else 0o644
    for field, value in fields.items():
        setattr(info, field, value)
    header = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    return header + content + bytes(-len(content) % 512)


def write(path: Path, parts: Iterable[bytes]) -> Path:
    with path.open("wb") as file:
        out = zstandard.ZstdCompressor(level=1).stream_writer(file, closefd=False)
        for part in parts:
            out.write(part)
        out.flush(zstandard.FLUSH_FRAME)
    return path


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., SnapshotError]:
    """refused(parts): the error of restoring them; nothing may have changed on the disk."""
    (tmp_path / "secret").write_bytes(b"untouched")
    (tmp_path / "outside").mkdir()

    def restore(parts: Iterable[bytes] | Path, **bounds: int) -> SnapshotError:
        packed = parts if isinstance(parts, Path) else write(tmp_path / "packed", parts)
        before = sorted(path for path in tmp_path.rglob("*"))
        with pytest.raises(SnapshotError) as caught:
            unpack(
                packed,
                tmp_path / "root",
                **{"max_bytes": 2**20, "max_files": 1000, "owner": None, **bounds},  # type: ignore[arg-type]
            )
        assert sorted(path for path in tmp_path.rglob("*")) == before
        assert (tmp_path / "secret").read_bytes() == b"untouched"
        assert (tmp_path / "secret").stat().st_nlink == 1
        return caught.value

    return restore


def test_the_hand_made_archives_are_good_otherwise(tmp_path: Path) -> None:
    parts = [member("d", DIRECTORY), member("d/f", content=b"x"), member("l", LINK, "d"), END]
    unpack(write(tmp_path / "p", parts), tmp_path / "root", max_bytes=1, max_files=3, owner=None)
    assert (tmp_path / "root/l/f").read_bytes() == b"x"


BAD_NAMES = [
    "../secret", "..", ".", "./x", "/etc/cron.d/x", "//x", "a/../../secret", "a/../b", "a//b",
    "a/", "a/./b", "", "x" * 256, "/".join(["x" * 200] * 21), "a\0b",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: repr(name[:20]))
@pytest.mark.parametrize("kind", [FILE, DIRECTORY, LINK, HARD])
def test_names_of_nothing_below_the_root(refused: Any, name: str, kind: bytes) -> None:
    first = [member("ok"), member("a", DIRECTORY)]  # "a/" is a second one of that name
    # The plain header cannot hold a NUL or an empty name: the extended one says it.
    evil = member("x", kind, "ok", pax_headers={"path": name})
    assert refused([*first, evil, END]).code == "corrupt"


@pytest.mark.parametrize("target", ["../outside", "/tmp", "d", ".", "missing"])
@pytest.mark.parametrize("kind", [FILE, DIRECTORY, LINK, HARD])
def test_nothing_is_written_through_a_link(refused: Any, target: str, kind: bytes) -> None:
    parts = [member("d", DIRECTORY), member("f"), member("l", LINK, target)]
    assert refused([*parts, member("l/x", kind, "f"), END]).code == "corrupt"
    assert refused([*parts, member("l/x/y", kind, "f"), END]).code == "corrupt"


def test_no_link_takes_the_place_of_something_and_nothing_takes_its(refused: Any) -> None:
    for first, second in [
        (member("a", DIRECTORY), member("a", LINK, "/tmp")),
        (member("a", LINK, "b"), member("a", LINK, "/tmp")),
        (member("a", LINK, "../secret"), member("a", content=b"through")),
        (member("a"), member("a", content=b"again")),
        (member("a"), member("a", DIRECTORY)),
        (member("a", DIRECTORY), member("a", DIRECTORY)),
        (member("a"), member("a/b")),
    ]:
        assert refused([first, second, END]).code == "corrupt"


@pytest.mark.parametrize(
    "target", ["../secret", "/etc/passwd", "missing", "later", "d", "l", "hard", "d/../ok", ""]
)
def test_hard_links_lead_to_files_already_there(refused: Any, target: str) -> None:
    parts = [member("ok"), member("d", DIRECTORY), member("l", LINK, "../secret")]
    assert refused([*parts, member("hard", HARD, target), member("later"), END]).code == "corrupt"


def test_the_chain_of_links_that_outgrew_realpath(refused: Any) -> None:
    """CVE-2025-4517: after 16 links realpath gave up, and the filter believed what it said."""
    parts, here, long = [], "", "d" * 247
    for step in "abcdefghijklmnop":
        parts += [member(f"{here}{long}", DIRECTORY), member(f"{here}{step}", LINK, long)]
        here += f"{long}/"
    chain = "/".join("abcdefghijklmnop") + "/" + "l" * 254
    parts += [
        member(chain, LINK, "../" * 16),
        member("escape", LINK, f"{chain}/../outside"),
        member("flag", HARD, "escape/x"),
        member("flag", content=b"written"),
        END,
    ]
    assert refused(parts).code == "corrupt"


def test_links_that_leave_only_together_are_left_out(tmp_path: Path) -> None:
    parts = [
        *(member(name, DIRECTORY) for name in ("p", "p/q", "p/q/r", "t")),
        member("p/q/r/s", LINK, "../../../t"),
        member("innocent", LINK, "p/q/r/s/../../.."),
        *(member(f"chain{n}", LINK, f"chain{n + 1}") for n in range(39)),
        member("chain39", LINK, "../secret"),
        END,
    ]
    unpack(write(tmp_path / "p", parts), tmp_path / "root", max_bytes=0, max_files=99, owner=None)
    assert sorted(os.listdir(tmp_path / "root")) == ["p", "t"]
    assert os.readlink(tmp_path / "root/p/q/r/s") == "../../../t"


@pytest.mark.parametrize("kind", [bytes([n]) for n in range(128) if n not in b"0125x"])
def test_devices_fifos_and_other_types(refused: Any, kind: bytes) -> None:
    error = refused([member("x", kind, devmajor=1, devminor=3), END])
    assert error.code == "corrupt"
    assert "type" in str(error) or "header" in str(error)


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_gnu_headers_are_refused_plain_ones_are_the_same(
    refused: Any, tmp_path: Path, format: int
) -> None:
    header = tarfile.TarInfo("x").tobuf(format)
    if format == tarfile.GNU_FORMAT:
        assert refused([header, END]).code == "corrupt"
    else:
        write(tmp_path / "p", [header, END])
        unpack(tmp_path / "p", tmp_path / "root", max_bytes=0, max_files=1, owner=None)
        assert os.listdir(tmp_path / "root") == ["x"]


@pytest.mark.parametrize(
    "fields",
    [
        {"GNU.sparse.size": "1000000"},
        {"size": "-1"},
        {"size": "1e3"},
        {"size": "9" * 19},
        {"mtime": "nan"},
        {"mtime": "1e9"},
        {"mtime": "9" * 12},
        {"linkpath\nx": "y"},
    ],
    ids=str,
)
def test_extended_headers_that_we_do_not_write(refused: Any, fields: dict[str, str]) -> None:
    assert refused([member("x", pax_headers=fields), END]).code == "corrupt"


@pytest.mark.parametrize(
    "records",
    [
        b"8 path=",
        b"0 path=a\n",
        b"7 path=\n9 path=a\n",
        b"99 path=a\n",
        b"9 path=ab",
        b"1" * 5000,
        b"1" * 16_000 + b" path=a\n",
        b"-9 path=a\n",
        b" 9 path=a\n",
    ],
    ids=lambda value: repr(value[:20]),
)
def test_broken_extended_headers(refused: Any, records: bytes) -> None:
    assert refused([member("h", b"x", content=records), member("x"), END]).code == "corrupt"


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_a_huge_extended_header_is_not_loaded(tmp_path: Path, refused: Any, kind: bytes) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = kind, 2**30
    packed = write(tmp_path / "p", [header.tobuf(tarfile.PAX_FORMAT), *[bytes(2**24)] * 8])
    tracemalloc.start()
    try:
        assert refused(packed).code == "corrupt"
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()
    assert MAX_EXTENDED < 2**20


@pytest.mark.parametrize("field", range(100, 156, 4))
def test_numbers_that_are_none(refused: Any, field: int) -> None:
    for wrong in (b"-001", b"\xff\xff\xff\xff", b"0x10", b"1_0 ", b"\x80\0\0\0"):
        block = bytearray(member("x"))
        block[field : field + 4] = wrong
        assert refused([bytes(block), END]).code == "corrupt"


def test_directories_and_links_have_no_content(refused: Any) -> None:
    for kind in (DIRECTORY, LINK, HARD):
        assert refused([member("ok"), member("x", kind, "ok", b"content"), END]).code == "corrupt"


def test_a_bomb_stops_at_the_cap(refused: Any) -> None:
    size = 512 * 2**20

    def bomb() -> Iterable[bytes]:
        header = tarfile.TarInfo("zeros")
        header.size = size
        yield header.tobuf(tarfile.PAX_FORMAT)
        for _ in range(size // 2**22):
            yield bytes(2**22)
        yield END

    error = refused(bomb())
    assert error.code == "too_large"
    assert "--snapshot-max-bytes" in str(error)


def test_many_small_ones_count_together(refused: Any) -> None:
    parts = [member(f"f{n}", content=b"x" * 1000) for n in range(11)]
    assert refused([*parts, END], max_bytes=10_999).code == "too_large"


def test_two_million_empty_files_stop_at_the_cap(refused: Any) -> None:
    def files() -> Iterable[bytes]:
        for n in range(2000):
            yield member(f"f{n}")
        block = member("again") * 1000
        for _ in range(1998):
            yield block
        yield END

    error = refused(files(), max_files=1000)
    assert error.code == "too_large"
    assert "--snapshot-max-files" in str(error)


def test_a_window_that_would_need_a_lot_of_memory(tmp_path: Path, refused: Any) -> None:
    params = zstandard.ZstdCompressionParameters.from_level(1, window_log=27)
    with (tmp_path / "p").open("wb") as file:
        compressor = zstandard.ZstdCompressor(compression_params=params)
        out = compressor.stream_writer(file, closefd=False)
        out.write(member("x", content=b"x" * 5000) + END)
        out.flush(zstandard.FLUSH_FRAME)
    assert refused(tmp_path / "p").code == "corrupt"


# --- whole or not at all -------------------------------------------------------------------------


@pytest.fixture
def good(tmp_path: Path, pack_tree: Callable[..., Manifest]) -> bytes:
    """An archive of ours, of files that do not compress."""
    rng = random.Random(5)
    files = tmp_path / "files"
    files.mkdir()
    for n in range(5):
        (files / f"f{n}").write_bytes(rng.randbytes(700))
    pack_tree(files, tmp_path / "good")
    data = (tmp_path / "good").read_bytes()
    (tmp_path / "good").unlink()
    return data


def test_a_cut_anywhere_without_any_manifest(tmp_path: Path, refused: Any, good: bytes) -> None:
    rng = random.Random(6)
    for size in [0, 1, len(good) - 1, len(good) - 4, *rng.sample(range(len(good)), 50)]:
        (tmp_path / "p").write_bytes(good[:size])
        assert refused(tmp_path / "p").code == "corrupt", size


def test_a_changed_byte_anywhere_without_any_manifest(
    tmp_path: Path, refused: Any, good: bytes
) -> None:
    for at in random.Random(7).sample(range(len(good)), 50):
        bad = bytearray(good)
        bad[at] ^= 0xFF
        (tmp_path / "p").write_bytes(bad)
        assert refused(tmp_path / "p").code == "corrupt", at


def test_bytes_after_the_end(tmp_path: Path, refused: Any, good: bytes) -> None:
    for more in (b"\0", b"garbage", good, zstandard.compress(END), zstandard.compress(b"")):
        (tmp_path / "p").write_bytes(good + more)
        assert refused(tmp_path / "p").code == "corrupt"
    assert refused([member("x"), END, bytes(512)]).code == "corrupt"
    assert refused([member("x"), END, member("y"), END]).code == "corrupt"


def test_an_end_that_is_none(refused: Any) -> None:
    assert refused([member("x")]).code == "corrupt"
    assert refused([member("x"), bytes(512)]).code == "corrupt"
    assert refused([member("x"), bytes(512), member("y"), END]).code == "corrupt"
    assert refused([]).code == "corrupt"


def test_no_zstd_at_all(tmp_path: Path, refused: Any) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("x"))
    (tmp_path / "p").write_bytes(buffer.getvalue())
    assert refused(tmp_path / "p").code == "corrupt"
