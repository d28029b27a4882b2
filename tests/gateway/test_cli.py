"""The command line as a person meets it: help, errors and exit codes word for word, and the client commands."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from gateway.client import duration, event_line, table, why
from gateway.declaring import moment
from gateway.declaring import table as peaks_table


def ide_gateway(*arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run to its end in a clean environment. As a pipe: no colours."""
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.getcwd(), **environ},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_help_names_the_commands_and_hides_the_worker(tmp_path: Path) -> None:
    result = ide_gateway("--help", cwd=tmp_path)
    assert result.returncode == 0
    words = [line.split()[0] for line in result.stdout.partition("Commands:")[2].splitlines()[1:]]
    assert words == [
        "events",
        "ls",
        "open",
        "peak",
        "peaks",
        "serve",
        "settings",
        "simulate",
        "start",
        "stop",
        "why",
    ]
    assert "..." not in result.stdout.partition("Commands:")[2]


def test_help_of_serve_has_every_flag_with_variable_and_default(tmp_path: Path) -> None:
    text = " ".join(ide_gateway("serve", "--help", cwd=tmp_path).stdout.split())
    assert (
        "--idle-timeout SECONDS Without activity for this long: stop, in seconds."
        " [IDE_GATEWAY_IDLE_TIMEOUT; default: 3600]"
    ) in text
    assert "--lifecycle [on|off]" in text
    assert "--api-key " not in text
    assert "IDE_GATEWAY_API_KEY_FILE" in text


def test_help_and_ls_start_without_what_only_serve_needs(tmp_path: Path) -> None:
    heavy = "{'uvicorn', 'redis', 'psutil', 'structlog', 'aiohttp', 'starlette'}"
    code = (
        "import sys, runpy, atexit\n"
        f"atexit.register(lambda: print('heavy:', sorted({heavy} & set(sys.modules))))\n"
        "sys.argv[0] = 'ide-gateway'\n"
        "runpy.run_module('gateway', run_name='__main__')\n"
    )
    for arguments in (["--help"], ["ls", "--url", "http://127.0.0.1:1"]):
        result = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=tmp_path,
            env={"PYTHONPATH": os.getcwd(), "IDE_GATEWAY_API_KEY": "k"},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert "heavy: []" in result.stdout, result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["serve", "--slot", "1"], 2, "Error: No such option '--slot'."),
        (["serv"], 2, "Error: No such command 'serv'. Did you mean 'serve'?"),
        (["serve", "--port", "x"], 2, "Invalid value for '--port': 'x' is not a valid integer."),
        (["serve", "--lifecycle", "maybe"], 2, "'maybe' is not one of 'on', 'off'."),
        (
            ["serve", "--slots", "0"],
            78,
            "error: slots = '0' (flag --slots): must be greater than or equal to 1\n",
        ),
        (["serve", "--config", "none.toml"], 78, "cannot read the settings file none.toml"),
        (["serve", "--ping-interval", "90"], 78, "must be below --session-timeout 90"),
    ],
)
def test_a_wrong_command_line(tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    result = ide_gateway(*arguments, cwd=tmp_path)
    assert result.returncode == code
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_traceback_needs_the_flag(tmp_path: Path) -> None:
    result = ide_gateway("settings", "-v", "--slots", "0", cwd=tmp_path)
    assert "Traceback" in result.stderr
    assert "ConfigurationError" in result.stderr


def test_a_misspelt_variable_is_warned_about(tmp_path: Path) -> None:
    result = ide_gateway("settings", cwd=tmp_path, IDE_GATEWAY_IDEL_TIMEOUT="3")
    assert result.returncode == 0
    assert result.stderr == (
        "warning: unknown setting IDE_GATEWAY_IDEL_TIMEOUT;"
        " did you mean IDE_GATEWAY_IDLE_TIMEOUT?\n"
    )


def test_settings_shows_values_and_sources(tmp_path: Path) -> None:
    (tmp_path / "ide.toml").write_text("retention = 60\n")
    environ = {"IDE_GATEWAY_SLOTS": "2", "IDE_GATEWAY_API_KEY": "hunter2hunter2"}
    arguments = ["settings", "--config", "ide.toml", "--idle-timeout", "5"]
    result = ide_gateway(*arguments, cwd=tmp_path, **environ)
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in result.stdout.splitlines()}
    assert lines["port"] == "8000 (default)"
    assert lines["slots"] == "2 (environment IDE_GATEWAY_SLOTS)"
    assert lines["idle_timeout"] == "5 (flag --idle-timeout)"
    assert lines["retention"] == "60 (file ide.toml)"
    assert lines["api_key"] == "(set) (environment IDE_GATEWAY_API_KEY)"
    assert lines["redis_url"] == "- (default)"
    assert "hunter2" not in result.stdout
    as_json = json.loads(ide_gateway(*arguments, "--json", cwd=tmp_path, **environ).stdout)
    assert as_json["slots"] == {"value": 2, "source": "environment IDE_GATEWAY_SLOTS"}
    assert as_json["idle_timeout"]["value"] == 5.0
    assert as_json["api_key"]["value"] == "(set)"


