"""Why so many machines? The scaler's decisions near one moment, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lifecycle.simulation.records import Account
from lifecycle.simulation.report import aligned, clock

FIRST = ("want", "have", "launch")
"""What is said beside the time; the reason stands below, then everything that was decided on."""


def explained(account: Account, moment: float) -> list[str]:
    """What was decided near that moment, the nearest decision first."""
    title = account.policy if account.setting is None else f"{account.policy} {account.setting:g}"
    if not account.explained:
        return [
            f"{title}: nothing was decided near {clock(moment)}; the simulation had ended by then"
        ]
    near = sorted(account.explained, key=lambda row: abs(float(row.get("at", moment)) - moment))
    lines = [f"{title}, near {clock(moment)} (seed {account.seed}):"]
    for row in near:
        lines += ["", *decision(row)]
    return lines


def decision(row: Mapping[str, Any]) -> list[str]:
    """One decision: when and what, why, from what."""
    what = [f"{words(name)} {shown(row[name])}" for name in FIRST if name in row]
    when = clock(float(row["at"])) if "at" in row else "at a moment that was not noted"
    lines = [f"{when}  {', '.join(what)}".rstrip()]
    if row.get("reason"):
        lines.append(f"  {row['reason']}")
    return lines + [
        f"  {line}"
        for name, value in row.items()
        if name not in (*FIRST, "at", "at_ms", "reason")
        for line in _named(words(name), value)
    ]


def _named(name: str, value: Any) -> Iterator[str]:
    """A figure on its line; figures of a group, and rows of a table, indented below their name."""
    if isinstance(value, Mapping):
        yield f"{name}:"
        for inner, each in value.items():
            yield from (f"  {line}" for line in _named(words(str(inner)), each))
    elif isinstance(value, Sequence) and value and all(isinstance(row, Mapping) for row in value):
        yield f"{name}:"
        yield from (f"  {line}" for line in _table(value))
    else:
        yield f"{name}: {shown(value)}"


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [_flat(row) for row in rows]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    head = [words(str(name)).upper() for name in columns]
    return aligned([head, *([_cell(row, name) for name in columns] for row in rows)])


def _cell(row: Mapping[str, Any], name: str) -> str:
    return clock(float(row[name])) if name == "at" and name in row else shown(row.get(name))


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A group within it as columns of its own."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        found |= _flat(value) if isinstance(value, Mapping) else {name: value}
    return found


def words(name: str) -> str:
    """ "warm_slots" → "warm slots" """
    return name.replace("_", " ")


def shown(value: Any) -> str:
    if value is None or value in ((), [], ""):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(shown(each) for each in value)
    return str(value)
