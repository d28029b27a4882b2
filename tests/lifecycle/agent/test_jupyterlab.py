"""The IDE of the default command, once for real: confined, behind its token, with a terminal."""

from __future__ import annotations

import importlib.util
import os

import aiohttp
import pytest

from gateway.settings import JUPYTERLAB_READS as READS
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


async def test_a_warm_jupyterlab_shows_the_files_of_whom_it_is_given_to(agent, make_spec) -> None:
    await agent.start("demo", 1)
    await agent.ask("demo", "write", name="notes.txt", text="kept")
    await agent.stop("demo", 1)
    await agent.keeps(1, command=COMMAND, ready_path="/api", ready_timeout=60, reads=READS)
    spare = agent.warm_ones()
    spec = make_spec(2, command=COMMAND, ready_path="/api", ready_timeout=60)
    await agent.agents.start(agent.machine, "demo", spec)
    running = await agent.settled()
    assert (running.status, running.warm, running.pid in spare) == ("running", True, True)

    url = f"http://127.0.0.1:{running.port}"
    headers = {"Authorization": f"token {running.secret}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.get(f"{url}/api/contents") as listed:
            assert [row["name"] for row in (await listed.json())["content"]] == ["notes.txt"]
        body = {"type": "file", "format": "text", "content": "new"}
        async with session.put(f"{url}/api/contents/new.txt", json=body) as written:
            assert written.status == 201
        assert (agent.home() / "new.txt").read_text() == "new"
        async with session.post(f"{url}/api/terminals") as opened:
            name = (await opened.json())["name"]
        path = f"{url}/terminals/websocket/{name}"
        async with session.ws_connect(path) as terminal:
            await terminal.send_json(["stdin", "cat ~/new.txt; echo; ls $PWD; id -un; exit\r"])
            seen = ""
            while "disconnect" not in seen:
                kind, *words = await terminal.receive_json(timeout=20)
                seen += words[0] if kind == "stdout" else kind
    assert "new\r\n" in seen
    assert "notes.txt" in seen
    if os.geteuid() == 0:
        assert "demo\r\n" in seen, "its user's name"
    # The next boot may be given a warm one, too: JupyterLab left nothing that it reads when it starts.
    assert [found for each in READS for found in agent.home().glob(each)] == []
    assert (await agent.stop("demo", 2, grace=10)).status == "stopped"
