from __future__ import annotations

from lifecycle.pools.offerings import (
    FIRST_PAUSE,
    LASTING_PAUSE,
    LONGEST_PAUSE,
    Offering,
    Refusals,
    next_try,
    offerings,
    order,
    passed_over,
    refused,
    taken,
)

LARGE_A, LARGE_B = Offering("m7i.large", "subnet-a"), Offering("m7i.large", "subnet-b")
OTHER_A, OTHER_B = Offering("m7a.large", "subnet-a"), Offering("m7a.large", "subnet-b")
ALL = (LARGE_A, LARGE_B, OTHER_A, OTHER_B)


def test_the_first_type_in_every_zone_comes_before_the_second() -> None:
    assert offerings(["m7i.large", "m7a.large"], ["subnet-a", "subnet-b"]) == ALL


def test_what_is_not_named_is_left_to_the_template() -> None:
    assert offerings([], []) == (Offering("", ""),)
    assert offerings(["t3.micro"], []) == (Offering("t3.micro", ""),)
    assert offerings([], ["subnet-a", "subnet-b"]) == (Offering("", "subnet-a"), Offering("", "subnet-b"))  # fmt: skip


def test_a_refused_one_is_passed_over_until_its_pause_is_over() -> None:
    refusals = refused({}, [LARGE_A], "none left", now=100)
    assert order(ALL, refusals, now=100) == [LARGE_B, OTHER_A, OTHER_B]
    assert order(ALL, refusals, now=100 + FIRST_PAUSE - 0.1) == [LARGE_B, OTHER_A, OTHER_B]
    assert order(ALL, refusals, now=100 + FIRST_PAUSE) == list(ALL)


def pauses(refusals: Refusals, times: int) -> list[float]:
    """How long it is passed over when it refuses each time that it is asked again."""
    found, now = [], 0.0
    for _ in range(times):
        refusals = refused(refusals, [LARGE_A], "none left", now)
        found.append(refusals[LARGE_A].until - now)
        now = refusals[LARGE_A].until
    return found


def test_the_pause_grows_up_to_a_bound() -> None:
    found = pauses({}, 8)
    assert found[:4] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE, 8 * FIRST_PAUSE]
    assert found[-2:] == [LONGEST_PAUSE, LONGEST_PAUSE]


def test_what_was_taken_starts_anew() -> None:
    refusals = refused({}, [LARGE_A, OTHER_A], "none left", now=0)
    refusals = taken(refusals, LARGE_A)
    assert set(refusals) == {OTHER_A}
    assert pauses(refusals, 1) == [FIRST_PAUSE]


def test_refusals_of_calls_under_way_together_count_once() -> None:
    refusals = refused({}, [LARGE_A], "none left", now=0)
    assert refused(refusals, [LARGE_A], "none left", now=FIRST_PAUSE - 1) == refusals


def test_what_does_not_change_by_itself_is_passed_over_for_long() -> None:
    refusals = refused({}, [LARGE_A], "not sold there", now=0, lasting=True)
    assert order(ALL, refusals, now=LASTING_PAUSE - 1) == [LARGE_B, OTHER_A, OTHER_B]
    assert order(ALL, refusals, now=LASTING_PAUSE) == list(ALL)


def test_nothing_that_is_given_is_changed() -> None:
    before: Refusals = {}
    after = refused(before, [LARGE_A], "none left", now=0)
    taken(after, LARGE_A)
    assert (before, set(after)) == ({}, {LARGE_A})


def test_better_ones_that_had_nothing() -> None:
    refusals = refused({}, [LARGE_A, OTHER_B], "none left", now=0)
    assert passed_over(ALL, refusals, LARGE_B) == [LARGE_A]
    assert passed_over(ALL, refusals, LARGE_A) == []
    assert passed_over(ALL, {}, OTHER_B) == []


def test_when_to_ask_again() -> None:
    refusals = refused({}, ALL, "none left", now=0)
    refusals = refused(refusals, [LARGE_B], "none left", now=FIRST_PAUSE)
    assert next_try([LARGE_B], refusals, now=FIRST_PAUSE) == 2 * FIRST_PAUSE
    assert next_try(ALL, refusals, now=10) == FIRST_PAUSE - 10
    assert next_try(ALL, {}, now=0) == 0
    assert next_try(ALL, refusals, now=10**6) == 0
