"""What the scaler is told, what it is set to, what it remembers, what it wants and what it decides. Pure: records alone."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lifecycle.model import Machine
from lifecycle.peaks import Held, Peak, Peaks
from lifecycle.scaling.demand import Demand


@dataclass(frozen=True, slots=True)
class Rule:
    """What operators set. wait_probability: 0 keeps `warm_slots` free and no more. scale_in_delay: seconds for which less
    was wanted, and for which a machine was empty, before it goes. settle: seconds after a change of leader without
    scale-in. standby: stopped machines kept at most. burst, rate: launches that the pool's API grants at once, and a
    second after that; 0: no bound. parks: a dedicated machine is stopped with its workspace, and keeps its disk.
    boot_guess: seconds until a machine is ready, before any was measured. wait_cost, machine_hour: prices of a cold wait
    and of an hour of a machine; with both, where a wait costs more than the slots that would spare it, more are kept free
    than wait_probability asks for, never fewer."""

    slots: int = 5
    warm_slots: int = 0
    max_machines: int = 10
    scale_in_delay: float = 120.0
    wait_probability: float = 0.0
    settle: float = 0.0
    standby: int = 0
    burst: int = 0
    rate: float = 0.0
    parks: bool = True
    boot_guess: float = 60.0
    wait_cost: float = 0.0
    machine_hour: float = 0.0


@dataclass(frozen=True, slots=True)
class Facts:
    """users: workspaces that hold a slot or wait for one. arrivals, departures, waits: since the last decision: who came
    for a slot, who gave one back, who did not find one free. busy: ready machines in use that are not in `machines`, since
    nothing can be done about them. boots, starts: recent seconds until a new machine, and a stopped one, was ready.
    returning: machines whose files somebody waits for. throttled: the pool's API said that it is asked too often."""

    users: int
    machines: Sequence[Machine]
    arrivals: int = 0
    departures: int = 0
    waits: int = 0
    boots: Sequence[float] = ()
    starts: Sequence[float] = ()
    peaks: Sequence[Peak] = ()
    returning: Collection[str] = ()
    throttled: bool = False
    busy: int = 0


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered between decisions. at, since: seconds. wanted: (when, machines) of the last scale_in_delay, those
    that nothing later exceeded. tokens: launches that the pool's API will grant now; given: how many may be given back.
    credit, bias: by how much more may be risked than promised, for what was saved and for what happened (see risk.py).
    bound: no more is there than was wanted of late for the promise; share: of those who came of late, those who came
    while that was so. came, waited: fading counts of who came, and of who found no slot."""

    since: float
    at: float
    demand: Demand
    credit: float = 0.0
    bias: float = 0.0
    bound: bool = True
    share: float = 1.0
    wanted: tuple[tuple[float, int], ...] = ()
    tokens: float = 0.0
    burst: float = 0.0
    given: float = 0.0
    given_at: float = 0.0
    came: float = 0.0
    waited: float = 0.0
    peaks: Peaks = ()


@dataclass(frozen=True, slots=True)
class Need:
    """How many machines are wanted, and why. free: slots wanted free, beside `held` for peaks. up, down, spread: the
    forecast over lead_time seconds, of those who usually come or, if crowd, of those of peaks as well. probability:
    promised; risk: that was taken. kept: waits over those promised. peaks: for which of them how many are held."""

    machines: int
    free: int
    held: int
    lead_time: float
    up: float
    down: float
    spread: float
    panic: bool
    probability: float
    risk: float
    kept: float
    bound: bool
    peaks: tuple[Held, ...] = ()
    crowd: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """launch: how many to add. revive: stopped machines to start first. undrain: drains to call off.
    drain: empty machines to give back; park: those to stop instead, so that they start faster than new ones.
    evict: dedicated machines of sleepers, whose files go into snapshots so that others can use them. spare: machines
    beyond what is wanted for the whole window. need: what was reckoned. reason: in words, for the log and GET /api/pool."""

    at_ms: int
    users: int
    slots: int
    warm_slots: int
    want: int
    have: int
    launch: int
    undrain: tuple[str, ...]
    revive: tuple[str, ...]
    drain: tuple[str, ...]
    evict: tuple[str, ...]
    reason: str
    park: tuple[str, ...] = ()
    spare: int = 0
    standby: int = 0
    need: Need | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
