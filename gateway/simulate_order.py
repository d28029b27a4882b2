"""What `ide-gateway simulate` is asked for, checked before anything runs. Errors: Contradiction, exit code 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from math import nan
from pathlib import Path
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError

from gateway.settings import Settings as Live
from gateway.settings import contradictions
from gateway.simulate_times import Contradiction, peak, stretch, time_of
from gateway.terminal import one_line
from lifecycle.plans import PlanError
from lifecycle.prices_file import read_prices
from lifecycle.pricing import PricesError
from lifecycle.simulation.policies import plan_of
from lifecycle.simulation.records import MOVING, OURS, PROMISE, Cloud, Workload
from lifecycle.simulation.runs import Policy, Simulator, Task, workload_of
from lifecycle.simulation.settings import Settings
from lifecycle.simulation.spec import WorkloadError, asked, meant
from lifecycle.simulation.workloads import kind_of

OURS_ALONE = ("warm_slots", "wait_cost", "standby_machines")
"""Settings that no other policy goes by."""


@dataclass(frozen=True, slots=True)
class Order:
    """What the command's flags say. cloud, settings: those that were given, under their fields' names.
    wait_probability: as it was written."""

    workload: str
    policies: Sequence[str] = ()
    sweep: bool = False
    seeds: int = 1
    seed: int = 1
    jobs: int = 1
    wait_probability: str | None = None
    cloud: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    refusals: Sequence[str] = ()
    peaks: Sequence[str] = ()
    explain: str | None = None
    json_file: Path | None = None
    plots: Path | None = None


def tasks_of(order: Order, simulator: Simulator) -> list[Task]:
    """Every simulation, by seed. Raises Contradiction."""
    _check_workload(order.workload)
    figures = figures_of(order, simulator)
    if order.explain is not None and order.sweep:
        raise Contradiction(
            "--explain asks about one decision, --sweep makes many simulations", "leave one out"
        )
    explain = time_of("--explain", order.explain) if order.explain is not None else None
    refusals = tuple(stretch(text) for text in order.refusals)
    cloud = replace(Cloud(**_cloud(order)), refusals=refusals)  # type: ignore[arg-type]
    settings = _settings(order, figures)
    peaks = tuple(peak(text) for text in order.peaks)
    return [
        Task(
            order.workload,
            policy,
            figure,
            seed,
            cloud,
            settings,
            peaks,
            explain if seed == order.seed else None,
        )
        for seed, (policy, figure) in product(range(order.seed, order.seed + order.seeds), figures)
    ]


def _check_workload(text: str) -> None:
    try:
        wanted = asked(text)
        wanted.read(kind_of(wanted).parameters)
    except WorkloadError as error:
        raise Contradiction(one_line(str(error))) from error


def figures_of(order: Order, simulator: Simulator) -> list[tuple[str, float | None]]:
    """(policy, figure) to simulate, each once. Raises Contradiction."""
    known = simulator.policies
    wanted = [_policy(text, known) for text in order.policies] or [(PROMISE, None)]
    names = list(dict.fromkeys(name for name, _ in wanted))
    set_ = {name for name, figure in wanted if figure is not None}
    if order.sweep and set_:
        name = sorted(set_)[0]
        raise Contradiction(
            f"--sweep tries many figures of {name}, and --policy sets one", f"write --policy {name}"
        )
    given = {}
    if order.wait_probability is not None:
        given = {PROMISE: _promised("--wait-probability", "", order.wait_probability)}
        _check_promise(names, set_, order.sweep)
    if order.sweep:
        return [(name, figure) for name in names for figure in _swept(known[name])]
    usual = {name: given.get(name, known[name].default) for name in names}
    return list(
        dict.fromkeys((name, usual[name] if figure is None else figure) for name, figure in wanted)
    )


def _swept(policy: Policy) -> Sequence[float | None]:
    """A policy without a figure is simulated once."""
    return [*policy.sweep] or [policy.default]


def _policy(text: str, known: Mapping[str, Policy]) -> tuple[str, float | None]:
    name, equals, said = text.partition("=")
    if name not in known:
        raise Contradiction(f"--policy: there is no policy {meant(name, known)}")
    if not equals:
        return name, None
    if known[name].default is None:
        raise Contradiction(f"--policy {text}: {name} has no figure", f"write --policy {name}")
    if name in OURS:
        return name, _promised("--policy", f"{name}=", said)
    try:
        figure = float(said)
    except ValueError:
        figure = nan
    least, most = known[name].bounds
    if not least <= figure <= most:  # as NaN is not
        raise Contradiction(
            f"--policy {text}: {said or 'nothing'} is no number from {least:g} to {most:,g}",
            f"its figure is {known[name].means}",
        )
    return name, figure


def _promised(flag: str, before: str, said: str) -> float:
    """A share that serve would promise as well. Raises Contradiction, in serve's words."""
    share: TypeAdapter[float] = TypeAdapter(Annotated[float, Live.model_fields["wait_probability"]])
    try:
        return share.validate_python(said)
    except ValidationError as error:
        why = error.errors(include_url=False)[0]["msg"].replace("Input should", "must")
        raise Contradiction(
            f"{flag} {before}{said}: {why}",
            "it is the share of arrivals that may wait, as for serve",
        ) from None