def test_a_taken_port_changes_nothing_and_names_its_owner(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = ide_gateway("serve", "--port", str(port), cwd=tmp_path)
    assert result.returncode == 75
    first, second = result.stderr.splitlines()
    assert first.startswith(
        f"error: port {port} is already in use on 127.0.0.1 (pid {os.getpid()}, "
    )
    assert second.startswith("  try: ide-gateway serve --port ")
    assert not (tmp_path / ".ide-gateway" / "redis").exists()


def test_an_address_that_is_not_ours(tmp_path: Path) -> None:
    result = ide_gateway("serve", "--host", "192.0.2.1", "--port", "0", cwd=tmp_path)
    assert result.returncode == 78
    assert "cannot listen on 192.0.2.1" in result.stderr


def test_a_data_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = ide_gateway("serve", cwd=tmp_path, IDE_GATEWAY_DATA_DIR="file/data")
    assert result.returncode == 78
    assert result.stderr == (
        "error: cannot write to the data directory file/data (not a directory)\n"
        "  set by IDE_GATEWAY_DATA_DIR; try: ide-gateway serve --data-dir DIRECTORY\n"
    )


def test_a_redis_that_is_no_url(tmp_path: Path) -> None:
    result = ide_gateway(
        "serve", "--port", "0", cwd=tmp_path, IDE_GATEWAY_REDIS_URL="redis://:hunter2@h:99999"
    )
    assert result.returncode == 78
    assert "is no Redis URL" in result.stderr
    assert "set by IDE_GATEWAY_REDIS_URL" in result.stderr
    assert "hunter2" not in result.stderr + result.stdout


class Api(BaseHTTPRequestHandler):
    """A gateway's REST API, as far as the client commands use it."""

    calls: ClassVar[list[tuple[str, str, str]]] = []
    row: ClassVar[dict[str, Any]] = {
        "workspaceId": "demo",
        "userId": "ada\x1b[2J",
        "status": "queued",
        "instanceId": None,
        "queue": {"position": 3, "etaSeconds": 40},
        "url": "http://demo.localhost:8000",
    }

    peak: ClassVar[dict[str, Any]] = {
        "name": "exam", "at": 1_796_112_000_000, "users": 3000, "earlySeconds": 600, "lateSeconds": 1800,
        "state": "ahead", "source": "api", "heldSlots": 1250, "notice": "3,000 people need too much",
    }  # fmt: skip

    def do_GET(self) -> None:
        if self.headers["Authorization"] != "Bearer good-key":
            return self._answer(401, {"error": {"code": "unauthorized", "message": "wrong key"}})
        if self.path == "/api/workspaces":
            return self._answer(200, [self.row])
        if self.path == "/api/workspaces?userId=a%2Bb":
            return self._answer(200, [])
        if self.path == "/api/peaks":
            return self._answer(200, [self.peak])
        if self.path == "/api/workspaces/demo/activity":
            return self._answer(200, {"text": "Running for 5 min; alive because of input."})
        event = {"id": "5-0", "type": "workspace.running", "at": 5, "workspaceId": "demo"}
        if "text/event-stream" in self.headers["Accept"]:
            return self._send(200, b": hello\n\ndata: " + json.dumps(event).encode() + b"\n\n")
        return self._answer(200, [event])

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.calls.append((self.path, body, self.headers["Content-Type"]))
        if self.path == "/api/peaks":
            return self._answer(200, {**self.peak, **json.loads(body)})
        known = self.path in ("/api/workspaces", "/api/workspaces/demo/start")
        if self.path.endswith("/enter"):
            return self._answer(200, {"url": "http://demo.localhost:8000/_gateway/enter?code=c"})
        if self.path.endswith("busy/stop"):
            problem = {"code": "redis_unavailable", "message": "Redis is away", "retryAfter": 5}
            return self._answer(503, {"error": problem})
        if not known:
            problem = {"code": "not_found", "message": "there is no such workspace"}
            return self._answer(404, {"error": problem})
        return self._answer(202, self.row)

    def do_DELETE(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.calls.append((self.path, "", ""))
        if self.path == "/api/peaks/exam":
            return self._answer(200, self.peak)
        problem = {"code": "not_found", "message": "there is no such peak"}
        return self._answer(404, {"error": problem})

    def _answer(self, status: int, content: object) -> None:
        self._send(status, json.dumps(content).encode())

    def _send(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def api(tmp_path: Path) -> Iterator[str]:
    """URL of a running one, whose address and key are in a data directory."""
    Api.calls.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        data_dir = tmp_path / ".ide-gateway"
        data_dir.mkdir()
        (data_dir / "url").write_text(url + "\n")
        (data_dir / "api-key").write_text("good-key\n")
        yield url
        server.shutdown()
        thread.join()


def test_ls(tmp_path: Path, api: str) -> None:
    result = ide_gateway("ls", cwd=tmp_path)
    assert result.stderr == ""
    head, row = result.stdout.splitlines()
    assert head == "WORKSPACE  USER        STATUS  MACHINE  IDLE  STOPS IN  ALIVE BECAUSE"
    assert row.split() == ["demo", "ada\\x1b[2J", "queued", "-", "-", "-", "-"]
    assert json.loads(ide_gateway("ls", "-o", "json", cwd=tmp_path).stdout) == [Api.row]
    assert ide_gateway("ls", "--user", "a+b", cwd=tmp_path).stdout.count("\n") == 1


def test_start_takes_a_workspace_or_a_user(tmp_path: Path, api: str) -> None:
    result = ide_gateway("start", "demo", "ada", "a.b@c", cwd=tmp_path)
    line = "demo  queued  place 3, about 40s  http://demo.localhost:8000\n"
    assert result.stdout == 3 * line
    assert Api.calls == [
        ("/api/workspaces/demo/start", "{}", "application/json"),
        ("/api/workspaces/ada/start", "{}", "application/json"),
        ("/api/workspaces", '{"userId": "ada"}', "application/json"),
        ("/api/workspaces", '{"userId": "a.b@c"}', "application/json"),
    ]


def test_open_and_events(tmp_path: Path, api: str) -> None:
    opened = ide_gateway("open", "demo", cwd=tmp_path)
    assert opened.stdout == "http://demo.localhost:8000/_gateway/enter?code=c\n"
    for arguments in (["events"], ["events", "--follow"]):
        line = ide_gateway(*arguments, cwd=tmp_path).stdout
        assert line.split()[-2:] == ["workspace.running", "workspaceId=demo"]
    assert json.loads(ide_gateway("events", "-o", "json", cwd=tmp_path).stdout)["id"] == "5-0"


def test_what_the_gateway_refuses_is_said_in_its_words(tmp_path: Path, api: str) -> None:
    missing = ide_gateway("stop", "x/../y", cwd=tmp_path)
    assert missing.returncode == 1
    assert missing.stderr == (
        "error: there is no such workspace (not_found)\n  see them all: ide-gateway ls\n"
    )
    assert Api.calls[-1][0] == "/api/workspaces/x%2F..%2Fy/stop"
    busy = ide_gateway("stop", "busy", cwd=tmp_path)
    assert busy.returncode == 75
    assert busy.stderr == "error: Redis is away (redis_unavailable)\n  try again in 5 s\n"
    wrong = ide_gateway("ls", cwd=tmp_path, IDE_GATEWAY_API_KEY="bad-key")
    assert wrong.returncode == 78
    assert "does not accept the API key (wrong key)" in wrong.stderr
    assert "environment IDE_GATEWAY_API_KEY" in wrong.stderr
    assert "bad-key" not in wrong.stderr


def test_without_a_gateway(tmp_path: Path) -> None:
    nothing = ide_gateway("ls", cwd=tmp_path)
    assert nothing.returncode == 78
    assert nothing.stderr.startswith("error: there is no API key: .ide-gateway/api-key is missing")
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}"
    silent = ide_gateway("ls", "--url", url, cwd=tmp_path, IDE_GATEWAY_API_KEY="k")
    assert silent.returncode == 69
    assert silent.stderr == (
        f"error: no gateway answers at {url} (connection refused)\n"
        "  start it with: ide-gateway serve, or name another with --url\n"
    )


def test_the_table_of_ls() -> None:
    row = {
        "workspaceId": "demo",
        "userId": "ada",
        "status": "running",
        "instanceId": "m-1",
        "lastActiveAt": 1_000_000,
        "stopsAt": 1_000_000 + 3_600_000,
        "aliveBecause": "input, 12s ago",
    }
    assert table([row], now_ms=1_012_000) == [
        "WORKSPACE  USER  STATUS   MACHINE  IDLE  STOPS IN  ALIVE BECAUSE",
        "demo       ada   running  m-1      12s   59m48s    input, 12s ago",
    ]
    failed = {"workspaceId": "w", "status": "failed", "error": {"code": "x", "message": "no disk"}}
    assert table([failed], now_ms=0)[1].split() == ["w", "-", "failed", "-", "-", "-", "no", "disk"]


def test_why(tmp_path: Path, api: str) -> None:
    result = ide_gateway("why", "demo", cwd=tmp_path)
    assert result.stdout == "Running for 5 min; alive because of input.\n"
    row = {
        "text": "Running\x1b[2J",
        "signals": [
            {"kind": "input", "secondsAgo": 12, "source": "a tab", "counts": True},
            {"kind": "frames", "secondsAgo": 90, "source": None, "counts": False},
        ],
        "next": [
            {"what": "stop", "at": 61_000, "unless": "there is activity"},
            {"what": "terminate", "at": None, "unless": None},
        ],
    }
    assert why(row, now_ms=1_000) == [
        "Running\\x1b[2J",
        "",
        "SIGNAL  SEEN       COUNTS  FROM",
        "input   12s ago    yes     a tab",
        "frames  1m30s ago  no      -",
        "next: stop in 1m00s, unless there is activity",
        "next: terminate",
    ]


def test_durations() -> None:
    spoken = [duration(seconds) for seconds in (-1, 0, 12.9, 3588, 11_100, 187_200)]
    assert spoken == ["0s", "0s", "12s", "59m48s", "3h05m", "2d04h"]


def test_an_event_is_one_line_whatever_is_in_it() -> None:
    event = {"type": "workspace.failed", "at": 0, "reason": "a\nb", "data": {"x": "\x1b[2J"}}
    assert event_line(event).endswith("workspace.failed        reason=a\\nb x=\\x1b[2J")


def test_peaks_are_listed_declared_and_removed(tmp_path: Path, api: str) -> None:
    listed = ide_gateway("peaks", cwd=tmp_path, TZ="UTC").stdout.splitlines()
    assert " ".join(listed[0].split()) == "PEAK AT IN USERS HELD FROM UNTIL DECLARED BY"
    assert listed[1].startswith("exam  2026-12-01 08:00  ")
    assert listed[1].split()[-5:] == ["3,000", "1,250", "07:50", "08:30", "api"]
    assert listed[2] == "! exam: 3,000 people need too much"
    assert json.loads(ide_gateway("peaks", "-o", "json", cwd=tmp_path).stdout) == [Api.peak]

    at = "2026-12-01T09:00+01:00"
    added = ide_gateway("peak", "add", "exam", at, "3000", "--early", "60", cwd=tmp_path, TZ="UTC")
    assert "07:59" in added.stdout.splitlines()[1]
    assert ide_gateway("peak", "rm", "exam", cwd=tmp_path).stdout == ""
    body = {"name": "exam", "at": 1_796_112_000_000, "users": 3000, "earlySeconds": 60.0}
    assert [(path, json.loads(sent or "null")) for path, sent, _ in Api.calls] == [
        ("/api/peaks", body),
        ("/api/peaks/exam", None),
    ]
    gone = ide_gateway("peak", "rm", "quiz", cwd=tmp_path)
    assert gone.returncode == 1
    assert gone.stderr == (
        "error: there is no such peak (not_found)\n  see them all: ide-gateway peaks\n"
    )
    wrong = ide_gateway("peak", "add", "exam", "tomorrow", "5", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "'tomorrow' is no time: give one such as 2026-12-01T09:00," in wrong.stderr


def test_a_time_as_people_type_it() -> None:
    now = datetime(2026, 11, 30, 12, 0).astimezone()
    assert moment("2026-12-01T09:00", now) == datetime(2026, 12, 1, 9).astimezone()
    assert moment("2026-12-01 09:00", now) == datetime(2026, 12, 1, 9).astimezone()
    assert moment("2026-12-01T09:00+02:00", now).astimezone(UTC).hour == 7
    assert moment("2026-12-01T09:00Z", now).astimezone(UTC).hour == 9
    assert moment("13:30", now) == datetime(2026, 11, 30, 13, 30).astimezone()
    assert moment("9:00", now) == datetime(2026, 12, 1, 9).astimezone(), "the next one"
    for wrong in ("nine", "25:00", "", "2026-13-01T09:00", "900"):
        with pytest.raises(ValueError, match="is no time: give one such as"):
            moment(wrong, now)


def test_the_table_of_peaks() -> None:
    row = {
        "name": "lecture", "at": 60_000_000, "users": 5, "earlySeconds": 0, "lateSeconds": 60,
        "state": "open", "source": "file", "cron": "0 9 * * *", "timeZone": "UTC\x1b", "heldSlots": None,
    }  # fmt: skip
    assert peaks_table([], 0) == ["PEAK  AT  IN  USERS  HELD  FROM  UNTIL  DECLARED BY"]
    (line,) = peaks_table([row], 0)[1:]
    assert line.endswith("file (0 9 * * * UTC\\x1b)")
    assert line.split()[3:6] == ["now", "5", "-"]
