"""Who can be asked how many machines there shall be: ours, and those it is compared with, each with its one figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lifecycle.plans import Plan, Policy
from lifecycle.plans_file import read_plans
from lifecycle.prices_file import read_prices
from lifecycle.scaler import scale
from lifecycle.scaling.records import Rule
from lifecycle.simulation import baselines
from lifecycle.simulation.baselines import Want
from lifecycle.simulation.engine import Decide, Trial
from lifecycle.simulation.records import MOVING, OURS, PROMISE, Cloud
from lifecycle.simulation.settings import Settings

MOVE_AFTER = 600.0  # seconds without a session after which `moving` moves, unless --move-after says otherwise
SHARE, TARGET, COUNT = (0.0, 0.99), (0.01, 10.0), (0.0, 1e6)  # least and most that a figure can be
GIVEN_UP = 4.0  # median boots after which a silent launch is given up


@dataclass(frozen=True, slots=True)
class Sizer:
    """means: what its figure is. default: its value where it comes from; None: it has none. sweep: values for a curve.
    decide: for a value, with a memory of its own. bounds: the least and the most that it can be."""

    means: str
    default: float | None
    sweep: tuple[float, ...]
    decide: Callable[[float], Decide]
    bounds: tuple[float, float] = SHARE

    def trial(self, name: str, figure: float | None, settings: Settings, cloud: Cloud) -> Trial:
        """What the engine is to try. Raises PlanError and PricesError."""
        ours, prices = name in OURS, read_prices(settings.prices)
        rule = Rule(
            slots=settings.slots,
            warm_slots=settings.warm_slots if ours else 0,
            max_machines=settings.max_machines,
            scale_in_delay=settings.scale_in_delay,
            wait_probability=(figure or 0.0) if ours else 0.0,
            standby=settings.standby_machines if ours else 0,
            burst=cloud.burst,
            rate=cloud.rate,
            boot_guess=cloud.boot,
            wait_cost=settings.wait_cost if ours else 0.0,
            machine_hour=prices.machine_hour("", settings.slots) if prices else 0.0,
        )
        moves = settings.move_after
        return Trial(
            rule,
            decide=self.decide(figure or 0.0),
            name=name,
            setting=figure,
            plan=plan_of(settings),
            tick=settings.scale_interval,
            move_after=moves or MOVE_AFTER if name == MOVING else moves,
            launch_timeout=GIVEN_UP * cloud.boot,
            prices=prices,
        )


def plan_of(settings: Settings) -> Plan:
    """The default plan of the file, over the settings. Raises PlanError."""
    return read_plans(
        settings.plans, Plan("default", Policy(idle_timeout=settings.idle_timeout))
    ).default


def _like(make: Callable[[float], Want]) -> Callable[[float], Decide]:
    return lambda figure: baselines.deciding(make(figure))


POLICIES: Mapping[str, Sizer] = {
    PROMISE: Sizer(
        "share of arrivals that may wait", 0.01,
        (0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005), lambda _: scale,
    ),
    MOVING: Sizer(
        "as promise, and what nobody is connected to moves, so that machines come empty", 0.01,
        (0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005), lambda _: scale,
    ),
    "ceil": Sizer("no figure: users over slots, rounded up", None, (), _like(baselines.ceil_rule)),
    "ceil+p": Sizer(
        "share of machines on top", 0.1, (0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.3), _like(baselines.ceil_rule), COUNT
    ),
    "agones": Sizer(
        "share of slots kept as a buffer", 0.05, (0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.3), _like(baselines.agones)
    ),
    "kpa": Sizer(
        "target utilisation (Knative)", 0.7, (0.99, 0.97, 0.95, 0.92, 0.88, 0.8, 0.7), _like(baselines.Kpa), TARGET
    ),
    "hpa": Sizer(
        "target utilisation (Kubernetes)", 0.7, (0.99, 0.97, 0.95, 0.92, 0.88, 0.8, 0.7), _like(baselines.Hpa), TARGET
    ),
    "fixed": Sizer("machines", 400, (200, 300, 400, 500, 600, 800), _like(baselines.fixed), COUNT),
}  # fmt: skip
