"""Peaks that somebody has declared: "an exam at nine for 3,000". Pure; times in milliseconds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Peak:
    """users: how many come on top of those who usually do. early, late: seconds before and after at_ms in which
    they come; slots that they have not taken by then are held for them no longer."""

    at_ms: int
    users: int
    name: str = ""
    early: float = 600.0
    late: float = 1800.0
