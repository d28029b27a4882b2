"""`python -m lifecycle.agent --machine m-1 --dir DIR --slots 5`: run the agent of a machine.

The token comes by the environment (IDE_GATEWAY_AGENT_TOKEN), as argv is public to all users. With
`--join env` or `--join imds` instead of --machine and --slots it asks the gateway who it is (join.py),
listens on the machine's own address and reports by itself (reporting.py). Once it listens, DIR/agent.json says where: {pid, start_time, port, boot_id}. SIGTERM, SIGINT and
POST /shutdown stop every workspace in order and end it with exit code 0.

Exit codes: 2 usage, 69 cannot listen, 77 cannot join, 75 another agent has DIR, 78 configuration.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import uvicorn

from lifecycle.agent.agent import Agent
from lifecycle.agent.app import create_app
from lifecycle.agent.deadline import Prompt
from lifecycle.agent.disk import write_json
from lifecycle.agent.imds import Imds
from lifecycle.agent.isolation import Isolation, isolation
from lifecycle.agent.join import CannotJoin, Identity, Place, by_environment, by_imds, identify
from lifecycle.agent.processes import started_at
from lifecycle.agent.reporting import INTERVAL, Desk, Reporting
from lifecycle.agent.warm import LOOK
from lifecycle.agent.workspace import Setup

log = logging.getLogger("lifecycle.agent")

TOKEN = "IDE_GATEWAY_AGENT_TOKEN"
UPKEEP = 2.0  # seconds between two looks at the logs' sizes and the directory
JOBS = 5.0  # seconds between two looks at what works
LOCK_TRIES = 10
DRAIN = 3  # seconds that open calls get at the end


class _Server(uvicorn.Server):
    """Signals are ours: workspaces stop before the server does."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        yield


def main() -> int:
    arguments = parse()
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    token = os.environ.pop(TOKEN, "")
    if not token and not arguments.join:
        return _refuse(78, f"{TOKEN} is not set: an agent without a token would obey anybody")
    os.umask(0o077)
    _hide_memory()
    directory = arguments.dir.resolve()
    # 0711: workspaces' users pass through to their homes, and list nothing.
    directory.mkdir(mode=0o711, parents=True, exist_ok=True)
    lock = _lock(directory)
    if lock is None:
        return _refuse(75, f"another agent runs in {directory}")
    with lock:
        try:
            return _run(arguments, directory, token)
        except CannotJoin as error:
            return _refuse(77, str(error))


def _run(arguments: argparse.Namespace, directory: Path, token: str) -> int:
    place = _place(arguments)
    own = (arguments.advertise or place.host) if place else "127.0.0.1"
    host = arguments.host or own
    try:
        listener = socket.create_server((host, arguments.port), backlog=256)
    except OSError as error:
        return _refuse(69, f"cannot listen on {host}:{arguments.port}: {error.strerror}")
    with listener:
        # It listens before it joins: whoever calls at once waits instead of being turned away.
        address = f"{own}:{listener.getsockname()[1]}"
        who = Identity(arguments.machine, token, arguments.slots)
        who = identify(place, directory, address) if place else who
        found = isolation(arguments.workspace_user, directory, arguments.uid_base)
        _tell(found, arguments, who.machine_id)
        setup = Setup(
            who.machine_id, directory, who.slots, arguments.uid_base, found, host,
            joined=place is not None,
        )  # fmt: skip
        agent = Agent(setup)
        reporting = _reporting(place, who, address, agent, arguments) if place else None
        asyncio.run(_serve(agent, who.token, listener, arguments.stop_grace, reporting))
    log.info("machine %s: all stopped", who.machine_id)
    return 0


def _place(arguments: argparse.Namespace) -> Place | None:
    if arguments.join == "env":
        return by_environment(os.environ)
    return by_imds(Imds()) if arguments.join == "imds" else None


def _reporting(
    place: Place, who: Identity, address: str, agent: Agent, arguments: argparse.Namespace
) -> Reporting:
    return Reporting(
        Desk(
            place.url, who.machine_id, who.token, address, place.instance,
            lambda: agent.report(since=0, wait=0.0), place.imds,
        ),
        arguments.report_interval,
    )  # fmt: skip


