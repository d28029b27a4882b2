"""What the gateway is held to, as ratios to its peers in the same run; and what became of it (pure)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median

from bench.measures import Samples

NGINX, HAPROXY, CHP = "nginx", "HAProxy", "configurable-http-proxy"
GATEWAY = "gateway"


@dataclass(frozen=True)
class Verdict:
    """ratio: None when a peer is missing. reached: None with it."""

    what: str
    value: str
    against: str
    ratio: float | None
    goal: str
    reached: bool | None

    def row(self) -> tuple[str, ...]:
        ratio = "not measured" if self.ratio is None else f"{self.ratio:.2f}×"
        if self.ratio is not None and not self.against:
            ratio = ""
        word = {True: "reached", False: "**missed**", None: "—"}[self.reached]
        return (self.what, self.value, self.against, ratio, self.goal, word)


COLUMNS = ("measure", "gateway", "against", "ratio", "goal", "")


def verdicts(part: str, samples: Samples) -> list[Verdict]:
    return list(_GOALS[part](samples)) if part in _GOALS else []


def middle(samples: Samples, row: str, proxy: str, name: str) -> float | None:
    found = samples[row].get(proxy)
    return median(sample[name] for sample in found) if found else None


def _ratio(
    samples: Samples, row: str, name: str, peers: tuple[str, ...], goal: float, what: str,
    unit: str, *, most: bool = True,
) -> Verdict:  # fmt: skip
    """most: the goal is a bound above, and the better peer is the one with less."""
    ours = middle(samples, row, GATEWAY, name) or 0.0
    theirs = {peer: middle(samples, row, peer, name) for peer in peers}
    known = {peer: value for peer, value in theirs.items() if value}
    told = f"{'≤' if most else '≥'} {goal:g}×"
    value = f"{ours:,.0f} {unit}" if ours >= 1000 else f"{ours:.3g} {unit}"
    if len(known) < len(peers):
        missing = ", ".join(peer for peer in peers if peer not in known)
        return Verdict(what, value, f"{missing}: missing", None, told, None)
    better = (min if most else max)(known, key=lambda peer: known[peer])
    ratio = ours / known[better]
    reached = ratio <= goal if most else ratio >= goal
    return Verdict(what, value, f"{better} {known[better]:,.4g}", ratio, told, reached)


def _bound(what: str, value: float, unit: str, goal: float) -> Verdict:
    told = f"≤ {goal:g} {unit}".strip()
    return Verdict(what, f"{value:.3g} {unit}".strip(), "", value / goal, told, value <= goal)


def _relay(samples: Samples) -> Iterable[Verdict]:
    for size in samples:
        what, goal = f"CPU per round trip, {size}", 1.1 if size == "64 B" else 1.0
        yield _ratio(samples, size, "cpu_us", (NGINX, HAPROXY), goal, what, "µs")
        yield _ratio(samples, size, "cpu_us", (CHP,), 0.65, what, "µs")


def _http(samples: Samples) -> Iterable[Verdict]:
    for size, nginx in (("1 KiB", 2.0), ("100 KiB", 0.7)):
        what = f"CPU per request, {size}"
        yield _ratio(samples, size, "cpu_us", (NGINX,), nginx, what, "µs")
        if size == "100 KiB":
            yield _ratio(samples, size, "cpu_us", (HAPROXY,), 1.1, what, "µs")
        what = f"requests a second, {size}"
        yield _ratio(samples, size, "per_second", (CHP,), 3, what, "", most=False)


def _setup(samples: Samples) -> Iterable[Verdict]:
    what = "session set-ups a second"
    yield _ratio(samples, "sessions", "per_second", (CHP,), 3, what, "", most=False)


def _latency(samples: Samples) -> Iterable[Verdict]:
    for row in samples:
        what = "p99 at a fixed rate, 500 × 20 a second"
        yield _ratio(samples, row, "p99_ms", (HAPROXY,), 1.1, what, "ms")


def _memory(samples: Samples) -> Iterable[Verdict]:
    for row in samples:
        kib = middle(samples, row, GATEWAY, "kib") or 0.0
        yield _bound(f"memory per idle session, {row}", kib, "KiB", 5)


def _redis(samples: Samples) -> Iterable[Verdict]:
    for row in samples:
        if row != "at rest":
            sent = middle(samples, row, GATEWAY, "sent_per_session") or 0.0
            yield _bound(f"Redis commands per session-second, {row}", sent, "", 0.005)


def _fair(samples: Samples) -> Iterable[Verdict]:
    alone = middle(samples, "alone", GATEWAY, "p99_ms") or 0.0
    beside = middle(samples, "beside 10 MB/s", GATEWAY, "p99_ms") or 0.0
    what, against = "others' p99 beside a session of 10 MB/s", f"alone {alone:.3g} ms"
    ratio = beside / alone
    yield Verdict(what, f"{beside:.3g} ms", against, ratio, "≤ 1.5×", ratio <= 1.5)


_GOALS: dict[str, Callable[[Samples], Iterable[Verdict]]] = {
    "relay": _relay,
    "http": _http,
    "setup": _setup,
    "latency": _latency,
    "memory": _memory,
    "redis": _redis,
    "fair": _fair,
}
