"""Every flag, variable, path, Redis key, event, metric and file that a page names is there."""

from __future__ import annotations

import inspect
import re
from functools import cache
from pathlib import Path

import pytest

from gateway import flags
from gateway.__main__ import cli
from gateway.api import operations
from gateway.metrics import Metrics
from gateway.settings import SECRETS, Settings
from lifecycle.model import MachineStatus, WorkspaceStatus
from lifecycle.stores import keys

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]

OTHERS_EVENTS = {"events.reset"}
"""Told by a stream of events itself."""

KEY_OF = {
    **{name: value for name, value in vars(keys).items() if name.isupper()},
    **{
        name: build("{x}")
        for name, build in vars(keys).items()
        if inspect.isfunction(build) and build.__module__ == keys.__name__
    },
}
"""Constant or function of keys.py → the key, with {x} for what differs."""


def text(page: str) -> str:
    return (ROOT / page).read_text()


def inline(page: str) -> list[str]:
    """What stands in backticks outside of blocks of code."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text(page), flags=re.DOTALL))


def commands(page: str) -> list[str]:
    """Commands of ours in blocks of code, without what was broken over lines."""
    blocks = "\n".join(re.findall(r"```.*?```", text(page), flags=re.DOTALL)).replace("\\\n", " ")
    ours = re.findall(r"(?:ide-gateway \w+|make serve ARGS=).*", blocks)
    return [re.sub(r"'[^']*'", "", command) for command in ours]  # what an IDE is called with


@cache
def source() -> str:
    files = [path for top in ("gateway", "lifecycle") for path in (ROOT / top).rglob("*.py")]
    return "\n".join(path.read_text() for path in sorted(files))


def template(key: str) -> str:
    """user:{id}:workspaces → user:{x}:workspaces"""
    return re.sub(r"\{[^}]*\}", "{x}", key)


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_is_there(page: str) -> None:
    said = inline(page)
    options = {
        name
        for command in cli.commands.values()
        for one in (command, *getattr(command, "commands", {}).values())
        for option in one.params
        for name in option.opts
    }
    options |= {f"--{option.name}".replace("_", "-") for option in flags.options()}
    benchmarks = "".join(path.read_text() for path in (ROOT / "bench").glob("*.py"))
    options |= set(re.findall(r'"(--[a-z-]+)"', benchmarks))
    wanted = [
        flag
        for one in [*(word for word in said if word.startswith("--")), *commands(page)]
        for flag in re.findall(r"(?:^|[\s\"])(--[a-z][a-z-]+)", one)
    ]
    assert [flag for flag in wanted if flag not in options] == []

    variables = {f"IDE_GATEWAY_{name.upper()}" for name in (*Settings.model_fields, "config")}
    variables |= {f"IDE_GATEWAY_{name.upper()}_FILE" for name in SECRETS}
    variables |= set(re.findall(r"\bIDE_GATEWAY_[A-Z_]+\b", source()))  # the agent's, the commands'
    named = re.findall(r"\bIDE_GATEWAY_[A-Z_]*[A-Z]\b", text(page))
    assert [name for name in named if name not in variables] == []

    paths = [re.sub(r"\{\w+\}", "[^/]+", operation.path) for operation in operations()]
    calls = re.findall(r"/api/[\w/{}.…-]*[\w}…]", text(page))
    assert [call for call in calls if not any(re.fullmatch(path, call) for path in paths)] == []

    metrics = {row.name for row in Metrics().registry.collect()}
    told = re.findall(r"\bide_gateway_[a-z_]+", text(page))
    assert [name for name in told if not any(name.startswith(row) for row in metrics)] == []

    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text(page)) if "://" not in link]
    links = [link for link in links if not (ROOT / page).parent.joinpath(link).exists()]
    files = [word for word in said if re.fullmatch(r"(deploy|docs|gateway|lifecycle|tests)/[\w./-]+", word)]  # fmt: skip
    assert links + [name for name in files if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_the_events_of_a_page_happen(page: str) -> None:
    happen = {f"workspace.{status}" for status in WorkspaceStatus}
    happen |= {f"machine.{status}" for status in MachineStatus} | OTHERS_EVENTS
    named = re.findall(
        r"[`\"]((?:workspace|machine|session|gateway|lease|pool|store|quota|heartbeats|snapshot)\.[a-z_]+)[`\"]",
        text(page),
    )
    written = re.findall(r"[\"']([a-z]+\.[a-z_]+)[\"']", source())
    assert {name for name in named if not name.endswith(".py")} <= {*written, *happen}


# The tables of docs/architecture.md


def rows(heading: str) -> list[list[str]]:
    """First cells of the tables below a heading, as what they hold in backticks."""
    section = text("docs/architecture.md").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [re.findall(r"`([^`]+)`", line.split(" | ")[0]) for line in lines]


def test_every_redis_key_has_a_row() -> None:
    told = {template(key) for row in rows("Redis") for key in row}
    assert {name: key for name, key in KEY_OF.items() if key not in told} == {}


def test_every_row_is_of_a_key_that_is_written() -> None:
    """By keys.py, or by a script that spells it: 'user:' .. user .. ':noticed'."""
    spelled = re.sub(r"' \.\. [^']+? \.\. '", "{x}", source())
    spelled = re.sub(r"' \.\. [\w.\[\]]+", "{x}'", spelled)
    known = {*KEY_OF.values(), *re.findall(r"['\"]([a-z]+(?::[a-z{}]+)+)['\"]", spelled)}
    told = [template(key) for row in rows("Redis") for key in row]
    assert [key for key in told if key not in known] == []
    assert len(told) == len(set(told)), "a key has two rows"


def test_every_event_has_a_row() -> None:
    told = {name for row in rows("Events") for name in row}
    scripts = "".join(path.read_text() for path in (ROOT / "lifecycle/stores/scripts").glob("*.py"))
    written = set(re.findall(r"\b(?:event|say|tell)\((?:id, )?'(\w+\.\w+)'", scripts))
    written |= set(re.findall(r"\b(?:note|_?tell)\(\s*(?:[\w.]+,\s*)?\"(\w+\.\w+)\"", source()))
    written |= {f"workspace.{status}" for status in WorkspaceStatus}
    written |= {f"machine.{status}" for status in MachineStatus}
    assert len(written) > 40
    assert written - told == set()
