"""Boots that come to nothing, and IDEs that end: each with a code, a reason and a next step."""

from __future__ import annotations

import asyncio
import os
import signal
import time

from lifecycle.agent.processes import started_at


async def test_the_command_does_not_exist(agent) -> None:
    failed = await agent.start(command="no-such-ide --port {port}")
    assert (failed.status, failed.error_code) == ("failed", "command_not_found")
    assert failed.error == (
        'the IDE command "no-such-ide" was not found on machine m-1; '
        "try: pip install jupyterlab, or set --workspace-command"
    )


async def test_the_command_may_not_be_run(agent, tmp_path) -> None:
    plain = tmp_path / "plain.txt"
    plain.write_text("no program")
    failed = await agent.start(command=f"{plain} {{port}}")
    assert (failed.status, failed.error_code) == ("failed", "command_not_found")
    assert str(plain) in failed.error
    assert "Permission denied" in failed.error


async def test_a_placeholder_is_misspelt(agent) -> None:
    failed = await agent.start(command="ide --port {prot}")
    assert (failed.status, failed.error_code) == ("failed", "bad_command")
    assert "{prot} is not known; known are {host} {port}" in failed.error


async def test_it_exits_at_once(agent, runs, secret) -> None:
    source = f"import sys; print('bad config, token', '{secret}'); sys.exit(3)"
    failed = await agent.start(command=runs(source))
    assert (failed.status, failed.error_code) == ("failed", "exited")
    assert "ended before it was ready (exit code 3)" in failed.error
    assert "bad config, token [secret]" in failed.error


async def test_it_never_listens(agent, runs) -> None:
    failed = await agent.start(command=runs("import time; time.sleep(600)"), ready_timeout=0.5)
    assert (failed.status, failed.error_code) == ("failed", "not_ready")
    assert "not ready within 0.5 s (port" in failed.error
    assert "Connection refused" in failed.error
    await agent.until(lambda: not agent.marked(), what="its process gone")


async def test_it_listens_and_answers_errors_only(agent) -> None:
    wrong = "Authorization: token wrong"
    failed = await agent.start(upstream_header=wrong, ready_timeout=0.5)
    assert (failed.status, failed.error_code) == ("failed", "not_ready")
    assert "GET / answered 'HTTP/1.0 403 Forbidden'" in failed.error
    await agent.until(lambda: not agent.marked(), what="its process gone")


async def test_somebody_else_has_its_port_so_it_gets_another(agent, runs) -> None:
    source = """
import http.server, os, sys
mark = os.path.join(os.environ["HOME"], "second")
if not os.path.exists(mark):
    open(mark, "w").close()
    sys.exit("OSError: [Errno 98] Address already in use")
http.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[1]), bind="127.0.0.1")
"""
    report = await agent.start(command=runs(source, "{port}"))
    assert (report.status, report.error) == ("running", "")


async def test_the_port_is_always_taken(agent, runs) -> None:
    failed = await agent.start(command=runs("raise SystemExit('port 80 is already in use')"))
    assert (failed.status, failed.error_code) == ("failed", "exited")


async def test_a_stranger_on_the_port_never_gets_the_secret(agent, runs, secret) -> None:
    """The port accepts, but it is not the workspace that listens there."""
    got = []

    async def overhear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await reader.read(1000))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    # The IDE says which port it got, and leaves it to the test.
    source = "import sys, time; print('port', sys.argv[1], flush=True); time.sleep(600)"
    starting = asyncio.create_task(agent.start(command=runs(source, "{port}"), ready_timeout=3))

    async def port() -> int:
        if await agent.row() is None:
            return 0
        return int((await agent.agents.log(agent.machine, "demo")).partition("port ")[2] or 0)

    server = await asyncio.start_server(overhear, "127.0.0.1", await agent.until(port))
    async with server:
        failed = await starting
    assert failed.error_code == "not_ready"
    assert "belongs to another program" in failed.error
    assert got
    assert not any(secret.encode() in heard for heard in got)


async def test_a_killed_ide_is_reported_at_once(each_agent) -> None:
    agent = each_agent
    running = await agent.start()
    job = await agent.ask("demo", "spawn", detached="yes")
    began = time.monotonic()
    os.kill(running.pid, signal.SIGKILL)
    failed = await agent.reaches("demo", "failed")
    assert time.monotonic() - began < 5
    assert failed.error_code == "crashed"
    assert "ended by itself (killed by SIGKILL)" in failed.error
    assert "serving" in failed.error
    await agent.until(lambda: not started_at(job), what="its jobs gone")
    assert (await agent.start(epoch=2)).status == "running"


async def test_jobs_in_other_sessions_end_with_the_stop(each_agent) -> None:
    agent = each_agent
    await agent.start()
    jobs = [
        await agent.ask("demo", "spawn", detached="yes"),
        await agent.ask("demo", "spawn", detached="no"),
    ]
    assert all(started_at(job) for job in jobs)
    await agent.stop()
    assert [started_at(job) for job in jobs] == [0, 0]


async def test_what_ignores_sigterm_is_killed_after_the_grace(agent) -> None:
    running = await agent.start()
    await agent.ask("demo", "stubborn")
    began = time.monotonic()
    stopped = await agent.stop(grace=0.5)
    assert 0.5 <= time.monotonic() - began < 5
    assert stopped.status == "stopped"
    assert started_at(running.pid) == 0
