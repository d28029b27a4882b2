"""Is what is said of the wait true? 1,000 boots in virtual time, decided by the code that decides for real."""

from __future__ import annotations

import heapq
import math
import random
from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from statistics import median

import pytest

from lifecycle.model import Machine, MachineStatus, Workspace, WorkspaceStatus
from lifecycle.pace import Pace, by_age
from lifecycle.placement import Place, at_once, place
from lifecycle.queueing import PRIORITIES, boost_ms
from lifecycle.scaler import scale
from lifecycle.scaling.memory import begin
from lifecycle.scaling.records import Facts, Memory, Rule
from lifecycle.waiting import Bounds, Outlook, outlook

BOUNDS = Bounds(
    slots=5, warm_slots=5, max_machines=20, max_starting=20, turn=2.0, launch_guess=40.0
)
RULE = Rule(BOUNDS.slots, BOUNDS.warm_slots, BOUNDS.max_machines, scale_in_delay=120.0)
BOOTS = 1300
WARM_UP = 300  # of them: until then nobody has learnt yet how long things take
_W, _M = WorkspaceStatus, MachineStatus


@dataclass
class Wait:
    """One boot: what was said when it came, and what became of it."""

    position: int
    said: float
    there: frozenset[str]
    came: float
    priority: str
    began: float = 0.0
    ran: float = 0.0

    @property
    def error(self) -> float:
        real = self.ran - self.came
        return abs(self.said - real) / real


@dataclass
class Simulation:
    """Arrivals, boots, launches and stops as events; place(), scale() and outlook() decide."""

    dice: random.Random
    now: float = 0.0
    events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    numbers: count[int] = field(default_factory=count)
    queue: list[tuple[float, str]] = field(default_factory=list)
    machines: dict[str, Machine] = field(default_factory=dict)
    booting: dict[str, float] = field(default_factory=dict)
    running: dict[str, float] = field(default_factory=dict)
    boots: list[float] = field(default_factory=list)
    launches: list[float] = field(default_factory=list)
    runs: list[float] = field(default_factory=list)
    arrived: list[tuple[float, float]] = field(default_factory=list)
    waits: dict[str, Wait] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    at_bound: int = 0
    memory: Memory = field(default_factory=lambda: begin(0, RULE))

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        heapq.heappush(self.events, (self.now + seconds, next(self.numbers), do))

    def run(self) -> None:
        self.after(0.0, self.scale)
        while len(self.boots) < BOOTS and self.events:
            self.now, _, do = heapq.heappop(self.events)
            do()

    def skewed(self, least: float, middle: float, spread: float) -> float:
        """Never less than `least`, half of them above `middle`, with a long tail."""
        return least + self.dice.lognormvariate(math.log(middle - least), spread)

    def arrive(self) -> None:
        name = f"w{len(self.waits)}"
        priority = self.dice.choices(("normal", "vip", "batch"), (80, 10, 10))[0]
        insort(self.queue, (self.now * 1000 - boost_ms(priority), name))
        there = [each for _, each in self.queue]
        position = there.index(name) + 1
        boost = boost_ms(priority) / 1000
        self.arrived.append((self.now, boost))
        said = self.look().eta(position, boost)
        self.waits[name] = Wait(position, said, frozenset(there), self.now, priority)
        self.work()

    def look(self) -> Outlook:
        pace = Pace(
            int(self.now * 1000),
            users=self.users,
            booting=[self.now - since for since in self.booting.values()],
            boots=self.boots[-100:],
            launches=self.launches[-100:],
            runs=self.runs[-300:],
            running=by_age(self.now - since for since in self.running.values()),
            arrivals=[(self.now - at, boost) for at, boost in self.arrived[-500:][::-1]],
        )
        return outlook(pace, list(self.machines.values()), BOUNDS)

    @property
    def users(self) -> int:
        return len(self.queue) + len(self.booting) + len(self.running)

    def work(self) -> None:
        queue = [Workspace(name, "u", _W.QUEUED, 0, 0) for _, name in self.queue]
        commands = place(queue, list(self.machines.values()))
        for command in at_once(commands, BOUNDS.max_starting - len(self.booting)):
            assert isinstance(command, Place)
            self.boot(command.workspace.id, command.machine.id)

    def boot(self, name: str, machine: str) -> None:
        self.queue = [row for row in self.queue if row[1] != name]
        self.order.append(name)
        self.booting[name] = self.waits[name].began = self.now
        self.seat(machine, 1)
        takes = self.skewed(2.5, 4.0, 0.6)

        def up() -> None:
            del self.booting[name]
            self.running[name] = self.now
            self.waits[name].ran = self.now
            self.boots.append(takes)
            self.after(self.skewed(60.0, 420.0, 0.8), stop)
            self.work()

        def stop() -> None:
            self.runs.append(self.now - self.running.pop(name))
            self.seat(machine, -1)
            self.work()

        self.after(takes, up)

    def seat(self, machine: str, more: int) -> None:
        m = self.machines[machine]
        empty = int(self.now * 1000) if m.occupied + more == 0 else 0
        self.machines[machine] = replace(m, occupied=m.occupied + more, empty_since_ms=empty)

    def scale(self) -> None:
        machines = list(self.machines.values())
        now = int(self.now * 1000)
        decision, self.memory = scale(Facts(self.users, machines), RULE, self.memory, now)
        self.at_bound += self.users > BOUNDS.slots * BOUNDS.max_machines
        for machine in decision.drain:
            del self.machines[machine]
        for _ in range(decision.launch):
            self.launch(f"m-{next(self.numbers)}")
        self.after(BOUNDS.turn, self.scale)

    def launch(self, machine: str) -> None:
        began = int(self.now * 1000)
        self.machines[machine] = Machine(machine, "p", _M.LAUNCHING, began, BOUNDS.slots)
        takes = self.skewed(20.0, 40.0, 0.6)

        def ready() -> None:
            now = int(self.now * 1000)
            there = self.machines[machine]
            self.machines[machine] = replace(
                there, status=_M.READY, status_since_ms=now, empty_since_ms=now
            )
            self.launches.append(takes)
            self.work()

        self.after(takes, ready)


