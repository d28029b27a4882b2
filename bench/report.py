"""Samples as Markdown tables, and those tables in docs/performance.md, between the marks of their part."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from statistics import median

from bench import goals
from bench.measures import Samples

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"

# Part → its tables: title, and which figure with how many digits.
TABLES = {
    "relay": (
        ("CPU of the proxy per round trip of a WebSocket message, µs, 64 connections", "cpu_us", 1),
        ("Round trips a second", "per_second", 0),
        ("How busy the proxy's core was", "busy", 2),
        ("CPU of the load generator per round trip, µs", "load_us", 1),
        ("CPU of the workspace per round trip, µs", "upstream_us", 1),
    ),
    "http": (
        ("CPU of the proxy per GET, µs, 32 kept-alive connections", "cpu_us", 1),
        ("Requests a second", "per_second", 0),
        ("p99, ms", "p99_ms", 2),
    ),
    "setup": (
        ("Session set-ups a second: connect, upgrade, one echo, close; 32 under way", "per_second", 0),
        ("CPU of the proxy per set-up, µs", "cpu_us", 0),
    ),
    "latency": (
        ("p99 at a fixed rate, ms from when a message was due: 500 connections, 20 × 128 B a second each", "p99_ms", 2),
        ("p50, ms", "p50_ms", 3),
        ("How busy the proxy's core was", "busy", 2),
    ),
    "fair": (("p99 of 50 sessions of 20 × 128 B a second, ms", "p99_ms", 2),),
    "memory": (
        ("Memory per idle session, KiB (proportional set size, all of the proxy's processes)", "kib", 1),
        ("What stands beside it, KiB: Valkey and the agent", "beside_kib", 1),
    ),
    "redis": (
        ("Commands sent to Redis a second, by all parts of the gateway (MONITOR)", "sent", 1),
        ("Commands executed a second, with those that scripts call (commandstats)", "executed", 1),
    ),
}  # fmt: skip


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(columns), *(list(row) for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join([title, "", *(f"| {' | '.join(line)} |" for line in lines), ""])


def spread(values: Iterable[float], digits: int) -> str:
    """Median (least–most); one value alone as it is."""
    known = sorted(values)
    low, mid, high = (f"{v:,.{digits}f}" for v in (known[0], median(known), known[-1]))
    return mid if len(known) == 1 else f"{mid} ({low}–{high})"


def part_text(part: str, samples: Samples) -> str:
    """Goals first, then every figure of everybody."""
    found = [verdict.row() for verdict in goals.verdicts(part, samples)]
    texts = [table("Goals:", goals.COLUMNS, found)] if found else []
    for title, name, digits in TABLES[part]:
        proxies = list(next(iter(samples.values())))
        rows = (
            [row, *(spread((s[name] for s in of[proxy]), digits) for proxy in proxies)]
            for row, of in samples.items()
            if all(name in sample for proxy in proxies for sample in of[proxy])
        )
        texts.append(table(f"{title}:", ("", *proxies), rows))
    return "\n".join(texts)


def write(name: str, text: str, where: Path = PAGE, kind: str = "bench") -> None:
    """Replace what stands between `<!-- KIND:NAME -->` and `<!-- /KIND:NAME -->`."""
    page = where.read_text()
    first, last = f"<!-- {kind}:{name} -->", f"<!-- /{kind}:{name} -->"
    before, begins, rest = page.partition(first)
    _, ends, after = rest.partition(last)
    if not begins or not ends:
        raise SystemExit(f"{where} has no {first} … {last}: put the marks where the table is to be")
    where.write_text(f"{before}{first}\n\n{text.strip()}\n\n{last}{after}")
