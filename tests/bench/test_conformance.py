"""How Autobahn's verdicts are held against each other, and the page they stand on."""

from __future__ import annotations

from bench.conformance.__main__ import PAGE
from bench.conformance.verdicts import GATEWAY, STRAIGHT, differences, rows

OK = {"behavior": "OK", "behaviorClose": "OK"}
FAILED = {"behavior": "FAILED", "behaviorClose": "OK"}
AT_CLOSE = {"behavior": "OK", "behaviorClose": "WRONG CODE"}


def test_equal_verdicts_differ_in_nothing() -> None:
    """Also where both fail: then it is the echo server's doing."""
    same = {"1.1.1": OK, "7.5.1": FAILED}
    assert differences({STRAIGHT: same, GATEWAY: dict(same)}) == []


def test_each_difference_is_told_in_order() -> None:
    straight = {"1.1.10": OK, "1.1.2": OK, "7.5.1": OK, "9.1.1": OK}
    gateway = {"1.1.10": FAILED, "1.1.2": OK, "7.5.1": AT_CLOSE}
    assert differences({STRAIGHT: straight, GATEWAY: gateway}) == [
        "1.1.10: straight OK, OK at the close; through the gateway FAILED, OK at the close",
        "7.5.1: straight OK, OK at the close; through the gateway OK, WRONG CODE at the close",
        "9.1.1 was only tried straight",
    ]


def test_a_row_for_each_section_that_was_tried() -> None:
    straight = {"1.1.1": OK, "1.1.2": OK, "13.1.1": OK}
    gateway = {"1.1.1": OK, "1.1.2": FAILED, "13.1.1": OK}
    assert list(rows({STRAIGHT: straight, GATEWAY: gateway})) == [
        ("1 Framing", "2", "2 OK", "1 OK, 1 FAILED", "1"),
        ("13 Compression with parameters", "1", "1 OK", "1 OK", "0"),
    ]


def test_the_page_says_that_nothing_differs() -> None:
    """What it says was written by a run; a run that found a difference has to be looked into."""
    written = PAGE.read_text()
    assert "different verdicts: 0" in written
    assert written.count("<!-- bench:conformance -->") == 1
