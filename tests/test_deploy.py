"""What deploy/ holds: a template that AWS would take, with the alarms that stand beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cfnlint.decode import cfn_yaml

DEPLOY = Path(__file__).parents[1] / "deploy"
TEMPLATE = DEPLOY / "cloudformation.yaml"


@pytest.fixture(scope="module")
def resources() -> dict[str, Any]:
    return dict(cfn_yaml.load(str(TEMPLATE))["Resources"])


def of_kind(resources: dict[str, Any], kind: str) -> list[Any]:
    return [each["Properties"] for each in resources.values() if each["Type"] == f"AWS::{kind}"]


def test_the_template_is_valid() -> None:
    program = Path(sys.executable).with_name("cfn-lint")
    done = subprocess.run([program, TEMPLATE], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_its_alarms_are_those_of_the_file(resources: dict[str, Any]) -> None:
    def plain(alarm: Any) -> dict[str, Any]:
        kept = {k: v for k, v in alarm.items() if k not in ("AlarmName", "AlarmActions")}
        names = [each["Name"] for each in kept.get("Dimensions", ())]
        return json.loads(json.dumps({**kept, "Dimensions": names}))

    wanted = json.loads((DEPLOY / "alarms.json").read_text())
    found = of_kind(resources, "CloudWatch::Alarm")
    assert [plain(each) for each in found] == [plain(each) for each in wanted]


def test_machines_ask_for_tokens_and_their_workspaces_cannot(resources: dict[str, Any]) -> None:
    (template,) = of_kind(resources, "EC2::LaunchTemplate")
    data = template["LaunchTemplateData"]
    assert data["MetadataOptions"]["HttpTokens"] == "required"
    assert data["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
    assert "UserData" not in data, "the pool gives each launch its own"


def test_sessions_outlast_the_load_balancers_patience(resources: dict[str, Any]) -> None:
    (balancer,) = of_kind(resources, "ElasticLoadBalancingV2::LoadBalancer")
    values = {each["Key"]: each["Value"] for each in balancer["LoadBalancerAttributes"]}
    assert values["idle_timeout.timeout_seconds"] == "4000"
    (targets,) = of_kind(resources, "ElasticLoadBalancingV2::TargetGroup")
    assert targets["HealthCheckPath"] == "/readyz"
