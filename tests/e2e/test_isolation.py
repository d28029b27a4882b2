"""An operator's own IDE, kept where only root may look, run as a Linux user of its own."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import IDE, IDE_COMMAND, IDE_FLAGS


@pytest.mark.skipif(os.geteuid() != 0, reason="users of their own need root")
async def test_a_program_in_a_closed_directory(serve: Any, client_of: Any, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    program = Path(shutil.copy(IDE, closed / "ide.py"))
    (closed / "private").write_text("of root")
    flags = [flag.replace(str(IDE), str(program)) for flag in IDE_FLAGS]
    assert IDE_COMMAND not in flags
    flags[flags.index("shared")] = "auto"
    client = client_of(await serve(*flags))

    workspace = await client.running()
    token = (await client.enter(workspace))["token"]
    _, echo = await client.ide(workspace, "GET", "/echo", token=token)
    assert json.loads(echo)["uid"] >= 200_000

    await client.api("POST", f"/api/workspaces/{workspace['workspaceId']}/stop")
    await client.becomes(workspace, "stopped")
    program.chmod(0o600)
    await client.api("POST", f"/api/workspaces/{workspace['workspaceId']}/start")
    failed = await client.becomes(workspace, "failed")
    assert failed["error"]["code"] == "isolation_impossible"
    assert f"{program}, which the workspace command names" in failed["error"]["message"]
    assert "chmod o+r" in failed["error"]["message"]
