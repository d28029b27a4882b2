"""The flags of `ide-gateway simulate`. Defaults of the cloud and of settings are those of their records."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from lifecycle.simulation.records import Cloud
from lifecycle.simulation.settings import Settings

Command = TypeVar("Command", bound=Callable[..., Any])

CLOUD = {
    "boot": ("boot", "SECONDS", "Median time until a new machine is ready."),
    "start": ("start", "SECONDS", "Median time until a stopped machine is ready again."),
    "api_burst": ("burst", "MACHINES", "The cloud grants so many launches at once."),
    "api_rate": ("rate", "PER SECOND", "And so many a second after that."),
    "failures": ("fails", "SHARE", "Of launches that end in an error."),
    "hangs": ("hangs", "SHARE", "Of launches that nothing is heard of again."),
    "spot_hours": ("spot_hours", "HOURS", "Mean life of a machine until it is taken back; 0: for ever."),
    "price": ("price", "PRICE", "Of a machine, an hour."),
    "price_stopped": ("price_stopped", "PRICE", "Of a stopped machine, an hour: its disk."),
}  # fmt: skip
"""Flag → field of Cloud, what it is given in, help."""

SETTINGS = {
    "slots": "Workspaces per machine.",
    "warm_slots": "Slots kept free at least, however few come.",
    "wait_cost": "What a wait for a machine costs, in the currency of --prices; 0: the promise alone counts.",
    "idle_timeout": "Without activity for this long: stop.",
    "scale_in_delay": "Empty for this long: a machine may go.",
    "scale_interval": "Between two decisions of the scaler.",
    "max_machines": "Machines at most.",
    "standby_machines": "Stopped machines kept at most: they start faster.",
    "move_after": "Nobody connected for this long: a workspace may move to empty a machine; 0: never.",
}

SHARES = ("failures", "hangs")
WHOLE = ("api_burst", "slots", "warm_slots", "max_machines", "standby_machines")
POSITIVE = (
    "slots",
    "idle_timeout",
    "scale_interval",
    "max_machines",
    "boot",
    "start",
    "api_burst",
    "api_rate",
)
UNBOUNDED = ("api_burst", "api_rate")
"""Their 0 means that there is no bound; nobody has to write it."""


class Number(click.ParamType[float]):
    """From `low` to `high`; open: neither of them. No NaN, which compares with nothing. whole: without a fraction."""

    name = "number"

    def __init__(self, low: float, high: float, open: bool = False, whole: bool = False) -> None:
        self.low, self.high, self.open, self.whole = low, high, open, whole

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            number = int(value) if self.whole else float(value)
        except ValueError:
            number = math.nan
        if not self.low <= number <= self.high or (self.open and number in (self.low, self.high)):
            kind = "whole number" if self.whole else "number"
            bounds = f"{'above' if self.open else 'from'} {self.low:,g} {'and below' if self.open else 'to'} {self.high:,g}"
            self.fail(f"{value!r} is no {kind} {bounds}.", param, ctx)
        return number


def _unit(flag: str) -> str:
    return "COUNT" if flag in WHOLE else "PRICE" if flag == "wait_cost" else "SECONDS"


def _type(flag: str) -> Number:
    if flag in WHOLE:
        return Number(int(flag in POSITIVE), 1_000_000, whole=True)
    return Number(0, 1 if flag in SHARES else 1e9, open=flag in POSITIVE)


def _option(
    flag: str, metavar: str, help_text: str, default: float
) -> Callable[[Command], Command]:
    shown = "unbounded" if flag in UNBOUNDED else f"{default:g}"
    return click.option(
        f"--{flag.replace('_', '-')}", type=_type(flag), metavar=metavar,
        help=f"{help_text}  [default: {shown}]",
    )  # fmt: skip


def flags(command: Command) -> Command:
    """All of them, in the order in which the help shows them."""
    cloud, settings = Cloud(), Settings()
    every: list[Callable[[Command], Command]] = [
        click.option("--policy", "policies", metavar="NAME[=FIGURE]", multiple=True,
                     help="Who decides how many machines; several are compared.  [default: promise]"),
        click.option("--sweep", is_flag=True, help="Each policy at many figures."),
        click.option("--wait-probability", metavar="SHARE",
                     help="Of arrivals that may wait: the figure of the policy promise. 0: --warm-slots alone."),
        *(_option(flag, _unit(flag), text, getattr(settings, flag))
          for flag, text in SETTINGS.items()),
        click.option("--peak", "peaks", metavar="TIME=USERS", multiple=True,
                     help="Declare so many on top then, as in 09:00=3000: slots are held, nobody comes for them."),
        click.option("--plans", metavar="FILE", help="Plans as for serve: the default one's policy and quotas hold."),
        click.option("--prices", metavar="FILE", help="Prices as for serve: what usage is billed at."),
        click.option("--no-capacity", "refusals", metavar="FROM-TO", multiple=True,
                     help="The cloud has no machines to give in that time, as in 08:20-08:50."),
        *(_option(flag, metavar, text, getattr(cloud, name)) for flag, (name, metavar, text) in CLOUD.items()),
        click.option("--seeds", type=Number(1, 1000, whole=True), metavar="COUNT", default=1, show_default=True,
                     help="Simulations of each, with other chance; more than one shows how sure figures are."),
        click.option("--seed", type=Number(0, 2**31, whole=True), metavar="NUMBER", default=1, show_default=True, help="The first of them."),
        click.option("--jobs", type=Number(1, 1024, whole=True), metavar="COUNT", default=_cores, show_default="cores",
                     help="Simulations at a time."),
        click.option("--explain", metavar="TIME", help="Say what was decided then, and why: 09:12, 2d09:12 or seconds."),
        click.option("--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Write results there."),
        click.option("--plots", type=click.Path(path_type=Path), metavar="DIRECTORY", help="Draw pictures there (SVG)."),
    ]  # fmt: skip
    for option in reversed(every):
        command = option(command)
    return command


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cloud_of(given: dict[str, Any]) -> dict[str, float]:
    """Fields of Cloud that were given; their flags are taken out of `given`."""
    found = {name: given.pop(flag) for flag, (name, _, _) in CLOUD.items()}
    return {name: value for name, value in found.items() if value is not None}


def settings_of(given: dict[str, Any]) -> dict[str, Any]:
    """Fields of Settings that were given; taken out of `given`."""
    found = {name: given.pop(name) for name in (*SETTINGS, "plans", "prices")}
    return {name: value for name, value in found.items() if value is not None}
