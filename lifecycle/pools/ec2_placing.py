"""Machines of one run onto what EC2 has, best offering first."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from lifecycle.pools import NoCapacity, PoolError
from lifecycle.pools import ec2_check as checks
from lifecycle.pools.bootstrap import Bootstrap
from lifecycle.pools.ec2_calls import Ec2Calls, code
from lifecycle.pools.ec2_instances import STATES, Instance, Recent, read
from lifecycle.pools.ec2_launch import (
    LASTING,
    REFUSALS,
    Ec2Config,
    Run,
    consecutive,
    refused_with,
    request,
)
from lifecycle.pools.offerings import (
    Offering,
    Refusals,
    next_try,
    offerings,
    passed_over,
    paused,
    refused,
    taken,
)

log = logging.getLogger(__name__)

REPEATS = 5
"""Launches of one name at most whose instances are gone already."""


UNSURE = 1000
"""Calls at most to remember whose end nobody knows."""


class Placing:
    """zones: of subnets; asked for when a zone matters and they are not known."""

    def __init__(
        self,
        config: Ec2Config,
        bootstrap: Bootstrap,
        calls: Ec2Calls,
        recent: Recent,
        clock: Callable[[], float],
    ) -> None:
        self._config, self._bootstrap = config, bootstrap
        self._calls, self._recent, self._clock = calls, recent, clock
        self._choices = offerings(config.instance_types, config.subnets)
        self._refusals: Refusals = {}
        self._unsure: dict[Run, Offering] = {}
        self.zones: Mapping[str, str] = {}

    async def place(self, run: Run) -> list[str]:
        """Notices. What one offering does not give, the next one is asked for, as a launch of its own.
        Raises NoCapacity when there is no more, PoolError when nobody knows what became of a call."""
        notices: list[str] = []
        missing = [run]
        choices = await self._choices_for(run)
        for offering in self._order(run, choices):
            unsure = self._unsure.get(run) == offering
            if paused(self._refusals, offering, self._clock()) and not unsure:
                continue
            asked, missing = missing, []
            for part in asked:
                missing += await self._ask(part, offering)
            if missing != asked:
                notices += self._notice(offering, choices)
            if not missing:
                return notices
        for notice in notices:
            log.warning("%s", notice)
        raise self._nothing_left(missing, choices)

    async def _choices_for(self, run: Run) -> Sequence[Offering]:
        """Every offering, or those in the zone that it has to be in. Raises NoCapacity."""
        if not run.zone:
            return self._choices
        subnets = self._config.subnets
        if not subnets:
            return tuple(replace(each, zone=run.zone) for each in self._choices)
        if not self.zones.keys() >= set(subnets):
            self.zones = await checks.zones(self._calls, self._config)
        there = [each for each in self._choices if self.zones[each.subnet] == run.zone]
        if not there:
            raise NoCapacity(
                f"no machine for a volume in {run.zone}: none of --subnets is in that zone;"
                f" name one that is ({run})",
                [f"m-{number}" for number in run.numbers],
            )
        return there

    def _order(self, run: Run, choices: Sequence[Offering]) -> list[Offering]:
        """First the one of which nobody knows whether it gave them: asked again, it tells."""
        first = self._unsure.get(run)
        return sorted(choices, key=lambda offering: offering != first)

    async def _ask(self, part: Run, offering: Offering) -> list[Run]:
        """Launch it there; what is still missing."""
        try:
            got = await self._run(part, offering)
        except PoolError as error:
            why = code(error)
            if why not in REFUSALS:
                self._unsure[part] = offering
                for forgotten in list(self._unsure)[:-UNSURE]:
                    del self._unsure[forgotten]
                raise
            self._unsure.pop(part, None)
            self._refuse(offering, why)
            return [part]
        self._unsure.pop(part, None)
        for instance in got:
            self._recent.launched(instance, self._clock())
        numbers = {instance.number for instance in got}
        if numbers.issuperset(part.numbers):
            self._refusals = taken(self._refusals, offering)
            return []
        self._refuse(offering, "InsufficientInstanceCapacity")
        return consecutive(
            {n: (part.slots, part.zone) for n in part.numbers if n not in numbers}, part.count
        )

    async def _run(self, part: Run, offering: Offering) -> list[Instance]:
        """The instances that came. A client token that was used up by instances that are gone (numbers
        that are used again, after the store lost them) is followed by another one."""
        doing = f"launch {part} ({self._words(offering)})"
        user_data = self._bootstrap.user_data(part.first, part.count)
        after = ""
        for _ in range(REPEATS):
            asked = request(self._config, part, offering, user_data, after)
            answer = await self._calls.ask(doing, "run_instances", **asked)
            found = [read(row) for row in answer["Instances"]]
            came = [each for each in found if each is not None]
            alive = [each for each in came if self._lives(each)]
            if alive or not came:
                return alive
            after = came[0].id
        raise PoolError(f"cannot {doing}: its instances end as soon as they come, {after} for one")

    def _lives(self, instance: Instance) -> bool:
        ended = self._recent.has_ended(instance.id, self._clock())
        return instance.state in STATES and not ended

    def _refuse(self, offering: Offering, why: str) -> None:
        self._refusals = refused(
            self._refusals,
            refused_with([*self._choices, offering], offering, why),
            why,
            self._clock(),
            lasting=why in LASTING,
        )

    def _notice(self, chosen: Offering, choices: Sequence[Offering]) -> list[str]:
        better = passed_over(choices, self._refusals, chosen)
        if not better:
            return []
        names = ", ".join(self._words(each) for each in better)
        return [f"no capacity for {names}: took {self._words(chosen)}"]

    def _nothing_left(self, missing: list[Run], choices: Sequence[Offering]) -> NoCapacity:
        why = ", ".join(
            f"{self._words(each)} ({refusal.why})"
            for each, refusal in self._refusals.items()
            if each in choices
        )
        seconds = next_try(choices, self._refusals, self._clock())
        names = ", ".join(map(str, missing))
        return NoCapacity(
            f"no capacity for {names} in any of: {why}; asked again in {seconds:.0f} s at the earliest,"
            " or name more in --instance-types and --subnets",
            [f"m-{number}" for run in missing for number in run.numbers],
        )

    def _words(self, offering: Offering) -> str:
        kind = offering.instance_type or "the launch template's type"
        place = offering.zone or self.zones.get(offering.subnet, offering.subnet)
        return f"{kind} in {place}" if place else kind
