"""Which instance of a group becomes which machine. No I/O: what is seen and `now` in, what to do out.

Auto Scaling starts instances without names, and machines that are wanted wait for one. What waits is kept
in memory only: after a change of leader the loops launch again what was never seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from lifecycle.identifiers import machine_number
from lifecycle.pools import Launch
from lifecycle.pools.members import Member

LAG = 120.0
"""Seconds that what AWS tells may be behind. An instance without a name that was there before us may just
have got one from another leader: it is left alone for that long."""

SPARE = 600.0
"""Seconds until an instance that nobody waits for is one too many."""


class Naming:
    def __init__(self, fleet: str) -> None:
        self._fleet = fleet
        self._wanted: dict[str, Launch] = {}
        self._named: dict[str, Launch] = {}  # by instance; holds also until tags tell the same
        self._tagged: set[str] = set()
        self._free_since: dict[str, float] = {}
        self._inherited: frozenset[str] | None = None
        self._ended: dict[str, float] = {}

    def see(self, members: Sequence[Member], now: float) -> list[Member]:
        """Keep in mind what is there, forget what is not. For answers in the order of their asking only."""
        present = {member.instance for member in members}
        self._tagged = {m.instance for m in members if m.machine_id} | (self._tagged & present)
        self._named = {name: x for name, x in self._named.items() if name in present}
        self._ended = {name: at for name, at in self._ended.items() if name in present}
        known = self.known(members)
        free = [each.instance for each in known if self._is_free(each, now)]
        self._free_since = {name: self._free_since.get(name, now) for name in free}
        if self._inherited is None:
            self._inherited = frozenset(free)
        for member in known:
            self._wanted.pop(member.machine_id, None)
        return known

    def known(self, members: Iterable[Member]) -> list[Member]:
        """The same with the names that we gave, where tags do not tell them yet."""
        return [self._with_name(member) for member in members]

    def _with_name(self, member: Member) -> Member:
        launch = self._named.get(member.instance)
        if launch is None:
            return member
        return replace(member, machine_id=launch.machine_id, slots=launch.slots, fleet=self._fleet)

    def want(self, launches: Iterable[Launch], members: Iterable[Member]) -> list[str]:
        """Those of the launches that have no instance yet wait for one from now on."""
        there = {member.machine_id for member in members}
        new = {each.machine_id: each for each in launches if each.machine_id not in there}
        self._wanted.update(new)
        return list(new)

    def give_up(self, machine_id: str) -> None:
        self._wanted.pop(machine_id, None)

    def needed(self, members: Iterable[Member], now: float) -> int:
        """Instances in all, so that everything that waits gets one; 0 while nothing waits."""
        if not self._wanted:
            return 0
        held = [m for m in members if m.counted and m.machine_id and not self.is_ended(m, now)]
        return len(held) + len(self._wanted)

    def name(self, members: Sequence[Member], now: float) -> list[Member]:
        """Give the machines that wait to instances that are free, in order."""
        free = [each.instance for each in members if self._is_free(each, now)]
        settled = [name for name in free if self._is_settled(name, now)]
        waiting = sorted(self._wanted.values(), key=lambda each: machine_number(each.machine_id))
        for instance, launch in zip(settled, waiting, strict=False):
            # In mind before it is told: should an answer be lost, it gets the same name again.
            self._named[instance] = self._wanted.pop(launch.machine_id)
            self._free_since.pop(instance, None)
        return self.known(members)

    def to_tag(self) -> list[tuple[str, Launch]]:
        """Instances whose names no tag tells yet."""
        return [
            (i, x) for i, x in self._named.items() if i not in self._tagged | self._ended.keys()
        ]

    def tagged(self, instance: str) -> None:
        self._tagged.add(instance)

    def is_tagged(self, member: Member) -> bool:
        return member.instance in self._tagged

    def spare(self, members: Iterable[Member], now: float) -> list[Member]:
        """Those that nobody waited for, for long: scaled up by somebody else, or given up by us."""
        if self._wanted:
            return []
        return [
            member
            for member in members
            if self._is_free(member, now)
            and now - self._free_since.get(member.instance, now) >= SPARE
        ]

    def ended(self, member: Member, now: float) -> None:
        self._ended[member.instance] = now

    def is_ended(self, member: Member, now: float) -> bool:
        """We had it terminated. What is there long after is shown again, to be terminated again."""
        ended_at = self._ended.get(member.instance)
        return ended_at is not None and now - ended_at < LAG

    def is_ours(self, member: Member) -> bool:
        return bool(member.machine_id) and member.fleet == self._fleet

    def shows(self, member: Member, now: float) -> bool:
        return self.is_ours(member) and member.exists and not self.is_ended(member, now)

    def _is_free(self, member: Member, now: float) -> bool:
        return (
            member.usable
            and not member.machine_id
            and member.fleet in ("", self._fleet)
            and not self.is_ended(member, now)
        )

    def _is_settled(self, instance: str, now: float) -> bool:
        since = self._free_since.get(instance, now)
        return instance not in (self._inherited or ()) or now - since >= LAG
