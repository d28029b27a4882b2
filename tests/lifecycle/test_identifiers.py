"""Names made from names."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.identifiers import machine_number, workspace_id_for

LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


@given(st.text(min_size=1, max_size=200), st.text(max_size=200))
def test_every_id_is_a_dns_label_that_leaves_room_for_a_port(user: str, name: str) -> None:
    found = workspace_id_for(user, name)
    assert LABEL.fullmatch(found)
    assert len(found) <= 40
    assert "--" not in found


def test_asking_twice_finds_the_same_and_every_user_and_name_has_its_own() -> None:
    assert workspace_id_for("ada", "x") == workspace_id_for("ada", "x")
    ids = {workspace_id_for(user, name) for user in ("ada", "bob") for name in ("", "x", "X")}
    assert len(ids) == 6
    assert workspace_id_for("a", "b") != workspace_id_for("a\0b", "")


def test_the_name_shows_and_the_user_does_not() -> None:
    assert workspace_id_for("ada.lovelace", "My Project!").startswith("my-project-")
    assert "ada" not in workspace_id_for("ada.lovelace")


@pytest.mark.parametrize(
    ("machine", "number"), [("m-1", 1), ("m-120", 120), ("m-", 0), ("i-5", 0), ("m-x", 0), ("", 0)]
)
def test_a_machines_number(machine: str, number: int) -> None:
    assert machine_number(machine) == number
