"""How a workload is asked for: `NAME[:FILE][,PARAMETER=VALUE]...`, as in `diurnal:users=1500,days=2`. Pure.

Errors: WorkloadError (what is wrong, with which word or at which place of a file, and what to do).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from difflib import get_close_matches
from typing import Any
from zoneinfo import ZoneInfo

DAY = 86_400.0

# A file's name may have commas in it: a parameter begins where "," is followed by a word and "=".
_PARAMETER = re.compile(r",(?=[a-z][a-z-]*=)")


class WorkloadError(Exception):
    """What was asked for is no workload. str(error) says why, where, and what to do."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """read: what its text means; ValueError, in words of what belongs there. default: as read; None is none."""

    means: str
    read: Callable[[str], Any]
    default: Any = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A workload as somebody wrote it. values: of its parameters, as text."""

    name: str
    file: str = ""
    values: Mapping[str, str] = field(default_factory=dict)

    def read(self, known: Mapping[str, Parameter]) -> dict[str, Any]:
        """Every parameter's value, defaults among them. Raises WorkloadError."""
        for name in self.values:
            if name not in known:
                raise WorkloadError(f"{self.name}: no parameter {meant(name, known)}")
        return {name: self._value(name, parameter) for name, parameter in known.items()}

    def _value(self, name: str, parameter: Parameter) -> Any:
        if name not in self.values:
            return parameter.default
        text = self.values[name]
        try:
            return parameter.read(text)
        except ValueError as error:
            raise WorkloadError(f"{self.name}: {name}={text:.40} must be {error}") from None


def asked(text: str) -> Asked:
    """What a specification says. Raises WorkloadError."""
    name, _, rest = text.strip().partition(":")
    if not name:
        raise WorkloadError(
            "the workload has no name; write NAME or NAME:PARAMETER=VALUE, as in diurnal:users=1500"
        )
    file, *pairs = _PARAMETER.split(f",{rest}" if re.match(r"[a-z][a-z-]*=", rest) else rest)
    values: dict[str, str] = {}
    for key, _, value in (pair.partition("=") for pair in pairs):
        if key in values:
            raise WorkloadError(f"{name}: {key} is given twice; leave one out")
        values[key] = value
    return Asked(name, file, values)


def meant(word: str, known: Iterable[str]) -> str:
    """'"usrs"; did you mean users? there are: days, users'"""
    names = sorted(known)
    near = get_close_matches(word, names, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"{word:.60}; {hint}there are: {', '.join(names) or 'none'}"


def of(count: int, one: str, many: str) -> str:
    """ "1 visit", "1,200 visits" """
    return f"{count:,} {one if count == 1 else many}"


def number(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:  # NaN is refused as well
            raise ValueError(f"a number from {low:,g} to {high:,g}")
        return value

    return read


def whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"\d{1,12}", text) or not low <= int(text) <= high:
            raise ValueError(f"a whole number from {low:,} to {high:,}")
        return int(text)

    return read


def one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return text

    return read


def clock(text: str) -> float:
    """Seconds since the day began, of "09:12", "09:12:30", "2d09:12" (the second day) or "33120". ValueError."""
    match = re.fullmatch(r"(?:(\d{1,2})d)?(\d{1,2}):(\d\d)(?::(\d\d))?", text)
    if not match:
        if re.fullmatch(r"\d{1,7}(\.\d+)?", text):
            return float(text)
        raise ValueError(
            'a time such as 09:12, 2d09:12 (the second day) or seconds such as "33120"'
        )
    day, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    if hours > 24 or minutes > 59 or seconds > 59 or (match[1] and not day):
        raise ValueError("a time from 00:00 to 24:00; days count from 1d")
    return max(0, day - 1) * DAY + hours * 3600 + minutes * 60 + seconds


def calendar(text: str) -> date:
    try:
        found = date.fromisoformat(text)
    except ValueError:
        raise ValueError("a date such as 2026-11-23") from None
    if not 2000 <= found.year < 2100:
        raise ValueError("a date from 2000 to 2100, such as 2026-11-23")
    return found


def zone(text: str) -> ZoneInfo:
    try:
        return ZoneInfo(text)
    except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        raise ValueError("a time zone such as Europe/Berlin") from None
