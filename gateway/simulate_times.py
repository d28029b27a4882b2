"""Times that `ide-gateway simulate` is asked about, and whether anything happens then. Errors: Contradiction."""

from __future__ import annotations

from gateway.exits import Exit
from lifecycle.peaks import Peak
from lifecycle.simulation.records import Workload
from lifecycle.simulation.report import clock as shown
from lifecycle.simulation.runs import Task
from lifecycle.simulation.spec import DAY, clock, of


class Contradiction(Exit):
    """Flags that cannot be meant together, or mean nothing: a wrong command line."""

    code = 2


def stretch(text: str) -> tuple[float, float]:
    """ "08:20-08:50" """
    since, dash, until = text.partition("-")
    if not dash:
        raise Contradiction(
            f"--no-capacity {text}: it must be two times, FROM-TO",
            "as in --no-capacity 08:20-08:50",
        )
    begins, ends = (time_of("--no-capacity", part, text) for part in (since, until))
    if begins >= ends:
        raise Contradiction(f"--no-capacity {text}: ends before it begins", "write FROM-TO")
    return begins, ends


def peak(text: str) -> tuple[float, int]:
    """ "09:00=3000" """
    at, _, users = text.partition("=")
    if not users.isdecimal() or not 0 < int(users) <= 1_000_000:
        raise Contradiction(
            f"--peak {text}: it must be a time and for how many slots are held",
            "as in --peak 09:00=3000",
        )
    return time_of("--peak", at), int(users)


def check_times(workload: Workload, task: Task) -> None:
    """A peak that nobody can come to, and whatever is after the last day, was meant for another one. Raises
    Contradiction."""
    _check_peaks(task, workload.last)
    times = [("--no-capacity", begins) for begins, _ in task.cloud.refusals]
    if task.explain is not None:
        times.append(("--explain", task.explain))
    for flag, at in times:
        if at > max(workload.days * DAY, workload.until, workload.last):
            raise Contradiction(
                f"{flag} {shown(at)} is after the last day: the workload has {of(workload.days, 'day', 'days')}",
                "name a time within the workload, or ask for more days",
            )


def _check_peaks(task: Task, last: float) -> None:
    """last: when the last one comes. Raises Contradiction."""
    for at, _ in task.peaks:
        if at - Peak(0, 0).early > last:
            raise Contradiction(
                f"--peak {shown(at)} is after everybody has come (the last one at {shown(last)})",
                "name a time within the workload, or ask for more days",
            )


def time_of(flag: str, text: str, whole: str = "") -> float:
    """whole: what was given, where `text` is a part of it."""
    try:
        return clock(text)
    except ValueError as error:
        what = f"{whole}: {text or 'nothing'}" if whole else f"{text}:"
        raise Contradiction(f"{flag} {what} must be {error}") from None
