"""A picture of all proxies beside each other: panels of bars, each with its own scale, as SVG (pure).

Colours follow the reader's: light or dark.
"""

from __future__ import annotations

from html import escape

from bench.goals import middle
from bench.measures import Samples

WIDTH, PANEL, BAR, GAP, LEFT, ROW = 420, 150, 20, 6, 172, 4
# (title, part, row, figure, digits); None takes the only row.
PANELS: tuple[tuple[str, str, str | None, str, int], ...] = (
    ("CPU per round trip, 64 B, µs", "relay", "64 B", "cpu_us", 1),
    ("CPU per round trip, 1 KiB, µs", "relay", "1 KiB", "cpu_us", 1),
    ("CPU per round trip, 16 KiB, µs", "relay", "16 KiB", "cpu_us", 1),
    ("CPU per round trip, 256 KiB, µs", "relay", "256 KiB", "cpu_us", 0),
    ("CPU per GET, 1 KiB, µs", "http", "1 KiB", "cpu_us", 1),
    ("CPU per GET, 100 KiB, µs", "http", "100 KiB", "cpu_us", 1),
    ("Memory per idle session, KiB", "memory", None, "kib", 1),
    ("p99 at a fixed rate, ms", "latency", None, "p99_ms", 2),
    ("Session set-ups a second (more is better)", "setup", None, "per_second", 0),
    ("GETs a second, 1 KiB (more is better)", "http", "1 KiB", "per_second", 0),
)
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600 }
.bar { fill: #9aa4b0 }
.gateway { fill: #0969da }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .bar { fill: #6e7681 }
  .gateway { fill: #58a6ff }
}
"""


def svg(results: dict[str, Samples]) -> str:
    """Panels of what was measured, two beside each other."""
    panels = []
    for title, part, row, name, digits in PANELS:
        samples = results.get(part)
        if samples:
            row = row or next(iter(samples))
            known = {proxy: middle(samples, row, proxy, name) for proxy in samples[row]}
            panels.append((title, {p: v for p, v in known.items() if v is not None}, digits))
    height = (len(panels) + 1) // 2 * PANEL
    drawn = [
        _panel(title, values, digits, (number % 2) * WIDTH, number // 2 * PANEL)
        for number, (title, values, digits) in enumerate(panels)
    ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * WIDTH} {height}" role="img">'
    title = "<title>The gateway beside nginx, HAProxy and configurable-http-proxy</title>"
    return "\n".join([head, title, f"<style>{STYLE}</style>", *drawn, "</svg>", ""])


def _panel(title: str, values: dict[str, float], digits: int, x: int, y: int) -> str:
    room = WIDTH - LEFT - 80  # the longest bar; its figure stands behind it
    scale = room / (max(values.values(), default=1) or 1)
    lines = [f'<text class="title" x="{x + ROW}" y="{y + 18}">{escape(title)}</text>']
    for number, (proxy, value) in enumerate(values.items()):
        top = y + 30 + number * (BAR + GAP)
        kind = "bar gateway" if proxy == "gateway" else "bar"
        wide = max(1.0, value * scale)
        lines += [
            f'<text x="{x + LEFT - 6}" y="{top + 15}" text-anchor="end">{escape(proxy)}</text>',
            f'<rect class="{kind}" x="{x + LEFT}" y="{top}" width="{wide:.1f}" height="{BAR}"/>',
            f'<text x="{x + LEFT + wide + 6:.1f}" y="{top + 15}">{value:,.{digits}f}</text>',
        ]
    return "\n".join(lines)
