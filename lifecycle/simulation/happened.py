"""Visits out of what a gateway has told of: the export of GET /api/events. Pure. Errors: WorkloadError.

A visit lasts while a workspace has sessions. Where no session is told of, it lasts from `workspace.queued` until the
workspace stops, less the idle timeout that was waited for then (`idle=`)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any

from lifecycle.simulation import stretch
from lifecycle.simulation.moments import days_between, kind_of
from lifecycle.simulation.recorded import number
from lifecycle.simulation.records import Visit, Workload
from lifecycle.simulation.rows import Row, Table, objects
from lifecycle.simulation.spec import DAY, Parameter, WorkloadError, of
from lifecycle.simulation.spec import number as a_number

PARAMETERS: Mapping[str, Parameter] = {
    **stretch.PARAMETERS,
    **stretch.TIMES,
    "idle": Parameter(
        "idle timeout that was in force, where only stops were told of", a_number(0, 7 * DAY), 0.0
    ),
}

ENDS = ("workspace.stopping", "workspace.stopped", "workspace.failed", "workspace.terminated")
"""What ends every session of a workspace, whether or not that was told."""


@dataclass(frozen=True, slots=True)
class Happened:
    type: str
    at_ms: int
    workspace: str
    session: str
    gateway: str


@dataclass
class Spans:
    """Stretches of time in which something lasted, by its name; what has no beginning began with the record."""

    first_ms: int
    found: list[tuple[str, int, int]] = field(default_factory=list)
    open: dict[str, tuple[str, int]] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    names: defaultdict[str, dict[str, None]] = field(default_factory=lambda: defaultdict(dict))
    """Owner → names of its stretches that are open: a week has a million events, and thousands are open."""
    early: int = 0

    def begin(self, name: str, owner: str, at_ms: int) -> None:
        if name not in self.open:
            self.open[name] = owner, at_ms
            self.names[owner][name] = None

    def end(self, name: str, owner: str, at_ms: int, may_be_early: bool) -> None:
        """may_be_early: an end without a beginning says that it lasted since before the record."""
        if name in self.open:
            owner, since = self.open.pop(name)
            del self.names[owner][name]
            self.found.append((owner, since, at_ms))
        elif may_be_early and name not in self.ended:
            self.early += 1
            self.found.append((owner, self.first_ms, at_ms))
        self.ended.add(name)

    def end_all(self, names: Iterable[str], at_ms: int) -> None:
        for name in list(names):
            self.end(name, "", at_ms, False)


def workload(name: str, file: str, text: str, values: Mapping[str, Any], seed: int) -> Workload:
    """The workload of an export's text."""
    told = sorted(_events(file, text), key=lambda event: event.at_ms)
    times = [event.at_ms for event in told]
    repairs: list[str] = []
    spans = Spans(times[0])
    if any(event.type.startswith("session.") for event in told):
        _sessions(told, spans)
    else:
        _starts(told, spans, values["idle"])
        repairs.append(
            "no sessions were told of: stays are from queued to the stop, less an idle timeout of"
            f" {values['idle']:g} s (idle=)"
        )
    repairs += _edges(spans, times[-1])
    if not spans.found:
        raise WorkloadError(
            f"{file}: there are no visits among its {of(len(told), 'event', 'events')} of {days_between(times, UTC)}; it needs"
            " session.opened and session.closed, or workspace.queued and workspace.stopped"
        )
    return _assembled(name, file, spans, values, repairs, seed)


def _assembled(
    name: str, file: str, spans: Spans, values: Mapping[str, Any], repairs: list[str], seed: int
) -> Workload:
    begins = [since for _, since, _ in spans.found]
    days = stretch.chosen(begins, values["zone"] or UTC, values["day"], values["days"], file)
    numbers: dict[str, int] = {}
    visits = [
        Visit(
            days.seconds(since),
            numbers.setdefault(workspace, len(numbers)),
            max(1.0, round((until - since) / 1000, 3)),
        )
        for workspace, since, until in sorted(spans.found, key=lambda span: span[1])
        if days.has(since, (until - since) / 1000)
    ]
    return stretch.workload(name, visits, days, repairs, values["times"], seed)


def _events(file: str, text: str) -> list[Happened]:
    """Those of the file that say something of visits. Raises WorkloadError."""
    rows = list(objects(file, text))
    if not rows:
        raise WorkloadError(f"{file}:1:1: there are no events in it")
    as_table = Table(file, (), rows)
    return [_event(as_table, row) for row in rows]


def _event(rows: Table, row: Row) -> Happened:
    kind = row.values.get("type")
    if not isinstance(kind, str):
        raise rows.error(
            row,
            "type",
            "it is no event of GET /api/events: it has no type; is it a recorded: file?",
        )
    at = number(rows, row, "at")
    try:
        kind_of(at / 1000)
    except ValueError:
        what = f"at must be milliseconds since 1970, from 2000 to 2100, not {at:,.0f}; correct it"
        raise rows.error(row, "at", what) from None
    text = {n: row.values.get(n) or "" for n in ("workspaceId", "sessionId", "gateway")}
    for name, value in text.items():
        if not isinstance(value, str):
            raise rows.error(row, name, f"{name} must be text, not {value!r:.40}")
    return Happened(kind, round(at), text["workspaceId"], text["sessionId"], text["gateway"])


def _sessions(told: list[Happened], spans: Spans) -> None:
    for event in told:
        match event.type:
            case "session.opened":
                spans.begin(event.session, event.workspace, event.at_ms)
            case "session.closed" | "session.evicted":
                spans.end(event.session, event.workspace, event.at_ms, True)
            case "gateway.lost":
                # Sessions are named after their gateway: "{gateway}-{number}".
                lost = [n for n in spans.open if n.rpartition("-")[0] == event.gateway]
                spans.end_all(lost, event.at_ms)
            case kind if kind in ENDS:
                spans.end_all(spans.names[event.workspace], event.at_ms)


def _starts(told: list[Happened], spans: Spans, idle: float) -> None:
    for event in told:
        if event.type == "workspace.queued":
            spans.begin(event.workspace, event.workspace, event.at_ms)
        elif event.type in ENDS:
            early = event.type == "workspace.stopping"
            spans.end(event.workspace, event.workspace, event.at_ms, early)
    spans.found[:] = [
        (owner, since, max(since, until - round(idle * 1000)))
        for owner, since, until in spans.found
    ]


def _edges(spans: Spans, last_ms: int) -> list[str]:
    """Ends with the record what goes on. Says so, and what began before it."""
    still = len(spans.open)
    for name in list(spans.open):
        spans.end(name, "", last_ms, False)
    said = []
    if spans.early:
        said.append(f"{spans.early:,} had begun before the record: counted from its first moment")
    if still:
        said.append(f"{still:,} had not ended by the end of the record: counted until then")
    return said
