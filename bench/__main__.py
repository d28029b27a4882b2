"""`python -m bench [PART …] [--rounds N] [--quick] [--json FILE] [--write]`: the gateway beside its peers, as Markdown."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import boots, build, classifier, peers, plot, report, scaler, sweep
from bench.facts import facts, listed
from bench.measures import PARTS, Samples, Scale
from bench.stage import Stage

LIMIT = 2400  # seconds for everything
OTHERS = ("boot", "sweep", "classifier", "scaler")  # without those peers
FULL, QUICK = Scale(), Scale(rounds=1, seconds=0.3, idle=500)


def compare(wanted: list[str], scale: Scale) -> dict[str, Any]:
    """The parts with peers: their samples, told as they come."""
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        stage = Stage(stack, peers.NAMES)
        for text in stage.missing:
            print(f"\n{text}; the rest is measured without it.", flush=True)
        found["facts"] = facts(scale, stage.missing)
        print(f"\n{listed(found['facts'])}\n", flush=True)
        for part in wanted:
            found[part] = PARTS[part](stage, scale)
            print(report.part_text(part, found[part]), flush=True)
    return found


def sweep_text(found: dict[int, dict[str, float]]) -> str:
    rows = (
        (str(due), f"{row['cpu_ms']:.1f}", f"{row['wall_ms']:.1f}", f"{row['commands']:.0f}")
        for due, row in found.items()
    )
    columns = ("due", "leader's CPU, ms", "until done, ms", "commands executed in Redis")
    return report.table(f"One look at {sweep.WORKSPACES:,} running workspaces:", columns, rows)


def scaler_text(found: dict[str, dict[str, list[float]]]) -> str:
    rows = (
        (name, *(report.spread(each[part], 1) for part in ("scale", "place")))
        for name, each in found.items()
    )
    return report.table("One decision about the pool, ms of CPU:", ("", "scale", "place"), rows)


def run(wanted: list[str], scale: Scale, results: dict[str, Any]) -> dict[str, str]:
    """Part → its text; what was measured into `results`."""
    texts: dict[str, str] = {}
    with_peers = [part for part in PARTS if part in wanted]
    try:
        if with_peers:
            results |= compare(with_peers, scale)
            texts["facts"] = listed(results["facts"])
            texts |= {part: report.part_text(part, results[part]) for part in with_peers}
        if "boot" in wanted:
            results["boot"], absent = boots.measure()
            texts["boot"] = boots.text(results["boot"], absent)
    except build.Missing as missing:
        print(f"\n{missing}. What needs it is skipped.", file=sys.stderr, flush=True)
    if "sweep" in wanted:
        results["sweep"] = sweep.measure()
        texts["sweep"] = sweep_text(results["sweep"])
    if "classifier" in wanted:
        results["classifier"] = found = classifier.measure()
        title = "Telling a person from a keep-alive:"
        texts["classifier"] = report.table(title, classifier.COLUMNS, classifier.rows(found))
    if "scaler" in wanted:
        results["scaler"] = scaler.measure()
        texts["scaler"] = scaler_text(results["scaler"])
    print(*(texts[part] for part in OTHERS if part in texts), sep="\n", flush=True)
    return texts


def write(texts: dict[str, str], results: dict[str, Any]) -> None:
    """Into docs/: what was measured now, each in its place. The plot only if all of it was."""
    for part, text in texts.items():
        report.write(part, text)
    samples: dict[str, Samples] = {part: results[part] for part in PARTS if part in results}
    if len(samples) == len(PARTS):
        report.PAGE.with_suffix(".svg").write_text(plot.svg(samples))
    print(f"Written to {report.PAGE}.")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parts = [*PARTS, *OTHERS]
    parser.add_argument("what", nargs="*", metavar="PART", help=f"{', '.join(parts)}; all of them")
    parser.add_argument("--rounds", type=int, default=0, help=f"default: {FULL.rounds}")
    parser.add_argument("--quick", action="store_true", help="does it run? Figures mean nothing")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also every sample, there")
    parser.add_argument("--write", action="store_true", help=f"also into {report.PAGE}")
    options = parser.parse_args()
    wanted = [part for part in parts if part in options.what or options.what in ([], ["all"])]
    if unknown := set(options.what) - {*parts, "all"}:
        parser.error(f"there is no {min(unknown)}; there are {', '.join(parts)}")
    if options.write and options.quick:
        parser.error("--quick measures too little for --write")
    scale = QUICK if options.quick else FULL
    scale = replace(scale, rounds=options.rounds or scale.rounds)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGALRM, lambda *_: sys.exit(f"stopped: not done after {LIMIT} s"))
    signal.alarm(LIMIT)
    if len(os.sched_getaffinity(0)) < 2:
        print("One core for proxy and load together: CPU can be compared, rates cannot.")
    results: dict[str, Any] = {}
    try:
        texts = run(wanted, scale, results)
    except KeyboardInterrupt:
        sys.exit(130)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    if options.write:
        write(texts, results)


if __name__ == "__main__":
    main()
