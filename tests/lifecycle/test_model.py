"""The tables of allowed transitions, walked; the diagram made from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lifecycle.model import (
    ASLEEP,
    MACHINE_TRANSITIONS,
    OCCUPYING,
    WORKSPACE_TRANSITIONS,
    IllegalTransition,
    MachineStatus,
    WorkspaceStatus,
    check_transition,
    diagram,
)

W, M = WorkspaceStatus, MachineStatus
ARCHITECTURE = Path(__file__).parents[2] / "docs" / "architecture.md"


@pytest.mark.parametrize("table", [WORKSPACE_TRANSITIONS, MACHINE_TRANSITIONS])
def test_one_function_says_what_the_tables_say(table: dict) -> None:
    for old in table:
        for new in table:
            if new in table[old]:
                check_transition(old, new)
            else:
                with pytest.raises(IllegalTransition, match=f"{old} → {new}"):
                    check_transition(old, new)


def test_every_status_has_its_row_and_can_be_reached() -> None:
    for statuses, table, first in (
        (W, WORKSPACE_TRANSITIONS, W.STOPPED),
        (M, MACHINE_TRANSITIONS, M.LAUNCHING),
    ):
        assert set(table) == set(statuses)
        reached, ahead = {first}, [first]
        while ahead:
            new = table[ahead.pop()] - reached
            reached |= new
            ahead += new
        assert reached == set(statuses)


def test_every_workspace_can_come_back() -> None:
    """There is no status from which a person could never get to their IDE again."""
    back = {W.RUNNING}
    while more := {old for old in W if old not in back and WORKSPACE_TRANSITIONS[old] & back}:
        back |= more
    assert back == set(W)


def test_the_happy_life() -> None:
    life = [W.STOPPED, W.QUEUED, W.STARTING, W.RUNNING, W.STOPPING, W.STOPPED, W.TERMINATING]
    for old, new in zip(life, [*life[1:], W.TERMINATED], strict=True):
        check_transition(old, new)


def test_a_slot_is_held_from_start_to_stop_and_a_visit_wakes_only_what_sleeps() -> None:
    assert {W.STARTING, W.RUNNING, W.STOPPING} == OCCUPYING
    assert {old for old in W if W.QUEUED in WORKSPACE_TRANSITIONS[old]} == ASLEEP


def test_nothing_is_terminated_past_the_snapshot() -> None:
    """The only way into `terminated` leads through `terminating`, where the snapshot is written."""
    assert [old for old in W if W.TERMINATED in WORKSPACE_TRANSITIONS[old]] == [W.TERMINATING]


def test_the_diagram_has_an_arrow_for_every_transition_and_no_other() -> None:
    arrows = {line.strip() for line in diagram().splitlines() if "-->" in line}
    expected = {"[*] --> stopped", "[*] --> launching", "terminated --> [*]"}
    for table in (WORKSPACE_TRANSITIONS, MACHINE_TRANSITIONS):
        expected |= {f"{old} --> {new}" for old, news in table.items() for new in news}
    assert arrows == expected


def test_the_architecture_page_shows_the_diagram() -> None:
    assert diagram() in ARCHITECTURE.read_text(), (
        "docs/architecture.md is behind lifecycle/model.py; paste what "
        "`python -c 'from lifecycle.model import diagram; print(diagram())'` prints"
    )
