"""The template of machines' image: what it runs is what the agent understands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from lifecycle.agent.__main__ import parse
from lifecycle.pools.local import UID_BASE

FILE = Path(__file__).parents[2] / "deploy" / "cloud-init.yaml"


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    return dict(yaml.safe_load(FILE.read_text()))


def written(template: dict[str, Any], name: str) -> str:
    (content,) = [row["content"] for row in template["write_files"] if row["path"].endswith(name)]
    return str(content)


def test_it_is_a_cloud_config(template: dict[str, Any]) -> None:
    assert FILE.read_text().startswith("#cloud-config\n")
    assert set(template) == {
        "package_update", "packages", "write_files", "runcmd", "power_state",
    }  # fmt: skip
    for row in template["write_files"]:
        assert Path(row["path"]).is_absolute()
        assert row["content"].strip()


def test_the_agents_command_line_is_one_it_takes(template: dict[str, Any]) -> None:
    unit = written(template, "ide-gateway-agent.service")
    (command,) = re.findall(r"^ExecStart=(.+)$", unit, re.MULTILINE)
    python, *words = shlex.split(command)
    assert words[:3] == ["-P", "-m", "lifecycle.agent"]
    arguments = parse(words[3:])
    assert (arguments.join, arguments.port) == ("imds", 7070)
    script = template["runcmd"][0]
    assert python.removesuffix("/bin/python") in script
    assert str(arguments.dir) in script
    assert "StandardOutput=journal" in unit


def test_workspaces_users_are_kept_from_the_metadata_service(template: dict[str, Any]) -> None:
    rules = written(template, "workspaces.nft")
    arguments = parse(["--join", "imds", "--dir", "/d"])
    assert arguments.uid_base == UID_BASE
    assert rules.count(f"meta skuid >= {arguments.uid_base} ") == 2
    assert "169.254.169.254" in rules
    assert "fd00:ec2::254" in rules
    unit = written(template, "ide-gateway-agent.service")
    assert "Requires=ide-gateway-firewall.service" in unit


def test_the_image_joins_nobody_and_holds_no_credential(template: dict[str, Any]) -> None:
    script = template["runcmd"][0]
    enabled = [line for line in script.splitlines() if "systemctl enable" in line]
    assert len(enabled) == 1
    assert "--now" not in enabled[0]
    text = FILE.read_text()
    assert not re.search(r"https?://", text), "whose registry it installs from is the operator's"
    assert not re.search(r"AKIA|AWS_SECRET|IDE_GATEWAY_(JOIN|AGENT_TOKEN)=", text)
