"""A real agent in a process of its own, and a small IDE for it to run."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from lifecycle.agent import uids
from lifecycle.agent.contract import Report, StartSpec, WarmSpec, WorkspaceReport
from lifecycle.agent.processes import end, started_at
from lifecycle.agent.workspace import WorkspaceDir, load, owner_of
from lifecycle.agents import Agents
from lifecycle.model import Machine, MachineStatus

TOKEN = "token-of-the-machine"
SECRET = "secret-of-the-workspace"

_SOURCE = Path(__file__).with_name("echo_ide.py").read_text()
ECHO_IDE = f"IDE_SECRET={{secret}} {shlex.quote(sys.executable)} -c {shlex.quote(_SOURCE)} {{port}}"


def spec(epoch: int = 1, **changes: Any) -> StartSpec:
    usual = StartSpec(
        epoch=epoch,
        command=ECHO_IDE,
        secret=SECRET,
        ready_path="/",
        ready_timeout=20,
        upstream_header=f"Authorization: token {SECRET}",
    )
    return replace(usual, **changes)


def python(source: str, *words: str) -> str:
    """A workspace command that runs this source."""
    return " ".join([shlex.quote(sys.executable), "-c", shlex.quote(source), *words])


@dataclass
class LiveAgent:
    """An agent's process, its client, and shorthands for what tests do with both."""

    directory: Path
    until: Callable[..., Any]
    agents: Agents
    options: list[str] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None
    machine: Machine = field(
        default_factory=lambda: Machine("m-1", "test", MachineStatus.READY, 0, slots=2, token=TOKEN)
    )

    async def launch(
        self,
        *options: str,
        environment: dict[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        argv = [*prefix, sys.executable, "-m", "lifecycle.agent", "--machine", "m-1"]
        argv += ["--dir", str(self.directory), "--slots", "2", "--stop-grace", "3"]
        argv += [*self.options, *options]
        environment = os.environ | {"IDE_GATEWAY_AGENT_TOKEN": TOKEN} | (environment or {})
        self.directory.mkdir(exist_ok=True)
        with (self.directory / "agent.log").open("ab") as log:
            # Blocks for a millisecond; an asyncio process would end with the test's loop.
            self.process = subprocess.Popen(  # noqa: ASYNC220
                argv, env=environment, stdout=log, stderr=log
            )
        here = await self.until(self._announced, what="agent.json")
        self.machine = replace(self.machine, address=f"127.0.0.1:{here['port']}")

    def _announced(self) -> dict[str, Any] | None:
        assert self.process.poll() is None, self.agent_log()
        with contextlib.suppress(FileNotFoundError):
            here = json.loads((self.directory / "agent.json").read_text())
            return here if here["pid"] == self.process.pid else None
        return None

    def agent_log(self) -> str:
        return (self.directory / "agent.log").read_text()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def terminate(self) -> int:
        self.process.terminate()
        return self.process.wait(30)

    async def clean(self) -> None:
        """Whatever a test did: nothing of it runs afterwards."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()
        for state in (*self.directory.glob("workspaces/*/state.json"), *self._warm_states()):
            where = WorkspaceDir(self.directory, state.parent.name, state.parent.parent.name)
            saved = load(where)
            await end(owner_of(where, saved), 0)
            uids.release(where.path, saved.uid)

    def _warm_states(self) -> list[Path]:
        found = self.directory.glob("warm/*/state.json")
        return [each for each in found if not each.parent.is_symlink()]

    async def start(self, workspace: str = "demo", epoch: int = 1, **changes: Any) -> Any:
        """Start it and wait until it runs or has failed."""
        await self.agents.start(self.machine, workspace, spec(epoch, **changes))
        return await self.settled(workspace)

    async def settled(self, workspace: str = "demo") -> WorkspaceReport:
        return await self.reaches(workspace, "running", "failed", "stopped")

    async def reaches(self, workspace: str, *statuses: str) -> WorkspaceReport:
        async def row() -> WorkspaceReport | None:
            found = await self.row(workspace)
            return found if found and found.status in statuses else None

        return await self.until(row, timeout=25, what=f"{workspace} {' or '.join(statuses)}")

    async def row(self, workspace: str = "demo") -> WorkspaceReport | None:
        report = await self.agents.status(self.machine)
        return next((row for row in report.workspaces if row.workspace_id == workspace), None)

    async def keeps(self, count: int, **changes: Any) -> Report:
        """Tell it to keep warm ones, and wait until they are ready."""
        usual = WarmSpec(count, ECHO_IDE, "/", 20, "Authorization: token {secret}", ("started/*",))
        await self.agents.warm(self.machine, replace(usual, **changes))
        return await self.has_warm(count)

    async def has_warm(self, count: int) -> Report:
        async def there() -> Report | None:
            report = await self.agents.status(self.machine)
            return report if report.warm == count else None

        return await self.until(there, timeout=25, what=f"{count} warm")

    async def stop(self, workspace: str = "demo", epoch: int = 1, grace: float = 3) -> Any:
        return await self.agents.stop(self.machine, workspace, epoch, grace)

    async def ask(self, workspace: str, call: str, **words: str) -> Any:
        """Have the echo IDE do something."""
        row = await self.row(workspace)
        assert row is not None
        assert row.status == "running", row
        headers = {"Authorization": f"token {row.secret}"}
        async with aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{row.port}/{call}"
            async with session.get(url, params=words, headers=headers) as answer:
                assert answer.status == 200
                return await answer.json(content_type=None)

    def home(self, workspace: str = "demo") -> Path:
        return self.directory / "workspaces" / workspace / "home"

    def marked(self, workspace: str = "demo") -> list[int]:
        """Pids that run with the workspace's mark in their environment."""
        where = WorkspaceDir(self.directory, workspace)
        return self._marked(owner_of(where, load(where)).home)

    def warm_ones(self) -> list[int]:
        """Pids of warm IDEs that are nobody's."""
        kept = [each for each in self.directory.glob("warm/*") if not each.is_symlink()]
        return [pid for each in kept for pid in self._marked(each / "home")]

    def _marked(self, home: Path) -> list[int]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                environment = process.environ()
                mine = environment.get("IDE_GATEWAY_HOME") == str(home)
                if mine and started_at(process.pid):
                    found.append(process.pid)
        return found


@pytest.fixture
async def live(tmp_path: Path, until: Callable[..., Any]) -> AsyncIterator[LiveAgent]:
    """Not launched yet."""
    async with Agents() as agents:
        agent = LiveAgent(tmp_path.resolve() / "machine", until, agents)
        try:
            yield agent
        finally:
            await agent.clean()


@pytest.fixture
async def agent(live: LiveAgent) -> LiveAgent:
    await live.launch()
    return live


@pytest.fixture(params=["auto", "shared"])
async def each_agent(live: LiveAgent, request: pytest.FixtureRequest) -> LiveAgent:
    """Twice: with a user for each workspace where that is possible, and without."""
    live.options = ["--workspace-user", request.param]
    await live.launch()
    return live


@pytest.fixture
def make_spec() -> Callable[..., StartSpec]:
    return spec


@pytest.fixture
def runs() -> Callable[[str], str]:
    """Source code → the workspace command that runs it."""
    return python


@pytest.fixture
def secret() -> str:
    return SECRET
