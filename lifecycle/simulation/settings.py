"""Settings of `serve` that a simulation depends on. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """Under their names and with their defaults there, but for max_machines: what a day needs is what is asked. Times in
    seconds."""

    slots: int = 5
    warm_slots: int = 1
    wait_cost: float = 0.0
    idle_timeout: float = 3600.0
    scale_in_delay: float = 120.0
    scale_interval: float = 2.0
    max_machines: int = 1_000_000
    standby_machines: int = 0
    move_after: float = 0.0
    plans: str = ""
    prices: str = ""