async def _serve(
    agent: Agent, token: str, listener: socket.socket, grace: float, reporting: Reporting | None
) -> None:
    setup = agent.setup
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, agent.closing.set)
    await agent.recover()
    server = _Server(
        uvicorn.Config(
            create_app(agent, token),
            http=Prompt,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=DRAIN,
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    upkeep = [asyncio.create_task(each(agent)) for each in (_upkeep, _jobs, _warm)]
    if reporting is not None:
        upkeep.append(asyncio.create_task(reporting.run()))
    announcement = setup.directory / "agent.json"
    pid = os.getpid()
    port = listener.getsockname()[1]
    here = {"pid": pid, "start_time": started_at(pid), "port": port, "boot_id": agent.boot_id}
    write_json(announcement, here)
    log.info("machine %s: agent on port %d", setup.machine_id, port)
    closing = asyncio.create_task(agent.closing.wait())
    await asyncio.wait({closing, serving}, return_when=asyncio.FIRST_COMPLETED)
    log.info("machine %s: stopping", setup.machine_id)
    await agent.shut_down(grace)
    for task in (closing, *upkeep):
        task.cancel()
    server.should_exit = True
    await serving
    announcement.unlink(missing_ok=True)


async def _upkeep(agent: Agent) -> None:
    while not agent.closing.is_set():
        try:
            await agent.cap_logs()
        except OSError as error:
            log.warning("cannot cap a log: %s", error)
        if not (agent.setup.directory / "agent.lock").exists():
            log.error("%s was removed: nobody can find this agent any more", agent.setup.directory)
            agent.closing.set()
        await asyncio.sleep(UPKEEP)


async def _jobs(agent: Agent) -> None:
    while not agent.closing.is_set():
        try:
            await agent.look_for_jobs()
        except Exception:
            # A look that failed for one is not to be the last for all.
            log.exception("cannot look for jobs; next try in %ss", JOBS)
        await asyncio.sleep(JOBS)


async def _warm(agent: Agent) -> None:
    while not agent.closing.is_set():
        try:
            await agent.look_after_warm()
        except Exception:
            log.exception("cannot look after warm IDEs; next try in %ss", LOOK)
        await asyncio.sleep(LOOK)


def _lock(directory: Path) -> IO[str] | None:
    """Held as long as this process lives, however it ends; None if another one holds it."""
    file = (directory / "agent.lock").open("a")
    for _ in range(LOCK_TRIES):  # whoever only looks whether it is held, holds it for a moment
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.truncate(0)
            print(os.getpid(), file=file, flush=True)
            return file
        time.sleep(0.05)
    file.close()
    return None


def _hide_memory() -> None:
    """Keep the token, which /proc/PID/environ goes on showing, from workspaces of the same user."""
    if sys.platform == "linux":
        import ctypes

        pr_set_dumpable = 4
        ctypes.CDLL(None).prctl(pr_set_dumpable, 0, 0, 0, 0)


def _tell(found: Isolation, arguments: argparse.Namespace, machine: str) -> None:
    if found.own:
        log.info("machine %s: each workspace runs as a user of its own", machine)
    elif arguments.workspace_user == "shared":
        log.info("machine %s: workspaces run as user %d: %s", machine, os.geteuid(), found.why)
    else:
        log.warning(
            "machine %s: workspaces are NOT kept apart by users of their own, they run as user %d: %s",
            machine,
            os.geteuid(),
            found.why,
        )


def _refuse(code: int, message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m lifecycle.agent", allow_abbrev=False)
    parser.add_argument("--machine", metavar="ID")
    parser.add_argument("--join", choices=["env", "imds"], help="ask the gateway who this is")
    parser.add_argument("--dir", required=True, type=Path)
    parser.add_argument("--slots", type=int, help="workspaces it takes")
    parser.add_argument("--host", help="listen there; 127.0.0.1, or what it joins with")
    parser.add_argument("--advertise", metavar="ADDRESS", help="where the gateway reaches it")
    parser.add_argument("--port", default=0, type=int, help="0: a free one")
    parser.add_argument("--uid-base", default=200_000, type=int, metavar="UID")
    parser.add_argument("--workspace-user", default="auto", choices=["auto", "own", "shared"])
    parser.add_argument("--stop-grace", default=10.0, type=float, metavar="SECONDS")
    parser.add_argument("--report-interval", default=INTERVAL, type=float, metavar="SECONDS")
    arguments = parser.parse_args(argv)
    if bool(arguments.join) == bool(arguments.machine and arguments.slots):
        parser.error("say who it is by --machine and --slots, or let it --join")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
