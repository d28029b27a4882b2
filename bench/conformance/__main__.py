"""`python -m bench.conformance [--quick] [--python PATH] [--write]`: the gateway changes no verdict of Autobahn's.

Exit code 1 where it does, and what differs in words.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gateway
from bench import build, peers, report
from bench.conformance.tool import VERSION, wstest
from bench.conformance.verdicts import GATEWAY, STRAIGHT, Cases, differences, rows
from bench.serving import Gateway, wait
from gateway.valkey import die_with_parent

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"
SLOW = ["9.*", "12.*", "13.*"]
COLUMNS = ("cases", "number", "straight", "through the gateway", "different verdicts")


def index(stack: ExitStack, command: Path, left_out: list[str]) -> dict[str, Cases]:
    echo = [str(command.with_name("python")), str(Path(__file__).with_name("testee.py"))]
    ours = Gateway(
        stack, "--workspace-command", f"{shlex.join(echo)} {{port}}", "--workspace-ready-path", "/", "--workspace-user", "shared"
    )  # fmt: skip
    workspace, _ = ours.boot("ada")
    visit = ours.enter(workspace)
    port = peers.free_port()
    straight = subprocess.Popen(
        [*echo, str(port)], stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, preexec_fn=die_with_parent(),
    )  # fmt: skip
    stack.callback(_end, straight)
    wait(lambda: peers.accepts(port), "the echo server")
    ahead = [sys.executable, "-m", "bench.conformance.forward", str(visit["port"]), visit["host"]]
    forward = subprocess.Popen(
        [*ahead, visit["cookie"]], stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent()
    )
    stack.callback(_end, forward)
    assert forward.stdout is not None
    ahead_port = int(forward.stdout.readline())
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ide-gateway-autobahn-")))
    spec = {
        "outdir": str(folder / "reports"),
        "servers": [
            {"agent": STRAIGHT, "url": f"ws://127.0.0.1:{port}", "options": {"version": 18}},
            {"agent": GATEWAY, "url": f"ws://127.0.0.1:{ahead_port}", "options": {"version": 18}},
        ],
        "cases": ["*"], "exclude-cases": left_out, "exclude-agent-cases": {},
    }  # fmt: skip
    (folder / "spec.json").write_text(json.dumps(spec))
    with (folder / "log").open("w") as log:
        done = subprocess.run(
            [str(command), "-m", "fuzzingclient", "-s", str(folder / "spec.json")],
            stdout=log, stderr=log, cwd=folder, preexec_fn=die_with_parent(),
        )  # fmt: skip
    found = folder / "reports" / "index.json"
    if done.returncode or not found.exists():
        raise SystemExit(
            f"wstest ended with {done.returncode}:\n{(folder / 'log').read_text()[-2000:]}"
        )
    told: dict[str, Cases] = json.loads(found.read_text())
    return told


def _end(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def text(found: dict[str, Cases], seconds: float) -> str:
    apart = differences(found)
    facts = [
        f"- autobahntestsuite {VERSION}, its fuzzing client and its echo server",
        f"- ide-gateway {gateway.__version__}, {len(found[STRAIGHT])} cases, each straight and through the gateway,"
        f" {seconds / 60:.0f} minutes for all",
        f"- different verdicts: {len(apart)}",
    ]
    table = report.table("", COLUMNS, rows(found))
    return "\n".join([*facts, table, *(f"- {line}" for line in apart)])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.conformance", description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"leaves out {', '.join(SLOW)}")
    parser.add_argument("--python", default="", metavar="PATH", help="a Python 2.7 for Autobahn")
    parser.add_argument("--write", action="store_true", help=f"also into {PAGE.name}")
    options = parser.parse_args()
    if options.write and options.quick:
        parser.error("--quick leaves out too much for --write")
    try:
        command = wstest(options.python)
    except build.Missing as missing:
        raise SystemExit(str(missing)) from None
    began = time.monotonic()
    with ExitStack() as stack:
        found = index(stack, command, SLOW if options.quick else [])
    told = text(found, time.monotonic() - began)
    print(told)
    if options.write:
        report.write("conformance", told, PAGE)
        print(f"Written to {PAGE}.")
    sys.exit(1 if differences(found) else 0)


if __name__ == "__main__":
    main()
