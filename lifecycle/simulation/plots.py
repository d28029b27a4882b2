"""Pictures of simulations, as SVG. Only imported when they are asked for: it needs matplotlib.

| file        | shows                                                                                  |
|-------------|----------------------------------------------------------------------------------------|
| `warm.svg`  | the share who wait against machine-hours, a curve for each policy over its figures     |
| `waits.svg` | how many wait longer than so many seconds                                              |
| `day.svg`   | users and slots over the time, one picture for each policy                             |

The same simulations make the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MultipleLocator

from lifecycle.simulation.records import Sample
from lifecycle.simulation.report import clock
from lifecycle.simulation.summary import Summary

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Okabe and Ito's, which the colour-blind can tell apart. Markers and lines differ as well."""

MARKERS = "osD^vXP"
LINES = ("-", "--", ":", "-.")
GREY = "#555555"
FAR_OFF = 10.0  # times the least machine-hours beyond the bound
POINTS = 2000  # of a line over the day; more cannot be seen

_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "ide-gateway",
    "svg.fonttype": "none",  # text stays text: it can be searched and read aloud
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "sans-serif"],
    "font.size": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "legend.frameon": False,
    "lines.linewidth": 2,
}


def draw(rows: Sequence[Summary], detail: Sequence[Summary], slots: int, where: Path) -> list[Path]:
    """All pictures, into a directory that is made if need be. detail: one summary of each policy. Raises OSError."""
    where.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(_STYLE):
        return [
            _saved(warm(rows), where / "warm.svg"),
            _saved(waits(detail), where / "waits.svg"),
            _saved(day(detail, slots), where / "day.svg"),
        ]


def _saved(figure: Figure, path: Path) -> Path:
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": "ide-gateway simulate"})
    return path


@contextmanager
def _axes(title: str, x: str, y: str) -> Iterator[tuple[Figure, Axes]]:
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.add_subplot()
    axes.set(title=title, xlabel=x, ylabel=y)
    yield figure, axes
    axes.legend()


def warm(rows: Sequence[Summary]) -> Figure:
    """Lower is fewer who wait, further left is fewer machines. Nobody at all is drawn as half an arrival."""
    bound = max(row.bound_hours for row in rows) or 1.0
    with _axes("Who waits, and with how many machines", "machine-hours beyond the bound", "arrivals that wait") as (
        figure, axes,
    ):  # fmt: skip
        for number, (policy, group) in enumerate(groupby(rows, lambda row: row.policy)):
            found = sorted(group, key=lambda row: row.machine_hours.value)
            places = [_place(row, bound) for row in found]
            axes.plot(*zip(*places, strict=True), label=policy, **_look(number), markersize=7)
            for row, place in zip(found, places, strict=True):
                _name(axes, row, place)
        beyond = [_place(row, bound)[0] for row in rows]
        # One that is far off, such as a fixed pool, would press all others into a line.
        if min(beyond) > 0 and max(beyond) > FAR_OFF * min(beyond):
            _log_shares(axes, "x")
        else:
            axes.axvline(0.0, color=GREY, linestyle="--", linewidth=1.5, label="bound")
            axes.xaxis.set_major_formatter(_percent)
        _log_shares(axes, "y")
    return figure


def _place(row: Summary, bound: float) -> tuple[float, float]:
    """Machine-hours beyond the bound, as a share of it, and the share who wait."""
    waited = max(1 - row.warm.value, 0.5 / max(1, row.arrivals))
    return row.machine_hours.value / bound - 1, waited


def _name(axes: Axes, row: Summary, place: tuple[float, float]) -> None:
    if row.figure is not None:
        axes.annotate(
            f"{row.figure:g}", place, (5, 5), textcoords="offset points", fontsize=9, color=GREY
        )


def waits(rows: Sequence[Summary]) -> Figure:
    """The tail of waiting: at 30 s, the share of all arrivals that wait longer than that."""
    with _axes("How long they wait", "seconds", "arrivals that wait longer") as (figure, axes):
        for number, row in enumerate(rows):
            count = len(row.waits)
            shares = [(count - place) / max(1, row.arrivals) for place in range(count)]
            step = max(1, count // POINTS)
            look = {"color": _look(number)["color"], "linestyle": LINES[number % len(LINES)]}
            axes.plot(row.waits[::step] or [0], shares[::step] or [0.0], label=row.label, **look)
        if any(row.waits for row in rows):
            _log_shares(axes, "y")
        axes.set_xlim(left=0)
    return figure


def day(rows: Sequence[Summary], slots: int) -> Figure:
    """Of the first seed: slots that are ready, those that come with them, and people."""
    figure = Figure(figsize=(9, 1 + 2.8 * len(rows)), layout="constrained")
    every = figure.subplots(len(rows), 1, sharex=True, squeeze=False)
    for axes, row in zip(every[:, 0], rows, strict=True):
        _pool(axes, row, slots)
    last = max(
        (row.accounts[0].samples[-1].at for row in rows if row.accounts[0].samples), default=0.0
    )
    every[-1, 0].xaxis.set_major_locator(MultipleLocator(_tick(last)))
    every[-1, 0].xaxis.set_major_formatter(
        FuncFormatter(lambda at, _: clock(at) if at >= 0 else "")
    )
    figure.legend(*every[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def _pool(axes: Axes, row: Summary, slots: int) -> None:
    samples = _thinned(row.accounts[0].samples)
    at = [sample.at for sample in samples]
    ready = [sample.ready * slots for sample in samples]
    coming = [(sample.ready + sample.coming) * slots for sample in samples]
    axes.fill_between(
        at, ready, color=COLOURS[4], alpha=0.35, label="slots ready", step="post", linewidth=0
    )
    axes.plot(
        at,
        coming,
        color=COLOURS[0],
        linewidth=1,
        label="with those that come",
        drawstyle="steps-post",
    )
    axes.plot(at, [sample.users for sample in samples], color=COLOURS[1], label="users")
    axes.set(title=row.label, ylabel="slots, users")
    axes.set_ylim(bottom=0)


def _thinned(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Some of them; of those between two, the one with the most users."""
    step = -(-len(samples) // POINTS) or 1
    parts = (samples[start : start + step] for start in range(0, len(samples), step))
    return [max(part, key=lambda sample: sample.users) for part in parts]


def _tick(length: float) -> float:
    """Seconds between two marks: about eight, at whole hours, or minutes of a short time."""
    steps = (300, 900, 1800, 3600, 2 * 3600, 3 * 3600, 6 * 3600, 12 * 3600, 86_400)
    return next((step for step in steps if length / step <= 9), steps[-1] * -(-length // 700_000))


def _log_shares(axes: Axes, which: Literal["x", "y"]) -> None:
    """Shares by their order of magnitude, with marks between where there are few."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis.set_minor_locator(LogLocator(subs=(2, 5)))
    for formatter in (axis.set_major_formatter, axis.set_minor_formatter):
        formatter(FuncFormatter(_percent))


def _look(number: int) -> dict[str, Any]:
    """Of a curve; beyond as many as there are colours, lines are broken."""
    every = len(COLOURS)
    return {
        "color": COLOURS[number % every],
        "marker": MARKERS[number % every],
        "linestyle": LINES[number // every % len(LINES)],
    }


def _percent(share: float, _: object) -> str:
    return f"{share * 100:g} %"
