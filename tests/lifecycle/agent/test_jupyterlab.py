"""The IDE of the default command, once for real: confined, behind its token, with a terminal."""

from __future__ import annotations

import importlib.util
import os

import aiohttp
import pytest

from lifecycle.agent.disk import SEEN

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("jupyterlab") is None, reason="jupyterlab is missing"
)

COMMAND = (
    "JUPYTER_TOKEN={secret} jupyter lab --no-browser --ip=127.0.0.1 --port={port} "
    "--ServerApp.port_retries=0 --ServerApp.base_url={base_url} --ServerApp.root_dir={dir}"
)


async def test_jupyterlab_starts_and_opens_a_terminal(agent, make_spec, secret) -> None:
    spec = make_spec(1, command=COMMAND, ready_path="/api", ready_timeout=60)
    await agent.agents.start(agent.machine, "demo", spec)

    async def settled():
        row = await agent.row()
        return row if row.status in ("running", "failed") else None

    running = await agent.until(settled, timeout=90)
    assert (running.status, running.error) == ("running", "")
    address = f"127.0.0.1:{running.port}"
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://{address}/api/contents") as closed:
            assert closed.status == 403
        headers = {"Authorization": f"token {secret}"}
        async with session.post(f"http://{address}/api/terminals", headers=headers) as opened:
            name = (await opened.json())["name"]
        path = f"http://{address}/terminals/websocket/{name}"
        async with session.ws_connect(path, headers=headers) as terminal:
            await terminal.send_json(["stdin", "echo $((6*7)) $HOME $USER\r"])
            seen = ""
            home = SEEN / "home" if os.geteuid() == 0 else agent.home()
            while f"42 {home} demo" not in seen:
                kind, *words = await terminal.receive_json(timeout=20)
                seen += words[0] if kind == "stdout" else ""
    jobs = agent.marked()
    assert len(jobs) >= 2, "the server and the shell"
    assert (await agent.stop("demo", 1, grace=10)).status == "stopped"
    assert agent.marked() == []
