"""docs/logs.md promises fields and events to queries: a program that writes a log keeps the promise."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from lifecycle.model import MachineStatus, WorkspaceStatus

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "logs.md").read_text()

WRITES = """
import logging, structlog
from gateway.logs import configure
configure("info", "auto")
log = structlog.get_logger("lifecycle.loops")
log.info("machine.lost", machine="m-1", reason="a\\nb\\u2028c")
logging.getLogger("botocore").warning("%s", "line one\\nline two")
try:
    raise ValueError("no\\nroom")
except ValueError:
    log.exception("loop.failed", tick="look", next_try_s=2.0)
"""


def table(heading: str) -> list[str]:
    """Names in the first column of the first table after those words."""
    part = PAGE.split(heading)[1].split("|---|---|")[1].split("\n\n")[0]
    return [name for row in part.splitlines() for name in re.findall(r"`(\w+)`", row.split(" | ")[0])]  # fmt: skip


def test_a_line_is_one_json_object_with_these_fields() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITES], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )  # fmt: skip
    records = [json.loads(line) for line in done.stderr.splitlines()]
    assert [record["event"] for record in records] == [
        "machine.lost",
        "line one\nline two",
        "loop.failed",
    ]
    always = table("In every line:")
    assert always == ["timestamp", "level", "event", "logger"]
    assert all(set(always) <= record.keys() for record in records)
    form = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"
    assert all(re.fullmatch(form, record["timestamp"]) for record in records)
    assert [record["level"] for record in records] == ["info", "warning", "error"]
    assert records[0]["reason"] == "a\nb\u2028c"
    assert "ValueError: no\nroom" in records[2]["exception"]
    assert records[2]["next_try_s"] == 2.0


def test_fields_that_are_promised_are_written_somewhere() -> None:
    sources = "".join(path.read_text() for path in _sources())
    for name in table("Where they apply:"):
        assert name == "exception" or re.search(rf"\b{name}\s*=|['\"]{name}['\"]", sources), name


def test_events_that_queries_ask_for_are_written() -> None:
    asked = {
        name
        for line in re.findall(r"event (?:=|in) (.*)", PAGE)
        for name in re.findall(r'"([a-z_]+\.[a-z_]+)"', line)
    }
    told = {f"workspace.{status}" for status in WorkspaceStatus}
    told |= {f"machine.{status}" for status in MachineStatus}
    for path in _sources():
        told |= set(re.findall(r"""["']([a-z_]+\.[a-z_]+)["']""", path.read_text()))
    assert len(asked) > 8
    assert asked <= told


def _sources() -> list[Path]:
    return [path for top in ("gateway", "lifecycle") for path in (ROOT / top).rglob("*.py")]
