"""Codes and tokens: made again at will, opening what they are for and nothing else."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from lifecycle.joining import Joining

OURS = Joining("the signing key")
numbers, counts = st.integers(1, 10**10 - 1), st.integers(1, 99_999)


@given(numbers, counts, st.data())
def test_every_machine_of_a_launch_is_told_which_one_it_is(
    first: int, count: int, data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, count - 1))
    code = OURS.code(first, count)
    assert OURS.machine(code, index) == f"m-{first + index}"
    assert Joining("the signing key").machine(code, index) == f"m-{first + index}"


@given(numbers, counts, st.integers())
def test_a_code_opens_no_place_outside_its_launch(first: int, count: int, index: int) -> None:
    assume(not 0 <= index < count)
    assert OURS.machine(OURS.code(first, count), index) == ""


@given(numbers, counts, numbers, counts)
def test_a_code_cannot_be_made_into_another(
    first: int, count: int, other: int, others: int
) -> None:
    assume((first, count) != (other, others))
    mac = OURS.code(first, count).partition(".")[2]
    assert OURS.machine(f"{other}-{others}.{mac}") == ""
    assert OURS.code(first, count) != OURS.code(other, others)


@given(st.text(), numbers)
def test_another_keys_codes_and_tokens_are_not_ours(key: str, first: int) -> None:
    assume(key != "the signing key")
    other = Joining(key)
    assert OURS.machine(other.code(first)) == ""
    assert other.token(f"m-{first}") != OURS.token(f"m-{first}")


@given(st.one_of(st.text(), st.from_regex(r"[0-9]+-[0-9]+\.[A-Za-z0-9_-]{32}", fullmatch=True)))
def test_what_somebody_makes_up_is_no_code(text: str) -> None:
    assert OURS.machine(text) == ""


@given(numbers, numbers)
def test_tokens_are_one_for_each_machine_and_in_no_code(one: int, other: int) -> None:
    token = OURS.token(f"m-{one}")
    assert len(token) == 32
    assert token.isascii()
    assert (token == OURS.token(f"m-{other}")) == (one == other)
    assert token not in OURS.code(one)


def test_a_code_changed_by_a_character_opens_nothing() -> None:
    code = OURS.code(12, 3)
    for place in range(len(code)):
        for swap in "A_-9":
            changed = code[:place] + swap + code[place + 1 :]
            assert changed == code or OURS.machine(changed) == "", changed
