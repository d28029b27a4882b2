"""The table of close codes is sound, and its page in docs/ says the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from websockets.frames import Close as WireClose

from gateway import closing

DOCS = Path(__file__).parents[2] / "docs" / "close-codes.md"


def test_the_page_is_made_from_the_table() -> None:
    assert DOCS.read_text() == closing.as_markdown()


def test_every_close_is_in_the_table_once() -> None:
    declared = [value for value in vars(closing).values() if isinstance(value, closing.Close)]
    assert sorted(closing.TABLE, key=lambda c: c.code) == sorted(declared, key=lambda c: c.code)
    assert len({close.code for close in declared}) == len(declared)
    assert len({close.name for close in declared}) == len(declared)


@pytest.mark.parametrize("close", closing.TABLE, ids=lambda close: close.name)
def test_a_close_may_be_sent_on_the_wire(close: closing.Close) -> None:
    WireClose(close.code, close.reason).check()
    assert 0 < len(close.reason.encode()) <= 123
    assert closing.BY_CODE[close.code] is close


def test_only_a_gateway_that_will_be_back_calls_its_clients_back() -> None:
    assert {close.code for close in closing.TABLE if close.come_back} == {1001, 1012, 1013}


def test_the_browsers_scripts_go_by_the_table() -> None:
    """1005 and 1006 nobody sends. On the control channel, which ends here, 1011 is an error of the gateway's own."""
    static = Path(__file__).parents[2] / "static"
    listed = re.search(r"COME_BACK = new Set\(\[([\d, ]+)\]\)", (static / "control.js").read_text())
    assert listed is not None
    come_back = {int(code) for code in listed[1].split(",")} - {1005, 1006, 1011}
    assert come_back == {close.code for close in closing.TABLE if close.come_back}
    said = {
        int(code)
        for script in static.glob("*.js")
        for code in re.findall(r"\b(4\d{3}): ", script.read_text())
    }
    assert said
    assert said <= {close.code for close in closing.TABLE if not close.come_back}
