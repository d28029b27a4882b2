"""Calls about peaks: what is declared, what the pool holds for it, and what it cannot do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gateway.api import bodies
from gateway.api.answers import PeakAnswer
from gateway.api.errors import ApiError, Invalid, NotFound
from gateway.api.operation import Call, Reply
from gateway.api.parts import Parts
from lifecycle.activity import span
from lifecycle.peaks import Peak
from lifecycle.peaks_book import Ahead
from lifecycle.peaks_declared import AHEAD_MAX, ENTRIES_MAX, doubts


async def listing(call: Call) -> Reply:
    return Reply(200, await rows(call.parts, await call.parts.fleet.pool_decision()))


async def declare(call: Call) -> Reply:
    body: bodies.DeclarePeak = call.body
    book = call.parts.peaks
    await _not_in_file(call.parts, body.name)
    peak = Peak(body.at, body.users, body.name, body.early_seconds, body.late_seconds)
    if body.at > (await book.look()).now_ms + AHEAD_MAX:
        raise Invalid("at: is more than a year ahead; it is in milliseconds since the epoch", "at")
    outcome, now_ms = await book.declare(peak)
    if outcome == "past":
        ago = span((now_ms - body.at) / 1000)
        raise Invalid(f"at: was {ago} ago; it is in milliseconds since the epoch", "at")
    if outcome == "full":
        message = f"{ENTRIES_MAX} peaks are declared, and no more can be; remove one first"
        raise ApiError(409, "too_many_peaks", message, details={"allowed": ENTRIES_MAX})
    found = await rows(call.parts, await call.parts.fleet.pool_decision())
    mine = [row for row in found if row.name == peak.name and row.source == "api"]
    if not mine:
        raise NotFound(f"peak {peak.name} is removed meanwhile")
    return Reply(200, mine[0])


async def remove(call: Call) -> Reply:
    name = call.request.path_params["name"]
    await _not_in_file(call.parts, name)
    peak = await call.parts.peaks.remove(name)
    if peak is None:
        raise NotFound("there is no such peak; GET /api/peaks lists them")
    now_ms = (await call.parts.peaks.look()).now_ms
    return Reply(200, _row(Ahead(peak), now_ms, None, ""))


async def rows(parts: Parts, decision: Mapping[str, Any]) -> list[PeakAnswer]:
    """What is declared and not over, the first first. decision: the scaler's last."""
    book = await parts.peaks.look()
    peaks = [each.peak for each in book.peaks]
    need: Mapping[str, Any] = decision.get("need") or {}
    reach = replace(parts.reach, lead_time=need.get("lead_time", parts.reach.lead_time))
    held = {
        (row["peak"]["name"], row["peak"]["at_ms"]): row["slots"] for row in need.get("peaks", ())
    }
    all_there = decision.get("have", 0) >= decision.get("want", 1)
    found = []
    for each in book.peaks:
        slots = held.get((each.peak.name, each.peak.at_ms))
        is_ready = all_there and slots is not None
        notice = doubts(each.peak, peaks, reach, book.now_ms, is_ready)
        found.append(_row(each, book.now_ms, slots, notice))
    return found


async def _not_in_file(parts: Parts, name: str) -> None:
    if await parts.peaks.in_file(name):
        message = (
            f"{name} is declared in the file of --peaks: change it there, or take another name"
        )
        raise ApiError(409, "declared_in_file", message)


def _row(each: Ahead, now_ms: int, held: int | None, notice: str) -> PeakAnswer:
    peak, entry = each.peak, each.entry
    repeats = entry is not None and bool(entry.cron)
    return PeakAnswer(
        name=peak.name,
        at=peak.at_ms,
        users=peak.users,
        early_seconds=peak.early,
        late_seconds=peak.late,
        state="open" if peak.from_ms <= now_ms else "ahead",
        source="file" if entry else "api",
        cron=entry.cron if entry and repeats else None,
        time_zone=entry.zone if entry and repeats else None,
        held_slots=held,
        notice=notice or None,
    )
