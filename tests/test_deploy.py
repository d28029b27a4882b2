"""What deploy/ holds: a template that AWS would take, with the alarms that stand beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cfnlint.decode import cfn_yaml

from gateway.sources import load

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


def test_what_it_sets_is_what_the_gateway_takes(resources: dict[str, Any]) -> None:
    """Names that exist and values that go together, with what only AWS knows filled in."""
    filled = {
        "IDE_GATEWAY_DOMAIN": "ide.example.com",
        "IDE_GATEWAY_PUBLIC_URL": "https://ide.example.com",
        "IDE_GATEWAY_FLEET": "ide-gateway",
        "IDE_GATEWAY_SLOTS": "5",
        "IDE_GATEWAY_MAX_MACHINES": "20",
        "IDE_GATEWAY_STORE": "dynamodb:stack-Records-1",
        "IDE_GATEWAY_SNAPSHOTS": "s3://stack-snapshots-1/snapshots",
        "IDE_GATEWAY_WORKSPACE_DISK": "machine",
        "IDE_GATEWAY_REDIS_URL": "rediss://:token@cache.example:6379/0",
        "IDE_GATEWAY_API_KEY": "k" * 48,
        "IDE_GATEWAY_SIGNING_KEY": "s" * 64,
    }
    (task,) = of_kind(resources, "ECS::TaskDefinition")
    (container,) = task["ContainerDefinitions"]
    given = {each["Name"]: each["Value"] for each in container["Environment"]}
    names = given.keys() | {each["Name"] for each in container["Secrets"]}
    environment = {
        name: filled.get(name) or (value if isinstance(value := given[name], str) else "some-name")
        for name in names
    }
    assert filled.keys() <= names
    loaded = load({}, environment)
    assert loaded.warnings == ()
    assert (loaded.settings.pool, loaded.settings.launch_timeout) == ("ec2", 300)


def test_the_cache_forgets_nothing(resources: dict[str, Any]) -> None:
    (parameters,) = of_kind(resources, "ElastiCache::ParameterGroup")
    assert parameters["Properties"]["maxmemory-policy"] == "noeviction"
    (cache,) = of_kind(resources, "ElastiCache::ReplicationGroup")
    assert cache["TransitEncryptionEnabled"]


def test_sessions_outlast_the_load_balancers_patience(resources: dict[str, Any]) -> None:
    (balancer,) = of_kind(resources, "ElasticLoadBalancingV2::LoadBalancer")
    values = {each["Key"]: each["Value"] for each in balancer["LoadBalancerAttributes"]}
    assert values["idle_timeout.timeout_seconds"] == "4000"
    (targets,) = of_kind(resources, "ElasticLoadBalancingV2::TargetGroup")
    assert targets["HealthCheckPath"] == "/readyz"
