"""The Grafana dashboard and the alert rules speak of metrics that there are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.metrics import Metrics

DEPLOY = Path(__file__).parents[2] / "deploy"
NAME = re.compile(r"\b[a-z_]*ide_gateway_[a-z_]+\b")


def known() -> set[str]:
    """Every series a gateway can show, also those without a value yet."""
    names = set()
    for family in Metrics("1").registry.collect():
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
        names |= {family.name + suffix for suffix in suffixes.get(family.type, [""])}
    return names


def grafana() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    return found


def rules() -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"]:
        yield from group["rules"]


def test_every_metric_is_one_of_ours() -> None:
    told = [target["expr"] for panel in grafana()["panels"] for target in panel["targets"]]
    told += [rule["expr"] for rule in rules()]
    used = {name for expr in told for name in NAME.findall(expr)}
    assert all(NAME.search(expr) for expr in told)
    assert used - known() == set()
    assert len(used) > 20


def test_labels_are_those_of_the_metric() -> None:
    labels = {
        "ide_gateway_machines": "status", "ide_gateway_workspaces": "status",
        "ide_gateway_snapshots_total": "result",
    }  # fmt: skip
    for rule in rules():
        for name, label in re.findall(r"(\w+)\{(\w+)=", rule["expr"]):
            assert labels[name] == label


def test_the_panels_stand_side_by_side() -> None:
    panels = grafana()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)


@pytest.mark.parametrize("rule", list(rules()), ids=lambda rule: rule["alert"])
def test_an_alert_says_what_it_means_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert all(rule["annotations"][part].endswith(".") for part in ("summary", "description"))