def _check_promise(names: Sequence[str], set_: set[str], sweep: bool) -> None:
    promise = PROMISE
    if promise not in names:
        raise Contradiction(
            f"--wait-probability is of the policy {promise}, which is not simulated",
            f"add --policy {promise}",
        )
    if promise in set_ or sweep:
        other = "--sweep" if sweep else f"--policy {promise}=…"
        raise Contradiction(
            f"--wait-probability and {other} say the same differently", "leave one out"
        )


def _cloud(order: Order) -> dict[str, float]:
    """Raises Contradiction."""
    cloud = dict(order.cloud)
    if ("burst" in cloud) != ("rate" in cloud):
        given, other = (
            ("--api-burst", "--api-rate") if "burst" in cloud else ("--api-rate", "--api-burst")
        )
        raise Contradiction(
            f"{given} bounds launches only together with {other}",
            f"add {other}, or leave {given} out",
        )
    if cloud.get("fails", 0) + cloud.get("hangs", 0) >= 1:
        raise Contradiction(
            "--failures and --hangs together leave no launch that succeeds",
            "their sum must be below 1",
        )
    return cloud


def _settings(order: Order, figures: Sequence[tuple[str, float | None]]) -> Settings:
    """With files that can be read, and nothing that serve refuses. Raises Contradiction."""
    settings = Settings(**order.settings)
    _check_ours(order, {name for name, _ in figures})
    promised = max((figure or 0.0 for name, figure in figures if name in OURS), default=0.0)
    live = Live.model_construct(**asdict(settings), wait_probability=promised)
    if wrong := contradictions(live):
        raise Contradiction(wrong[0])
    for flag, read in (("--plans", plan_of), ("--prices", lambda s: read_prices(s.prices))):
        try:
            read(settings)
        except (PlanError, PricesError) as error:
            raise Contradiction(f"{flag} {one_line(str(error))}") from error
    return settings


def _check_ours(order: Order, names: set[str]) -> None:
    """Nothing is asked for that would have no effect. Raises Contradiction."""
    given = [name for name in OURS_ALONE if order.settings.get(name)]
    if given and not names & set(OURS):
        flag = given[0].replace("_", "-")
        raise Contradiction(
            f"--{flag} is of the policies {' and '.join(OURS)}, and neither is simulated",
            f"add --policy {PROMISE}",
        )
    if MOVING in names and order.settings.get("slots") == 1:
        raise Contradiction(
            f"--policy {MOVING} empties machines that others work on too: --slots 1 has none",
            f"write --policy {PROMISE}",
        )


def visits_repeat(order: Order, workload: Workload, tasks: Sequence[Task]) -> float:
    """The share of visits that other seeds have as well: 1 of recorded ones, most with times=1.3; what is drawn is not
    made twice to see that it differs. Raises WorkloadError."""
    if order.seeds < 2 or not kind_of(asked(order.workload)).file:
        return 0.0
    others = set(workload_of(tasks[-1]).visits)
    return sum(visit in others for visit in workload.visits) / len(workload.visits)
