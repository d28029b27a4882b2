"""Plans, prices and peaks as the settings name them: `serve` reads them before it starts anything, each process its own.

Raises ConfigurationError: one line that says which file, where in it, and what belongs there.
"""

from __future__ import annotations

from gateway.exits import ConfigurationError
from gateway.settings import Settings
from lifecycle.peaks_declared import PeaksError
from lifecycle.peaks_file import PeaksFile
from lifecycle.plans import PlanError, Plans, Quota, default_plan
from lifecycle.plans_file import read_plans
from lifecycle.prices_file import read_prices
from lifecycle.pricing import Prices, PricesError

POLICY = (
    "idle_timeout", "signals", "max_job_hours", "retention", "max_lifetime", "quiet_hours",
    "quiet_idle_timeout", "time_zone", "countdown", "ending_notice",
)  # fmt: skip
"""Settings that are a policy's too."""


def plans_of(settings: Settings) -> Plans:
    """What holds for a workspace of each plan."""
    try:
        default = default_plan(
            {name.replace("_", "-"): getattr(settings, name) for name in POLICY},
            Quota(
                workspaces=settings.max_workspaces_per_user, sessions=settings.max_sessions_per_user
            ),
        )
    except PlanError as error:
        raise ConfigurationError(str(error)) from error
    try:
        return read_plans(settings.plans, default)
    except PlanError as error:
        raise ConfigurationError(f"--plans {error}") from error


def prices_of(settings: Settings) -> Prices | None:
    """What usage costs, if anybody said."""
    try:
        return read_prices(settings.prices)
    except PricesError as error:
        raise ConfigurationError(f"--prices {error}") from error


def peaks_of(settings: Settings) -> PeaksFile:
    """When many people come at once; its file is read again when it changes."""
    file = PeaksFile(settings.peaks, settings.time_zone)
    try:
        file.entries()
    except PeaksError as error:
        raise ConfigurationError(f"--peaks {error}") from error
    return file


def check(settings: Settings) -> None:
    """All of them can be used."""
    plans_of(settings)
    prices_of(settings)
    peaks_of(settings)
