"""How long until somebody in the boot queue has their IDE. Pure: what is known in, seconds out.

A place in the queue waits for a slot, for its turn to boot, and for the boot. Slots are free now, come with
machines that are on their way (side by side, each at its own pace: the k-th of n is there when one expects
so many), and come free as others stop. What boots and launches took lately says how they are spread; how
long one has been under way already says what of that is left.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import ceil
from operator import mul
from statistics import fmean, median

from lifecycle.model import Machine, MachineStatus
from lifecycle.pace import Pace
from lifecycle.placement import takes_work
from lifecycle.scaler import scale
from lifecycle.scaling.memory import begin
from lifecycle.scaling.records import Facts, Rule

FIRST_BOOT_GUESS = 5.0  # seconds, before any boot was measured
FIRST_RUN_GUESS = 3600.0  # seconds that a workspace runs, before any ended
STOPPING = 5.0  # seconds until a slot is free whose workspace is being stopped
STEPS = 60  # in which slots come free, over twice the time that half of the runs take
ROUNDS = 20  # looks at who comes meanwhile; by then it moves by less than a second, or has no end


@dataclass(frozen=True, slots=True)
class Bounds:
    """The pool's. turn: seconds between two decisions of the scaler. launch_guess: seconds until a machine
    is ready, before any was measured."""

    slots: int = 5
    warm_slots: int = 1
    max_machines: int = 10
    max_starting: int = 100
    turn: float = 2.0
    launch_guess: float = 2.0


@dataclass(frozen=True, slots=True)
class Outlook:
    """What there is, and what comes. Seconds. machine_s: until the first, second, … machine on its way is
    ready. boot_s: until the first, second, … boot under way is over. boot, turnover: what half of the boots
    take at most, and what they take on average. ending: slots whose workspaces are being stopped.
    released: other slots that have come free after each step, and from the last one on `rate` in a second.
    arrivals: (what a priority is worth, how many come with it in a second)."""

    free: int
    slots: int
    machine_s: tuple[float, ...]
    booting: int
    boot_s: tuple[float, ...]
    boot: float
    turnover: float
    ending: int
    step: float
    released: tuple[float, ...]
    rate: float
    max_starting: int
    arrivals: tuple[tuple[float, float], ...] = ()

    def eta(self, position: int, boost: float = 0.0, waited: float = 0.0) -> float:
        """Seconds until the workspace in that place (1 is next, 0 boots now) is likely to run. boost: what
        its priority is worth. waited: since when it is in the queue. Both tell who may yet overtake it."""
        if position <= 0:
            return self.boot
        begins = 0.0
        for _ in range(ROUNDS):  # who comes meanwhile makes it later, and then more come meanwhile
            place = position + self._overtakes(begins, boost + waited)
            later = max(self._slot(place - self.free), self._turn(place))
            if later - begins < 1.0:
                return later + self.boot
            begins = later
        return begins + self.boot

    def _overtakes(self, seconds: float, worth: float) -> float:
        """How many come in that time and go before one whose priority is worth so much by now."""
        more = ((boost - worth, rate) for boost, rate in self.arrivals if boost > worth)
        return sum(rate * min(seconds, ahead) for ahead, rate in more)

    def _slot(self, needed: float) -> float:
        """Seconds until so many more slots are to be had: with k machines and the rest by others' stops, for
        the k for which that is soonest."""
        if needed <= 0:
            return 0.0
        found = self._released(needed)
        for count, ready in enumerate(self.machine_s, 1):
            if ready >= found:
                break
            found = min(found, max(ready, self._released(needed - count * self.slots)))
        return found

    def _released(self, count: float) -> float:
        """Seconds until so many slots came free: as likely sooner as later."""
        if count <= 0:
            return 0.0
        wanted = count - self.ending - 1 / 3
        if wanted <= 0:
            return STOPPING if self.ending else 0.0
        at = bisect_left(self.released, wanted)
        if at == len(self.released):
            return at * self.step + (wanted - self.released[-1]) / self.rate
        before = self.released[at - 1] if at else 0.0
        return (at + (wanted - before) / (self.released[at] - before)) * self.step

    def _turn(self, position: float) -> float:
        """Seconds until it may boot, with no more than max_starting at once."""
        ends = self.booting + position - self.max_starting
        if ends <= 0:
            return 0.0
        if ends <= len(self.boot_s):
            return self.boot_s[ceil(ends) - 1]
        rest = ends - len(self.boot_s)
        return max(self.boot_s, default=0.0) + rest * self.turnover / self.max_starting


def outlook(pace: Pace, machines: Sequence[Machine], bounds: Bounds) -> Outlook:
    """From what the store knows now; the scaler's next decision is made ahead."""
    now_ms = pace.now_ms
    launches = sorted(pace.launches) or [bounds.launch_guess]
    starts = sorted(pace.starts) or launches
    boots = sorted(pace.boots) or [FIRST_BOOT_GUESS]
    coming = [m for m in machines if m.status is MachineStatus.LAUNCHING and not m.doomed_at_ms]
    spreads = [
        left(max(0.0, (now_ms - m.status_since_ms) / 1000), starts if _started(m) else launches)
        for m in coming
    ]
    # Who waits is served by the law alone; what is kept free beyond that comes too late for them.
    rule = Rule(bounds.slots, bounds.warm_slots, bounds.max_machines)
    decision, _ = scale(Facts(pace.users, machines), rule, begin(now_ms, rule), now_ms)
    spreads += [left(-bounds.turn / 2, launches)] * decision.launch
    spreads += [left(-bounds.turn / 2, starts)] * len(decision.revive)
    runs = sorted(pace.runs) or [FIRST_RUN_GUESS]
    step = max(0.1, 2 * median(runs) / STEPS)
    awake = len(pace.booting) + sum(count for _, count in pace.running)
    ending = max(0, sum(m.occupied for m in machines if takes_work(m)) - awake)
    return Outlook(
        free=sum(max(0, m.slots - m.occupied) for m in machines if takes_work(m)),
        slots=bounds.slots,
        machine_s=tuple(one_after_another(spreads)),
        booting=len(pace.booting),
        boot_s=tuple(one_after_another([left(age, boots) for age in pace.booting])),
        boot=median(boots),
        turnover=fmean(boots),
        ending=ending,
        step=step,
        released=tuple(releases([*pace.running, (0.0, len(pace.booting))], runs, step)),
        rate=max(1, sum(m.slots for m in machines if takes_work(m))) / fmean(runs),
        max_starting=bounds.max_starting,
        arrivals=arrival_rates(pace.arrivals),
    )


