"""Start-ups that cannot work: each ends with one clear line, and leaves what runs and what is kept alone.

| what is wrong                                   | where it is tested                                        |
|---|---|
| a flag: unknown, not a number, out of bounds    | gateway/test_cli.py test_a_wrong_command_line             |
| a variable or a setting's file                  | gateway/test_settings.py, test_cli.py test_a_misspelt_…   |
| settings that contradict each other             | gateway/test_settings.py test_a_contradiction_is_refused  |
| plans or prices that cannot be used             | gateway/test_fair_use.py                                  |
| a taken port                                    | gateway/test_cli.py test_a_taken_port_…; by a gateway: here |
| an address that is not ours                     | gateway/test_cli.py test_an_address_that_is_not_ours      |
| a data directory that is none                   | gateway/test_cli.py test_a_data_directory_that_cannot_…   |
| a data directory without write permission       | here                                                      |
| a data directory in use                         | gateway/test_serve.py test_a_second_one_…; with work: here |
| a Redis URL that is none                        | gateway/test_cli.py test_a_redis_that_is_no_url           |
| a Redis that refuses us, is too old, a replica  | gateway/test_valkey.py test_a_redis_that_does_not_fit_…   |
| an unreachable Redis                            | gateway/test_valkey.py the words; here the whole start    |
| a damaged append-only file                      | gateway/test_valkey.py test_a_torn_tail_…, test_a_file_…  |
| an empty key file                               | here                                                      |
| a start that fails for any other reason         | gateway/test_serve.py test_a_start_that_fails_…           |
| an IDE command that does not exist              | test_faults.py                                            |
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.harness import IDE_FLAGS

CANNOT_OBEY = 99
# Root obeys permissions as everybody does once CAP_DAC_OVERRIDE (1) has left its bounding set.
OBEY = f"""
import ctypes, os, sys
if os.geteuid() == 0 and ctypes.CDLL(None).prctl(24, 1, 0, 0, 0) != 0:
    sys.exit({CANNOT_OBEY})
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
SERVE = ("-m", "gateway", "serve")
CLEAN = {k: v for k, v in os.environ.items() if not k.startswith("IDE_GATEWAY_")}


def serve_fails(*flags: str, obeying: bool = False) -> subprocess.CompletedProcess[str]:
    """A start that ends by itself. obeying: permissions of files, root or not."""
    command = [sys.executable, *(("-c", OBEY) if obeying else ()), *SERVE, *flags]
    return subprocess.run(
        command, env=CLEAN, capture_output=True, text=True, timeout=30, check=False
    )


def test_an_unreachable_redis(tmp_path: Path, unused: int) -> None:
    url = f"redis://:hunter2@127.0.0.1:{unused}"
    data = tmp_path / "data"
    result = serve_fails("--port", "0", "--data-dir", str(data), "--redis-url", url)
    assert result.returncode == 69
    assert result.stderr == (
        f"error: cannot reach Redis at redis://127.0.0.1:{unused}"
        " (connection refused, 5 tries in 10 s)\n"
        "  set by --redis-url; leave it out to use the embedded Valkey\n"
    )
    assert "hunter2" not in result.stdout
    assert list(data.iterdir()) == [], "no key was made, nothing was started"


@pytest.fixture
def unused() -> Iterator[int]:
    """A port that refuses: bound, so that nobody else takes it, and not listened on."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def test_a_data_directory_without_write_permission(tmp_path: Path) -> None:
    kept = tmp_path / "kept.txt"
    kept.write_text("kept")
    tmp_path.chmod(0o555)
    try:
        for data in (tmp_path, tmp_path / "below"):
            result = serve_fails("--port", "0", "--data-dir", str(data), obeying=True)
            if result.returncode == CANNOT_OBEY:
                pytest.skip("root without the right to drop its capabilities may write everywhere")
            assert result.returncode == 78
            assert result.stderr == (
                f"error: cannot write to the data directory {data} (permission denied)\n"
                "  set by --data-dir; try: ide-gateway serve --data-dir DIRECTORY\n"
            )
    finally:
        tmp_path.chmod(0o755)
    assert list(tmp_path.iterdir()) == [kept]


def test_an_empty_key_file(tmp_path: Path) -> None:
    """It must not become a key that everybody has."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "api-key").touch()
    result = serve_fails("--port", "0", "--data-dir", str(data))
    assert result.returncode == 78
    assert result.stderr == (
        f"error: {data}/api-key is empty\n  remove it and a new one is made: {data}/api-key\n"
    )
    # Valkey was started before; it has been stopped.
    assert not [p for p in psutil.process_iter() if str(data) in working_directory(p)]


def working_directory(process: psutil.Process) -> str:
    try:
        return str(process.cwd())
    except psutil.Error:
        return ""


async def test_a_second_start_leaves_the_first_and_its_workspaces_alone(
    serve: Any, client_of: Any, tmp_path: Path
) -> None:
    gateway = await serve(*IDE_FLAGS)
    client = client_of(gateway)
    workspace = await client.running()
    token = (await client.enter(workspace))["token"]
    port, pid = str(gateway.port), gateway.process.pid

    same_port = serve_fails("--port", port, "--data-dir", str(tmp_path / "other"))
    assert same_port.returncode == 75
    assert f"port {port} is already in use on 127.0.0.1 (pid {pid}, " in same_port.stderr
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["lock"]

    same_data = serve_fails("--port", "0", "--data-dir", str(gateway.data_dir))
    assert same_data.returncode == 75
    assert f"another gateway serves {gateway.data_dir} (pid {pid})" in same_data.stderr

    async with client.websocket(workspace, token=token) as ws:
        await ws.send("still here")
        assert await ws.recv() == "still here"
    record = await client.status(workspace)
    assert (record["status"], record["epoch"]) == ("running", 1)
    assert (gateway.data_dir / "url").read_text() == f"{gateway.url}\n"
