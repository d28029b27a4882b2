"""What telling a person from a keep-alive costs: on the relay's path, and in the look once a second.

The same frames go through the scanner that only counts and through the one that also notes moments, in turn;
then through the looks, as often as a session of that rate gets one. The tab is the recorded one of VS Code.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median

from gateway.frames import ClientScanner, FrameScanner
from gateway.rhythm import APART, Rhythm

ROUNDS = 25
FRAMES = 20_000  # a round
TRACE = Path(__file__).parents[1] / "tests/data/traces/vscode-4.139-idle-type-idle.jsonl"
KEY = b"\x82\x8eMASK" + bytes(14)  # a key of VS Code: 14 bytes, masked

Look = tuple[float, int, int]  # when, frames, moments


def measure() -> dict[str, dict[str, list[float]]]:
    """Case → nanoseconds a frame, a value a round: "counting" and "with_moments" in the scanner, "look"."""
    idle, typing = recorded("idle"), recorded("typing")
    busy = [(float(second), 500, 10) for second in range(100)]
    return {
        "VS Code, idle: 1.8 frames a second": _case(idle, 1),
        "VS Code, somebody types: 11 a second": _case(typing, 1),
        "500 frames a second, one a read": _case([busy], 1),
        "500 frames a second, ten a read": _case([busy], 10),
    }


def recorded(phase: str) -> list[list[Look]]:
    """The looks of each of the tab's connections in that phase."""
    head, *rows = (json.loads(line) for line in TRACE.read_text().splitlines())
    start, until = next(each[1:] for each in head["phases"] if each[0] == phase)
    sent: dict[int, list[float]] = defaultdict(list)
    for at, connection, direction, _, opcode, _, _ in rows:
        if direction == "c" and opcode < 8 and start <= at < until:
            sent[connection].append(at)
    return [list(_looks(moments)) for moments in sent.values()]


def _looks(sent: list[float]) -> Iterable[Look]:
    seconds: dict[int, list[float]] = defaultdict(list)
    for at in sent:
        seconds[int(at)].append(at)
    for second, here in seconds.items():
        apart = 1 + sum(b - a >= APART for a, b in pairwise(here))
        yield float(second), len(here), apart


def _case(connections: list[list[Look]], a_read: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    plain, noting = FrameScanner(), ClientScanner(time.monotonic, APART)
    for _ in range(ROUNDS):
        for name, scanner in (("counting", plain), ("with_moments", noting)):
            found[name].append(
                _taken(partial(_scan, scanner, KEY * a_read, FRAMES // a_read)) / FRAMES
            )
        frames = sum(look[1] for looks in connections for look in looks)
        times = max(1, FRAMES // frames)
        rhythms = [Rhythm(0.0) for _ in connections]
        taken = _taken(partial(_look, rhythms, connections, times))
        found["look"].append(taken / frames / times)
    return found


def _scan(scanner: FrameScanner, read: bytes, times: int) -> None:
    feed = scanner.feed
    for _ in range(times):
        feed(read)


def _look(rhythms: list[Rhythm], connections: list[list[Look]], times: int) -> None:
    for rhythm, looks in zip(rhythms, connections, strict=True):
        long = looks[-1][0] - looks[0][0] + 1
        for turn in range(times):
            for at, frames, moments in looks:
                rhythm.look(at + turn * long, frames, moments)


def _taken(do: Callable[[], None]) -> float:
    """Nanoseconds of this thread's CPU."""
    before = time.thread_time_ns()
    do()
    return time.thread_time_ns() - before


def middle(values: list[float]) -> str:
    return f"{median(values):.0f} ({min(values):.0f}–{max(values):.0f})"


def rows(found: dict[str, dict[str, list[float]]]) -> list[list[str]]:
    """As the table has them; "all of it" is what the relay's counting alone would not have taken."""
    table = []
    for name, each in found.items():
        plain, noting, look = (median(each[key]) for key in ("counting", "with_moments", "look"))
        times = [middle(each[key]) for key in ("counting", "with_moments", "look")]
        table.append([name, *times, f"{noting - plain + look:.0f}"])
    return table


COLUMNS = ("ns a frame", "scanner, counting", "with moments", "look", "all of it, added")
