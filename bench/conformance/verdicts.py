"""What Autobahn found of two agents, held against each other (pure)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

Case = Mapping[str, str]
Cases = Mapping[str, Case]
"""Case id → {behavior, behaviorClose, …}, as index.json has it of one agent."""

STRAIGHT, GATEWAY = "straight", "gateway"

SECTIONS = {
    "1": "Framing", "2": "Pings and pongs", "3": "Reserved bits", "4": "Opcodes", "5": "Fragmentation",
    "6": "UTF-8", "7": "Closing", "9": "Limits and performance", "10": "Fragmented text",
    "12": "Compression of messages", "13": "Compression with parameters",
}  # fmt: skip


def verdict(case: Case) -> str:
    return f"{case['behavior']}, {case['behaviorClose']} at the close"


def differences(index: Mapping[str, Cases]) -> list[str]:
    """In words, case by case; none when the gateway changes nothing."""
    straight, gateway = index[STRAIGHT], index[GATEWAY]
    found = []
    for case in sorted(straight.keys() | gateway.keys(), key=_order):
        if case not in straight or case not in gateway:
            where = STRAIGHT if case in straight else "through the gateway"
            found.append(f"{case} was only tried {where}")
        elif verdict(straight[case]) != verdict(gateway[case]):
            one, other = verdict(straight[case]), verdict(gateway[case])
            found.append(f"{case}: straight {one}; through the gateway {other}")
    return found


def rows(index: Mapping[str, Cases]) -> Iterable[tuple[str, ...]]:
    """Of each section: its name, how many cases, verdicts straight and through the gateway, differences."""
    straight, gateway = index[STRAIGHT], index[GATEWAY]
    apart = {line.partition(":")[0] for line in differences(index)}
    for section, name in SECTIONS.items():
        mine = [case for case in straight if case.split(".")[0] == section]
        if mine:
            different = sum(case in apart for case in mine)
            yield (
                f"{section} {name}", str(len(mine)), _counted(straight[case] for case in mine),
                _counted(gateway[case] for case in mine if case in gateway), str(different),
            )  # fmt: skip


def _counted(cases: Iterable[Case]) -> str:
    counts = Counter(case["behavior"] for case in cases)
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


def _order(case: str) -> list[int]:
    return [int(number) for number in case.split(".")]
