"""How long somebody waits for their new workspace: given a warm one, cold, beside `jupyter lab` alone and JupyterHub."""

from __future__ import annotations

import http.client
import importlib.util
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from statistics import median

from bench import build, goals, hub, report
from bench.peers import free_port
from bench.serving import TIMEOUT, Gateway, echo_ide, wait
from gateway.settings import JUPYTERLAB_COMMAND
from gateway.valkey import die_with_parent

ROUNDS = 7
WARM, COLD, BARE, HUB = "gateway, warm", "gateway, cold", "jupyter lab alone", "JupyterHub"
ECHO = "echo, cold: until it runs"
WARM_GOAL, COLD_GOAL = 1.0, 0.3  # seconds

Boots = dict[str, list[float]]


def measure() -> tuple[Boots, list[str]]:
    """Samples in seconds; and what was missing, in words. In turns, so that what disturbs the machine meets all."""
    samples: Boots = defaultdict(list)
    missing: list[str] = []
    with ExitStack() as stack:
        ways: dict[str, Callable[[str], float]] = {}
        echo = Gateway(stack, *echo_ide())
        ways[ECHO] = lambda user: _until_running(echo, user)
        if importlib.util.find_spec("jupyterlab"):
            ways |= _ways(stack, missing)
        else:
            missing.append("JupyterLab is missing (pip install jupyterlab): its boots")
        for text in missing:
            print(f"\n{text}; the rest is measured without it.", flush=True)
        for number in range(1 + ROUNDS):
            for name, boot in ways.items():
                seconds = boot(f"user-{number}")
                if number:  # the first fills the caches of files
                    samples[name].append(seconds)
    return dict(samples), missing


def _ways(stack: ExitStack, missing: list[str]) -> dict[str, Callable[[str], float]]:
    warm, cold = Gateway(stack), Gateway(stack, "--warm-workspaces", "0")
    ways: dict[str, Callable[[str], float]] = {
        WARM: lambda user: _warm(warm, user),
        COLD: lambda user: _through(cold, user),
        BARE: lambda _: _alone(),
    }
    try:
        theirs = hub.Hub(stack)
    except build.Missing as error:
        missing.append(str(error))
    else:
        ways[HUB] = lambda user: _hub(theirs, user)
    return ways


def _until_running(gateway: Gateway, user: str) -> float:
    workspace, seconds = gateway.boot(user)
    _end(gateway, workspace)
    return seconds


def _warm(gateway: Gateway, user: str) -> float:
    _has_warm(gateway)
    seconds = _through(gateway, user)
    _has_warm(gateway)  # its replacement starts now, and not beside whoever is next
    return seconds


def _has_warm(gateway: Gateway) -> None:
    wait(lambda: any(each["warm"] for each in gateway.api("GET", "machines")), "a warm IDE")


def _through(gateway: Gateway, user: str) -> float:
    """From asking for it to a JupyterLab that answers whoever has entered."""
    started = time.perf_counter()
    workspace, _ = gateway.boot(user)
    visit = gateway.enter(workspace)
    told = {"Host": visit["host"], "Cookie": visit["cookie"]}
    _, page = gateway.call("GET", "/lab", told)
    seconds = time.perf_counter() - started
    if "jupyter-config-data" not in page:
        raise RuntimeError(f"that is no JupyterLab: {page[:300]}")
    _end(gateway, workspace)
    return seconds


def _end(gateway: Gateway, workspace: str) -> None:
    gateway.api("POST", f"workspaces/{workspace}/stop")
    gateway.becomes(workspace, "stopped")


def _alone() -> float:
    """The gateway's own command, in an empty home, and nothing around it."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ide-gateway-bare-")))
        port = free_port()
        told = {"host": "127.0.0.1", "port": port, "base_url": "/", "dir": home, "secret": "bench"}
        words = shlex.split(JUPYTERLAB_COMMAND.format(**told))
        environment = dict(word.split("=", 1) for word in words[:1])
        environment |= {"HOME": str(home), "JUPYTER_RUNTIME_DIR": str(home / "run")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        started = time.perf_counter()
        process = subprocess.Popen(
            words[1:],
            env={"PATH": path, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=die_with_parent(),
        )
        stack.callback(process.wait, TIMEOUT)
        stack.callback(process.terminate)
        wait(lambda: _answers(port), "jupyter lab")
        return time.perf_counter() - started


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    try:
        connection.request("GET", "/lab", headers={"Authorization": "token bench"})
        answer = connection.getresponse()
        answer.read()
        return answer.status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _hub(theirs: hub.Hub, user: str) -> float:
    started = time.perf_counter()
    theirs.boot(user)
    seconds = time.perf_counter() - started
    theirs.stop(user)
    return seconds


def text(samples: Boots, missing: list[str]) -> str:
    rows = [(name, report.spread(found, 2)) for name, found in samples.items()]
    lab = f"JupyterLab {version('jupyterlab')}, JupyterHub {hub.VERSION}" if WARM in samples else ""
    title = f"From asking for a workspace to its page, a free slot there, {ROUNDS} boots; {lab}:"
    verdicts = [each.row() for each in _verdicts(samples)]
    told = [report.table("Goals:", goals.COLUMNS, verdicts)] if verdicts else []
    told.append(report.table(title, ("", "seconds"), rows))
    told += [f"Not measured: {each}.\n" for each in missing]
    return "\n".join(told)


def _verdicts(samples: Boots) -> list[goals.Verdict]:
    middle = {name: median(found) for name, found in samples.items()}
    if WARM not in middle:
        return []
    warm, cold, bare = middle[WARM], middle[COLD], middle[BARE]
    # Of the same round: then what else the machine does is in both.
    more = median(ours - theirs for ours, theirs in zip(samples[COLD], samples[BARE], strict=True))
    found = [
        goals.Verdict(
            "a warm workspace, p50", f"{warm:.2f} s", "", warm / WARM_GOAL,
            f"≤ {WARM_GOAL:g} s", warm <= WARM_GOAL,
        ),
        goals.Verdict(
            "a cold one, p50 of what it takes more in its round", f"{more:.2f} s more",
            f"{BARE} {bare:.2f} s", cold / bare, f"≤ {COLD_GOAL:g} s more", more <= COLD_GOAL,
        ),
    ]  # fmt: skip
    if HUB in middle:
        theirs = middle[HUB]
        what = ("a cold one, p50", f"{cold:.2f} s", f"{HUB} {theirs:.2f} s")
        found.append(goals.Verdict(*what, cold / theirs, "≤ 1×", cold <= theirs))
    return found
