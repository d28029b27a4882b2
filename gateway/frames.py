"""WebSocket frame headers, and what they say of activity (RFC 6455, section 5.2).

Nothing is decoded, checked or copied here: the relay passes bytes on as they are, and a scanner
walks over them from header to header to know how many frames passed and where one ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

NO_STATUS = 1005
"""What a close frame without a code means (RFC 6455, section 7.1.5)."""

_TO_SEND = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015)})

_FIN = 0x80
_MASKED = 0x80
_CONTROL = 0x08
_OPCODE = 0x0F
_CLOSE = 0x08
_PING = 0x09
_PONG = 0x0A


@dataclass(frozen=True, slots=True)
class Walked:
    """How far a scanner has come: bytes and counts, bytes of the frame under way that are still to come, and the start
    of a header that was cut short."""

    size: int = 0
    data_frames: int = 0
    control_frames: int = 0
    close_code: int = 0
    skip: int = 0
    head: bytes = b""


class FrameScanner:
    """Follows one direction of a connection from frame to frame, through reads split anywhere."""

    __slots__ = ("_head", "_skip", "bytes", "close_code", "control_frames", "data_frames")

    def __init__(self) -> None:
        self.bytes = 0
        self.data_frames = 0
        self.control_frames = 0
        self.close_code = 0
        """Code of the first Close frame seen, NO_STATUS if it carried none; 0 before."""
        self._skip = 0  # bytes of the frame under way that are still to come
        self._head = b""  # a header cut short by the end of a read, 13 bytes at most

    @property
    def at_boundary(self) -> bool:
        """True between two frames: a frame of our own may be put in here."""
        return not self._skip and not self._head

    @property
    def walked(self) -> Walked:
        return Walked(
            self.bytes,
            self.data_frames,
            self.control_frames,
            self.close_code,
            self._skip,
            self._head,
        )

    def walk_on(self, walked: Walked) -> None:
        """From where another scanner has come to."""
        self.bytes, self.data_frames = walked.size, walked.data_frames
        self.control_frames, self.close_code = walked.control_frames, walked.close_code
        self._skip, self._head = walked.skip, walked.head

    def feed(self, data: bytes) -> int:
        """Walk over `data`; returns `close_code`, so it is true once a Close frame was seen.

        A frame counts when its header is complete. The masking key needs no look: it is four more
        bytes to skip.
        """
        size = len(data)
        self.bytes += size
        at = self._skip
        if not at and not self._head and 1 < size < 65536 and not data[0] & _CONTROL:
            # Most reads are one whole data frame: found out without walking.
            second = data[1]
            length = second & 0x7F
            if length == 126 and size > 3:
                length = (data[2] << 8 | data[3]) + 2
            elif length == 127:
                length = size  # never whole: such a frame is longer than this
            # With four bytes more where there is a masking key: its bit, shifted, is that number.
            if length + 2 + (second >> 5 & 4) == size:
                self.data_frames += 1
                return self.close_code
        if self._head:
            data = self._head + data
            size = len(data)
            self._head = b""
        while at < size:
            if size - at < 2:
                return self._wait(data, at)
            opcode = data[at] & _OPCODE
            second = data[at + 1]
            length = second & 0x7F
            if length < 126:
                end = at + 2 + length
            elif length == 126:
                if size - at < 4:
                    return self._wait(data, at)
                end = at + 4 + (data[at + 2] << 8 | data[at + 3])
            else:
                if size - at < 10:
                    return self._wait(data, at)
                end = at + 10 + int.from_bytes(data[at + 2 : at + 10], "big")
            if second & _MASKED:
                end += 4
            if opcode < _CONTROL:
                self.data_frames += 1
            else:
                if opcode == _CLOSE and not self.close_code:
                    code = close_code(data[at : at + 8])
                    if code is None:
                        return self._wait(data, at)
                    self.close_code = code
                self.control_frames += 1
            at = end
        self._skip = at - size
        return self.close_code

    def feed_frame(self, data: bytes) -> int:
        """Walk over `data` to the first boundary only; returns how many bytes that were.

        Always takes at least one byte of a `data` that is not empty. Off the hot path.
        """
        taken = 0
        while taken < len(data):
            step = max(1, min(self._skip, len(data) - taken))
            self.feed(data[taken : taken + step])
            taken += step
            if self.at_boundary:
                break
        return taken

    def _wait(self, data: bytes, at: int) -> int:
        self._skip = 0
        self._head = data[at:]
        return self.close_code


_scan = FrameScanner.feed


class ClientScanner(FrameScanner):
    """Counts, of what a client sends, its moments as well: what the rhythm of a connection is made of.

    One look at the clock for each read with a data frame, and nothing else on the relay's path.
    """

    __slots__ = ("_apart", "_clock", "_next", "moments")

    def __init__(self, clock: Callable[[], float], apart: float) -> None:
        """A moment: data frames that come at least `apart` seconds after the one before."""
        super().__init__()
        self._clock = clock
        self._apart = apart
        self._next = 0.0  # from then on a frame is another moment; clocks start at 0
        self.moments = 0

    def feed(self, data: bytes) -> int:
        size = len(data)
        if (
            5 < size < 132 and data[1] == size + 122
            and not (self._skip or self._head or data[0] & _CONTROL)
        ):  # fmt: skip
            # One whole short frame, as typing sends them: found out without walking.
            self.bytes += size
            self.data_frames += 1
            code = self.close_code
        else:
            before = self.data_frames
            code = _scan(self, data)
            if self.data_frames == before:
                return code
        now = self._clock()
        if now >= self._next:
            self._next = now + self._apart
            self.moments += 1
        return code


class PongFilter:
    """Takes the one pong that answers the gateway's own ping out of what the client sends.

    The workspace did not ask for it, so it must not see it. In use only while such a ping is
    unanswered. A pong that began before the ping was sent cannot be its answer and passes.
    """

    __slots__ = ("_held", "_scanner", "found", "payload")

    def __init__(self, scanner: FrameScanner, payload: bytes) -> None:
        self._scanner = scanner
        self.payload = payload
        self._held = b""  # start of a frame that may be our pong: not scanned, not passed on
        self.found = False

    def feed(self, data: bytes) -> bytes:
        """`data` without our pong, scanned. Once `found`, everything passes."""
        data, self._held = self._held + data, b""
        passed: list[bytes] = []
        at = 0
        size = 6 + len(self.payload)
        while at < len(data) and not self.found:
            if self._scanner.at_boundary and self._may_be_ours(data[at : at + size]):
                if len(data) - at < size:
                    self._held = data[at:]
                    return b"".join(passed)
                self._scanner.control_frames += 1
                self.found = True
                at += size
                break
            taken = self._scanner.feed_frame(data[at:])
            passed.append(data[at : at + taken])
            at += taken
        rest = data[at:]
        self._scanner.feed(rest)
        passed.append(rest)
        return b"".join(passed)

    def release(self) -> bytes:
        """What is held back and was not scanned: the start of a frame that looks like our pong."""
        held, self._held = self._held, b""
        return held

    def _may_be_ours(self, start: bytes) -> bool:
        """Could a frame that starts like this be our pong? Certain when `start` is a whole frame."""
        if start[0] != _FIN | _PONG:
            return False
        if len(start) > 1 and start[1] != _MASKED | len(self.payload):
            return False
        return unmask(start[6:], start[2:6]) == self.payload[: max(0, len(start) - 6)]


def close_code(start: bytes) -> int | None:
    """Code in a Close frame, from its first 8 bytes; None if more of them are needed. 0, which no frame may
    say, counts as none: a Close frame it is all the same."""
    masked = start[1] & _MASKED
    length = start[1] & 0x7F
    if not 2 <= length < 126:
        return NO_STATUS
    at = 6 if masked else 2
    if len(start) < at + 2:
        return None
    code = start[at : at + 2]
    return int.from_bytes(unmask(code, start[2:6]) if masked else code, "big") or NO_STATUS


def may_be_sent(code: int) -> bool:
    """Whether a Close frame may say it; NO_STATUS: it may say nothing (RFC 6455, section 7.4)."""
    return code == NO_STATUS or code in _TO_SEND or 3000 <= code < 5000


def close_frame(code: int, reason: str = "", *, mask: bytes = b"") -> bytes:
    """A Close frame; for NO_STATUS an empty one. `reason`: at most 123 bytes of UTF-8.

    `mask`: a key of four bytes, for what a client sends.
    """
    payload = b"" if code == NO_STATUS else code.to_bytes(2, "big") + reason.encode()
    return _control_frame(_CLOSE, payload, mask)


def ping_frame(payload: bytes, *, mask: bytes = b"") -> bytes:
    """A Ping frame. `payload`: at most 125 bytes. `mask`: a key, for what a client sends."""
    return _control_frame(_PING, payload, mask)


def unmask(data: bytes, key: bytes) -> bytes:
    """`data` masked or unmasked with the four bytes of `key`. For short payloads."""
    return bytes(byte ^ key[i % 4] for i, byte in enumerate(data))


def _control_frame(opcode: int, payload: bytes, mask: bytes) -> bytes:
    if len(payload) > 125:
        raise ValueError(f"payload of a control frame has {len(payload)} bytes, 125 are allowed")
    if not mask:
        return bytes((_FIN | opcode, len(payload))) + payload
    return bytes((_FIN | opcode, _MASKED | len(payload))) + mask + unmask(payload, mask)