def arrivals(dice: random.Random, crowd: float) -> list[float]:
    """Quiet times, busy times, and every 40 minutes a morning when everybody comes at once. crowd: how many
    come in a second, then."""
    found, at = [], 0.0
    while len(found) < BOOTS + 200:
        busy = (at % 2400) / 2400
        rate = crowd if busy < 0.1 else crowd / 4 if busy < 0.4 else 0.06
        at += dice.expovariate(rate)
        found.append(at)
    return found


@pytest.mark.parametrize("crowd", [0.56, 0.7])
def test_places_and_times_that_are_told_come_true(crowd: float) -> None:
    simulation = Simulation(random.Random(1))
    for at in arrivals(random.Random(2), crowd):
        simulation.after(at, simulation.arrive)
    simulation.run()

    begun = {name: index for index, name in enumerate(simulation.order)}
    waits = [(name, wait) for name, wait in simulation.waits.items() if wait.ran][WARM_UP:]
    for name, wait in waits:
        # Who was ahead goes before; who was behind does not. Whoever came later was not there to be counted.
        before = {each for each in wait.there if begun.get(each, math.inf) < begun[name]}
        assert wait.position == len(before) + 1, name

    waited = [wait for _, wait in waits if wait.began > wait.came]
    said = [
        f"{len(waits)} boots, {len(waited)} of them waited, in places up to "
        f"{max(wait.position for wait in waited)} for up to "
        f"{max(wait.ran - wait.came for wait in waited):.0f} s; "
        f"{simulation.at_bound * BOUNDS.turn / simulation.now:.0%} of the time at the bound of machines;"
        f" median error {median(wait.error for _, wait in waits):.1%}",
        f"of those that waited {median(wait.error for wait in waited):.1%}",
    ]
    for kind in PRIORITIES:
        of_kind = [wait.error for wait in waited if wait.priority == kind]
        said.append(f"{kind} {median(of_kind):.1%} ({len(of_kind)})")
    print("\n" + ", ".join(said))
    assert len(waits) >= 1000
    assert simulation.at_bound
    assert median(wait.error for _, wait in waits) <= 0.2


def test_nobody_starves_in_a_flood_of_vips() -> None:
    """Two vips come each second, one slot comes free: they wait ever longer, and others not for ever."""
    queue = [(-boost_ms("normal"), "normal"), (-boost_ms("batch"), "batch")]
    left = {}
    for second in range(3000):
        for vip in (2 * second, 2 * second + 1):
            insort(queue, (second * 1000 - boost_ms("vip"), f"vip{vip:05}"))
        _, name = queue.pop(0)
        left[name] = second
    assert left["normal"] == 2 * 600  # behind the vips of its first ten minutes, and of no more
    assert left["batch"] == 2 * 1200 + 1
