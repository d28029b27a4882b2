"""The scanner agrees with the websockets library on every stream, however it is split."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ProtocolError
from websockets.frames import Close as WireClose
from websockets.frames import Frame, Opcode

from gateway.frames import (
    NO_STATUS,
    ClientScanner,
    FrameScanner,
    PongFilter,
    close_code,
    close_frame,
    may_be_sent,
    ping_frame,
    unmask,
)
from gateway.wire import IS_COMPILED, Scanner

client_scanner: Callable[..., Any]
scanner_of: Callable[[], Any]


@pytest.fixture(scope="module", params=["Python", "compiled"], autouse=True)
def kinds(request: pytest.FixtureRequest) -> None:
    """Both scanners are to say the same."""
    global client_scanner, scanner_of
    if request.param == "Python":
        client_scanner, scanner_of = ClientScanner, FrameScanner
    elif IS_COMPILED:
        client_scanner = scanner_of = Scanner
    else:
        pytest.skip("the relay is not compiled here")


PING = b"gateway!"

LENGTHS = st.one_of(
    st.integers(0, 20), st.sampled_from([124, 125, 126, 127, 128, 65534, 65535, 65536, 65537])
)
DATA_FRAMES = st.builds(
    lambda opcode, size, fin: Frame(opcode, b"\x81" * size, fin=fin),
    st.sampled_from([Opcode.CONT, Opcode.TEXT, Opcode.BINARY]),
    LENGTHS,
    st.booleans(),
)
CONTROL_FRAMES = st.builds(
    Frame, st.sampled_from([Opcode.PING, Opcode.PONG]), st.binary(max_size=125)
)
OUR_PONG = st.just(Frame(Opcode.PONG, PING))
NEARLY_OUR_PONG = st.builds(Frame, st.just(Opcode.PONG), st.sampled_from([b"gateway?", b"gateway"]))
CLOSES = st.builds(
    lambda code, reason: Frame(Opcode.CLOSE, code.to_bytes(2, "big") + reason),
    st.integers(1000, 4999),
    st.binary(max_size=123),
) | st.just(Frame(Opcode.CLOSE, b""))
STREAMS = st.lists(DATA_FRAMES | CONTROL_FRAMES, max_size=8)
CUTS = st.lists(st.integers(0, 200) | st.integers(0, 300_000), max_size=12)


def split(stream: bytes, cuts: list[int]) -> list[bytes]:
    """`stream` in pieces; every cut falls inside it, so that small streams are cut as well."""
    points = sorted({cut % (len(stream) + 1) for cut in cuts} | {0, len(stream)})
    return [stream[a:b] for a, b in pairwise(points)]


def boundaries(frames: list[bytes]) -> set[int]:
    ends, at = {0}, 0
    for frame in frames:
        at += len(frame)
        ends.add(at)
    return ends


@given(frames=STREAMS, mask=st.booleans(), cuts=CUTS)
def test_counts_and_boundaries(frames: list[Frame], mask: bool, cuts: list[int]) -> None:
    wire = [frame.serialize(mask=mask) for frame in frames]
    ends, scanner, at = boundaries(wire), client_scanner(lambda: 0.0, 0.1), 0
    for piece in split(b"".join(wire), cuts):
        assert scanner.feed(piece) == 0
        at += len(piece)
        assert scanner.at_boundary == (at in ends)
    data = sum(frame.opcode in (Opcode.CONT, Opcode.TEXT, Opcode.BINARY) for frame in frames)
    assert (scanner.data_frames, scanner.control_frames) == (data, len(frames) - data)
    assert scanner.bytes == sum(map(len, wire))


@given(stream=st.binary(max_size=400), cuts=CUTS)
def test_both_scanners_are_at_one_on_anything(stream: bytes, cuts: list[int]) -> None:
    ours, reference, now = scanner_of(), FrameScanner(), 0.0
    theirs, client = client_scanner(lambda: now, 2.0), ClientScanner(lambda: now, 2.0)
    for piece in split(stream, cuts):
        now += 1
        assert ours.feed(piece) == reference.feed(piece) == theirs.feed(piece) == client.feed(piece)
        assert ours.walked == reference.walked == theirs.walked
        assert theirs.moments == client.moments
    again = scanner_of()
    again.walk_on(reference.walked)
    assert again.walked == reference.walked


def test_moments_are_data_frames_apart_from_those_before() -> None:
    now = 100.0
    scanner = client_scanner(lambda: now, 0.1)
    key, ping = Frame(Opcode.BINARY, b"a").serialize(mask=True), ping_frame(b"", mask=b"1234")

    def moments(at: float, data: bytes) -> int:
        nonlocal now
        now = at
        scanner.feed(data)
        return scanner.moments

    assert moments(100.0, key * 5) == 1, "what comes in one read is one moment"
    assert moments(100.05, key) == 1
    assert moments(100.11, ping) == 1, "control frames are none"
    assert moments(100.12, key) == 2
    assert moments(101.0, key[:1]) == 2, "half a header"
    assert moments(101.0, key[1:]) == 3
    assert (scanner.data_frames, scanner.control_frames) == (8, 1)


@given(frames=STREAMS, close=CLOSES, mask=st.booleans(), cuts=CUTS)
def test_a_close_frame_is_remembered_with_its_code(
    frames: list[Frame], close: Frame, mask: bool, cuts: list[int]
) -> None:
    wire = b"".join(frame.serialize(mask=mask) for frame in [*frames, close])
    scanner = scanner_of()
    for piece in split(wire, cuts):
        scanner.feed(piece)
    expected = int.from_bytes(close.data[:2], "big") if close.data else NO_STATUS
    assert scanner.close_code == expected
    assert scanner.at_boundary


def test_which_codes_may_be_sent() -> None:
    for code in range(65536):
        try:
            WireClose(code, "").check()
        except ProtocolError:
            assert not may_be_sent(code) or code == NO_STATUS
        else:
            assert may_be_sent(code)


def test_a_close_frame_with_code_0_is_one() -> None:
    scanner = scanner_of()
    assert scanner.feed(b"\x88\x82\x01\x02\x03\x04\x01\x02") == NO_STATUS
    assert scanner.at_boundary


@given(frames=STREAMS.filter(bool), mask=st.booleans(), cuts=CUTS, start=st.integers(0))
def test_feed_frame_stops_at_the_first_boundary(
    frames: list[Frame], mask: bool, cuts: list[int], start: int
) -> None:
    wire = [frame.serialize(mask=mask) for frame in frames]
    stream = b"".join(wire)
    start %= len(stream)
    scanner = scanner_of()
    scanner.feed(stream[:start])
    end = min(end for end in boundaries(wire) if end > start)
    at = start
    for piece in split(stream[start:], cuts):
        at += scanner.feed_frame(piece)
        if scanner.at_boundary:
            break
    assert at == end


@given(
    before=st.lists(DATA_FRAMES | CONTROL_FRAMES | NEARLY_OUR_PONG, max_size=4),
    after=st.lists(DATA_FRAMES | CONTROL_FRAMES | OUR_PONG, max_size=4),
    cuts=CUTS,
    sent_at=st.integers(0),
)
def test_one_pong_is_taken_and_all_else_passes(
    before: list[Frame], after: list[Frame], cuts: list[int], sent_at: int
) -> None:
    wire = [frame.serialize(mask=True) for frame in before]
    ours = Frame(Opcode.PONG, PING).serialize(mask=True)
    rest = b"".join(frame.serialize(mask=True) for frame in after)
    early = b"".join(wire)
    sent_at %= len(early) + 1  # the ping goes out anywhere in what comes before its pong
    scanner = scanner_of()
    scanner.feed(early[:sent_at])
    filtered = PongFilter(scanner, PING)
    passed = early[:sent_at]
    for piece in split(early[sent_at:] + ours + rest, cuts):
        passed += filtered.feed(piece)
    assert filtered.found
    assert passed == early + rest
    assert scanner.at_boundary
    assert scanner.data_frames + scanner.control_frames == len(before) + 1 + len(after)


def test_a_pong_that_never_comes_holds_nothing_else_back() -> None:
    scanner = scanner_of()
    filtered = PongFilter(scanner, PING)
    frame = Frame(Opcode.PONG, b"gateway?").serialize(mask=True)
    assert filtered.feed(frame[:13]) == b""  # the last byte decides
    assert filtered.feed(frame[13:]) == frame
    assert not filtered.found


def test_malformed_frames_are_only_skipped() -> None:
    reserved = b"\x8b\x02ab"
    long_ping = b"\x89\x7e\x01\x00" + bytes(256)
    long_close = b"\x88\x7e\x01\x00" + bytes(256)
    scanner = scanner_of()
    scanner.feed(reserved + long_ping + long_close)
    assert scanner.at_boundary
    assert (scanner.control_frames, scanner.close_code) == (3, NO_STATUS)


def test_the_first_close_counts() -> None:
    scanner = scanner_of()
    scanner.feed(close_frame(4410) + close_frame(1000))
    assert scanner.close_code == 4410


CODES = st.integers(1000, 4999).filter(lambda code: code != NO_STATUS)  # that one is never sent


@given(code=CODES, reason=st.text(max_size=30), masked=st.booleans())
def test_close_frames_read_back(code: int, reason: str, masked: bool) -> None:
    key = b"\x01\x82\x03\xfe" if masked else b""
    frame = close_frame(code, reason, mask=key)
    body = frame[6:] if masked else frame[2:]
    payload = unmask(body, key) if masked else body
    assert payload == code.to_bytes(2, "big") + reason.encode()
    assert frame[:2] == bytes((0x88, len(payload) | 0x80 * masked))
    assert close_code(frame[:8]) == code


def test_control_frames_are_what_websockets_writes() -> None:
    assert ping_frame(PING) == Frame(Opcode.PING, PING).serialize(mask=False)
    close = Frame(Opcode.CLOSE, (1012).to_bytes(2, "big") + "grüß dich".encode())
    assert close_frame(1012, "grüß dich") == close.serialize(mask=False)


def test_a_control_frame_does_not_grow_past_its_limit() -> None:
    with pytest.raises(ValueError, match="125 are allowed"):
        close_frame(1000, "x" * 124)
