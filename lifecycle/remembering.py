"""What the scaler remembers, as it is written down for whoever leads next. Pure.

Whoever takes over goes on with it while it is fresh; of anything that is odd nothing is believed, and memory begins
anew. A Redis may hold what an older or a newer version of us wrote.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from functools import cache
from math import isfinite
from typing import Any, get_args, get_origin, get_type_hints

from lifecycle.pace import Flow
from lifecycle.scaling.records import Memory, Rule

FRESH = 60.0  # seconds after which nobody goes on from what was remembered
TURNS = 900.0  # the same for whoever does not stay and comes back by a schedule


def recalled(written: Any, now_ms: int, rule: Rule, fresh: float = FRESH) -> Memory | None:
    """The memory that was written as asdict() gives it; None when it is odd, or older than `fresh` seconds."""
    try:
        memory: Memory = _read(Memory, written)
    except (TypeError, ValueError):
        return None
    now = now_ms / 1000
    if not memory.since <= memory.at <= now <= memory.at + fresh:
        return None
    burst = min(memory.burst or rule.burst, float(rule.burst))
    return replace(memory, burst=burst, tokens=min(memory.tokens, burst))


def flow_recalled(written: Any) -> Flow | None:
    """The counters that were read last; None when that is odd."""
    try:
        flow: Flow = _read(Flow, written)
    except (TypeError, ValueError):
        return None
    return flow


def _read(kind: Any, value: Any) -> Any:
    """The value of that type. Raises TypeError, ValueError."""
    if is_dataclass(kind) and isinstance(kind, type):
        return _record(kind, value)
    if get_origin(kind) is tuple:
        return _row(get_args(kind), value)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise TypeError(f"{value!r} is no {kind}")
    if kind is float and not isfinite(value):
        raise ValueError("no number")
    return value


def _record(kind: type, value: Any) -> Any:
    if not isinstance(value, dict) or value.keys() != _types(kind).keys():
        raise TypeError(f"not the fields of a {kind.__name__}")
    return kind(**{name: _read(each, value[name]) for name, each in _types(kind).items()})


def _row(kinds: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise TypeError("no list")
    if kinds[-1] is Ellipsis:
        return tuple(_read(kinds[0], each) for each in value)
    return tuple(_read(kind, each) for kind, each in zip(kinds, value, strict=True))


@cache
def _types(kind: Any) -> dict[str, Any]:
    told = get_type_hints(kind)
    return {each.name: told[each.name] for each in fields(kind)}
