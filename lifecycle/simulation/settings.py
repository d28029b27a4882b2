"""Settings of `serve` that a simulation depends on. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """Under their names and with their defaults there. Times in seconds."""

    slots: int = 5
    idle_timeout: float = 3600.0
    scale_in_delay: float = 120.0
