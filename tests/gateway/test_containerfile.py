"""deploy/Containerfile names files, programs, flags and settings: those that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from gateway.settings import Settings

ROOT = Path(__file__).parents[2]
STAGES = {
    text.split()[0]: text.partition("\n")[2]
    for text in re.split(r"^FROM \S+ AS ", (ROOT / "deploy" / "Containerfile").read_text(), flags=re.M)[1:]
}  # fmt: skip


def command(stage: str) -> list[str]:
    """What the container runs, after tini."""
    text = STAGES[stage]
    entry = json.loads(re.search(r"^ENTRYPOINT (.*)$", text, re.M)[1])
    assert entry[:2] == ["tini", "--"]
    return [*entry[2:], *json.loads(re.search(r"^CMD (.*)$", text, re.M)[1])]


def test_everything_that_is_copied_is_there() -> None:
    copied = [word for row in re.findall(r"^COPY (.*) \S+$", STAGES["base"], re.M) for word in row.split()]  # fmt: skip
    assert copied
    assert all((ROOT / name).exists() for name in copied)
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = packages["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {name.rstrip("*") for name in wanted} <= set(copied)


def test_the_extras_that_are_installed_exist() -> None:
    extras = re.search(r"pip install '\.\[(.*)\]' -c constraints\.txt", STAGES["base"])[1]
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras.split(",")) <= known.keys()


def test_the_gateway_is_not_root_and_the_agent_is() -> None:
    assert re.findall(r"^USER (.*)$", STAGES["gateway"], re.M) == ["10001:10001"]
    assert re.findall(r"^USER (.*)$", STAGES["agent"], re.M) == ["root"]


def test_the_gateways_variables_are_settings() -> None:
    named = dict(re.findall(r"IDE_GATEWAY_(\w+)=(\S+)", STAGES["gateway"]))
    assert named
    Settings(**{name.lower(): value for name, value in named.items()})
    assert command("gateway") == ["ide-gateway", "serve"]
    assert shutil.which("ide-gateway", path=str(Path(sys.executable).parent))


def test_the_agent_takes_its_flags_and_asks_for_what_the_pool_gives_it(tmp_path: Path) -> None:
    argv = command("agent")
    argv = [sys.executable if word == "python" else word for word in argv]
    argv = [str(tmp_path) if word == "/var/lib/ide-gateway" else word for word in argv]
    argv[argv.index("7070")] = "0"
    done = subprocess.run(
        argv, env={"PATH": "/usr/bin:/bin"}, cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode not in (0, 2), done.stderr  # 2: argparse does not know it
    assert "IDE_GATEWAY_" in done.stderr
