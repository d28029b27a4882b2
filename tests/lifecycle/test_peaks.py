"""Peaks as timelines: when slots are held for them, how fast, and when they are held no longer."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lifecycle.peaks import SURE, Opened, Peak, Peaks, holding, usual_rate, watch
from lifecycle.scaler import scale
from lifecycle.scaling.memory import begin
from lifecycle.scaling.records import Facts, Memory, Need, Rule
from tests.lifecycle.fakes import machine

NINE = 9 * 3600
EXAM = Peak(NINE * 1000, 3000, "exam", early=600, late=1800)
LEAD = 80.0  # seconds until a machine is there
SURELY = SURE * LEAD


def at(seconds: float) -> int:
    return int(seconds * 1000)


def held(now: float, *peaks: Peak, opened: Peaks = (), arrivals: int = 0, **more: Any) -> int:
    """now: seconds of the day."""
    usual: dict[str, Any] = {"lead_time": LEAD, "slots": 5, "granted": 0.0, "rate": 0.0}
    found = holding(peaks, opened, at(now), arrivals, **(usual | more))
    return sum(each.slots for each in found)


def test_slots_are_held_one_lead_time_before_the_first_may_come_and_not_sooner() -> None:
    first = NINE - 600
    assert held(0, EXAM) == 0
    assert held(first - SURELY - 1, EXAM) == 0
    assert held(first - SURELY, EXAM) == 3000
    assert held(first, EXAM) == 3000, "they may come, and nobody has"


def test_a_longer_lead_time_begins_sooner() -> None:
    now = NINE - 600 - SURE * 200
    assert (held(now, EXAM, lead_time=200.0), held(now, EXAM, lead_time=100.0)) == (3000, 0)


def test_where_the_api_grants_few_launches_it_begins_sooner_and_at_that_pace() -> None:
    # One machine of 5 slots every 2 s: 3,000 slots take 1,200 s.
    ready_by = NINE - 600 - SURELY
    pace: dict[str, Any] = {"rate": 0.5, "granted": 0.0}
    assert held(ready_by - 1201, EXAM, **pace) == 0
    assert held(ready_by - 1200 + 2, EXAM, **pace) == 5
    assert held(ready_by - 600, EXAM, **pace) == 1500
    assert held(ready_by, EXAM, **pace) == 3000
    assert held(ready_by - 600, EXAM, rate=0.5, granted=100.0) == 1000, "a hundred more at once"


def test_who_comes_takes_one_of_them_and_what_is_left_is_given_up_when_it_is_over() -> None:
    opened = watch((), [EXAM], EXAM.from_ms, arrivals=70, usual=0.0)
    now = NINE - 300
    assert held(now, EXAM, opened=opened, arrivals=70) == 3000
    assert held(now, EXAM, opened=opened, arrivals=1070) == 2000
    assert held(now, EXAM, opened=opened, arrivals=9999) == 0, "more came than were told of"
    assert held(NINE + 1799, EXAM, opened=opened, arrivals=1070) == 2000
    assert held(NINE + 1800, EXAM, opened=opened, arrivals=1070) == 0


def test_who_comes_anyway_is_none_of_them() -> None:
    opened = watch((), [EXAM], EXAM.from_ms, arrivals=0, usual=0.5)
    ten_minutes_later = NINE
    assert held(ten_minutes_later, EXAM, opened=opened, arrivals=300) == 3000
    assert held(ten_minutes_later, EXAM, opened=opened, arrivals=400) == 2900


def test_open_from_the_first_moment_to_the_last() -> None:
    moments = [NINE - 601, NINE - 600, NINE + 1799, NINE + 1800]
    assert [len(watch((), [EXAM], at(now), 0, 0.0)) for now in moments] == [0, 1, 1, 0]


def test_an_open_one_remembers_how_it_was_before() -> None:
    opened = watch((), [EXAM], at(NINE - 600), arrivals=50, usual=0.2)
    later = watch(opened, [EXAM], at(NINE), arrivals=2050, usual=7.0)
    assert later == opened == (Opened(EXAM, 50, 0.2),)
    assert usual_rate(later, 7.0) == 0.2
    assert usual_rate(later, 0.1) == 0.1, "fewer than usual is believed"
    assert usual_rate((), 7.0) == 7.0


RUSH = Rule(slots=5, max_machines=1000, wait_probability=0.01, boot_guess=LEAD)


def crowd(*told: Peak) -> list[tuple[int, Need, Memory, str]]:
    """5 come a second for ten minutes, which is 3,000: machines, and what was reckoned, every ten seconds."""
    memory, fleet, found = begin(at(NINE - 1200), RUSH), 0, []
    for now in range(NINE - 1200, NINE, 10):
        users = max(0, now - NINE + 600) * 5
        busy = min(fleet, -(-users // RUSH.slots))
        free = [machine(f"m-{n}", empty_since_ms=1) for n in range(fleet - busy)]
        facts = Facts(users, free, arrivals=50 if users else 0, peaks=told, busy=busy)
        decision, memory = scale(facts, RUSH, memory, at(now))
        fleet += decision.launch - len(decision.drain)
        assert decision.need
        found.append((fleet, decision.need, memory, decision.reason))
    return found


def test_more_than_were_told_of_find_slots_as_if_nobody_had_been() -> None:
    few = [fleet for fleet, *_ in crowd(Peak(EXAM.at_ms, 30, early=600, late=1800))]
    untold = [fleet for fleet, *_ in crowd()]
    assert all(one >= other for one, other in zip(few, untold, strict=True))
    assert few[-1] == untold[-1] > 600


def test_whoever_was_told_of_has_a_slot_and_whether_the_last_was_the_last_nobody_knows() -> None:
    exam = crowd(EXAM)[61:]
    assert all(600 <= fleet <= 601 for fleet, *_ in exam[:22])
    assert max(fleet for fleet, *_ in exam) < 700
    assert not exam[0][1].crowd
    last = exam[-1][1]
    assert last.crowd
    assert last.up > 5 * LEAD, "all who come, and not only those who usually do"
    assert " come, to peaks as well, and " in exam[-1][3]


def test_slots_that_are_held_are_free_for_the_crowd_that_they_are_held_for() -> None:
    credit = [memory.credit for _, _, memory, _ in crowd(EXAM)]
    assert min(credit) >= -0.05, "nothing was risked"


def test_numbers_that_are_changed_meanwhile_keep_who_has_come() -> None:
    opened = watch((), [EXAM], at(NINE - 600), arrivals=0, usual=0.0)
    more = Peak(EXAM.at_ms, 3500, "exam", early=600, late=3600)
    opened = watch(opened, [more], at(NINE), arrivals=2000, usual=5.0)
    assert held(NINE, more, opened=opened, arrivals=2000) == 1500
    again = Peak(EXAM.at_ms + 7_200_000, 3000, "exam", early=600)
    opened = watch(opened, [again], again.from_ms, 9000, 0.1)
    assert opened == (Opened(again, 9000, 0.0),), "of the same name, and another day: nobody yet"


def test_two_at_once_share_nobody() -> None:
    other = Peak(EXAM.at_ms, 1000, "lecture", early=300, late=1800)
    opened = watch((), [EXAM], EXAM.from_ms, 0, 0.1)
    opened = watch(opened, [EXAM, other], other.from_ms, 30, 4.0)
    assert [each.usual for each in opened] == [0.1, 0.1], "the rush of one is not usual"
    both = watch((), [EXAM, other], at(NINE), 0, 0.0)
    assert held(NINE, EXAM, other, opened=both) == 4000
    assert held(NINE, EXAM, other, opened=both, arrivals=2500) == 1500
    assert held(NINE, EXAM, other, opened=both, arrivals=3500) == 500
    assert held(NINE, EXAM, other, opened=both, arrivals=4000) == 0


def test_who_came_before_the_second_began_is_none_of_the_seconds() -> None:
    other = Peak(EXAM.at_ms + 1_200_000, 1000, "lecture", early=600, late=1800)
    opened = watch((), [EXAM], EXAM.from_ms, 0, 0.0)
    opened = watch(opened, [EXAM, other], other.from_ms, 3400, 0.0)
    now = NINE + 600
    assert held(now, EXAM, other, opened=opened, arrivals=3400) == 1000
    assert held(now, EXAM, other, opened=opened, arrivals=3500) == 900


def test_launches_that_are_granted_until_then_are_counted_once() -> None:
    twins = [Peak(EXAM.at_ms, 3000, name) for name in ("a", "b")]
    now = NINE - 600 - SURELY - 600  # 1,500 slots can be had until then
    assert held(now, *twins, rate=0.5) == 4500
    later = Peak(EXAM.at_ms + 3_600_000, 3000, "later")
    assert held(now, EXAM, later, rate=0.5) == 1500, "there is time enough for the second"


def test_what_is_held_is_said_of_each_as_they_begin() -> None:
    lecture = Peak(EXAM.at_ms - 60_000, 40, "lecture")
    over = Peak(0, 100, "over")
    found = holding([EXAM, over, lecture], (), at(NINE - 660 - SURELY), 0, LEAD, 5, 0.0, 0.0)
    assert [(each.peak.name, each.slots) for each in found] == [("lecture", 40), ("exam", 0)]


def test_nobody_and_none() -> None:
    assert held(NINE, Peak(EXAM.at_ms, 0, "nobody")) == 0
    assert held(NINE) == 0
    assert watch((), [], at(NINE), 5, 1.0) == ()


def test_a_day_with_an_exam_as_the_scaler_decides_it() -> None:
    """Nobody, then 3,000 at nine; a cloud that grants a machine every two seconds after the first hundred."""
    rule = Rule(slots=5, max_machines=1000, burst=100, rate=0.5, boot_guess=LEAD)
    memory, fleet, launched = begin(at(NINE - 3600), rule), 0, []
    held_at: dict[int, int] = {}
    for now in range(NINE - 3600, NINE + 2400, 10):
        come = 50 if NINE - 600 <= now < NINE - 20 else 0  # 2,900 of the 3,000
        users = min(2900, max(0, (now - (NINE - 600)) // 10 + 1) * 50) if now >= NINE - 600 else 0
        busy = -(-users // rule.slots)
        machines = [machine(f"m-{n}", empty_since_ms=1) for n in range(fleet - busy)]
        facts = Facts(users, machines, arrivals=come, peaks=[EXAM], busy=min(fleet, busy))
        decision, memory = scale(facts, rule, memory, at(now))
        assert decision.need
        held_at[now - NINE] = decision.need.held
        fleet += decision.launch - len(decision.drain)
        launched += [now - NINE] * decision.launch
    assert len(launched) == 600, "as many as the exam needs, once"
    ready = [when + LEAD for when in launched]
    assert max(ready) <= -600, "all of them are there when the first may come"
    assert min(launched) > -600 - SURELY - 600 / 0.5, "and none sooner than the pace wants"
    assert held_at[-1800] == 0
    assert [held_at[when] for when in (-600, 0, 1790, 1800)] == [2950, 100, 100, 0]


peaks = st.builds(
    Peak,
    at_ms=st.integers(0, 10**8),
    users=st.integers(0, 10**6),
    name=st.sampled_from("abcdef"),
    early=st.floats(0, 7200),
    late=st.floats(0, 7200),
)


@given(
    st.lists(peaks, max_size=5), st.integers(0, 10**8), st.integers(0, 10**6),
    st.floats(1, 600), st.integers(1, 50), st.floats(0, 100), st.sampled_from([0.0, 0.5, 5.0]),
)  # fmt: skip
def test_never_more_than_are_told_of_and_never_fewer_than_those_who_may_come(
    told: list[Peak], now_ms: int, arrivals: int, lead: float, slots: int, granted: float, rate: float
) -> None:  # fmt: skip
    opened = watch((), told, now_ms, arrivals, 0.0)
    found = holding(told, opened, now_ms, arrivals, lead, slots, granted, rate)
    assert all(0 <= each.slots <= each.peak.users for each in found)
    due = [peak for peak in told if peak.from_ms <= now_ms < peak.until_ms]
    assert sum(each.slots for each in found) >= sum(peak.users for peak in due)
    more = holding(told, opened, now_ms, arrivals + 100, lead, slots, granted, rate)
    assert sum(each.slots for each in more) >= sum(each.slots for each in found) - 100