def _started(machine: Machine) -> bool:
    """Stopped and started again, and not new."""
    return 0 < machine.created_at_ms < machine.status_since_ms


def left(age: float, durations: Sequence[float]) -> list[float]:
    """What is left of something under way for that long, as far as others like it tell; sorted like them. One
    that takes longer than any of them takes a quarter longer still."""
    longer = durations[bisect_right(durations, age) :]
    return [each - age for each in longer] or [max(0.0, age / 4)]


def one_after_another(spreads: Sequence[Sequence[float]]) -> list[float]:
    """Of things that go on side by side, each with its equally likely ends: when the first, the second, …
    is likely over (the median rank of each, after Benard)."""
    count = len(spreads)
    points = sorted((end, 1 / len(spread)) for spread in spreads for end in spread)
    reached = list(accumulate(weight for _, weight in points))
    ranks = ((k - 0.3) / (count + 0.4) * count for k in range(1, count + 1))
    found = (bisect_right(reached, rank - 1e-9) for rank in ranks)
    return [points[min(at, len(points) - 1)][0] for at in found]


def releases(held: Sequence[tuple[float, int]], runs: Sequence[float], step: float) -> list[float]:
    """How many slots are likely to have come free after each step: of those that are held now, as the runs
    that took longer say, and of those who follow them (a renewal process)."""
    moments = [step * at for at in range(1, STEPS + 1)]
    ended = [bisect_right(runs, moment) / len(runs) for moment in moments]
    total = [0.0] * STEPS
    for age, count in held:
        rest = left(age, runs)
        for at, moment in enumerate(moments):
            total[at] += count * bisect_right(rest, moment) / len(rest)
    came: list[float] = []  # how many came free in each step
    for at in range(STEPS):
        total[at] += sum(map(mul, reversed(ended[:at]), came))
        came.append(total[at] - (total[at - 1] if at else 0.0))
    return total


def arrival_rates(arrivals: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """What a priority is worth → how many come with it in a second. arrivals: as in Pace."""
    if not arrivals:
        return ()
    span = max(60.0, arrivals[-1][0])
    counted = Counter(boost for _, boost in arrivals)
    return tuple((boost, count / span) for boost, count in counted.items())
