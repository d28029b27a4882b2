"""When is a delivery tried again? Read as a timeline."""

from __future__ import annotations

import pytest

from lifecycle.notices.deliveries import (
    ANSWER_MAX,
    Answer,
    Next,
    Outcome,
    Status,
    lost,
    next_attempt,
    printable,
)

FAILED = Answer(Outcome.FAILED, "no answer in 10 s")


def test_five_tries_each_after_a_longer_wait_and_then_no_more() -> None:
    now, waits = 1_000_000, []
    for attempts in range(1, 5):
        then = next_attempt("msg_1", attempts, FAILED, now)
        assert then.status is Status.PENDING
        assert then.due_at_ms is not None
        waits.append((then.due_at_ms - now) / 1000)
        now = then.due_at_ms
    assert waits == pytest.approx([5, 30, 120, 600], rel=0.1)
    assert next_attempt("msg_1", 5, FAILED, now) == Next(Status.FAILED)


def test_what_failed_together_comes_back_apart_and_always_the_same() -> None:
    due = [next_attempt(f"msg_{n}", 1, FAILED, 0).due_at_ms for n in range(100)]
    assert len(set(due)) > 90
    assert due == [next_attempt(f"msg_{n}", 1, FAILED, 0).due_at_ms for n in range(100)]


@pytest.mark.parametrize(
    ("answer", "then"),
    [
        (Answer(Outcome.SENT), Next(Status.SENT)),
        (Answer(Outcome.REFUSED), Next(Status.FAILED)),
        (Answer(Outcome.GONE), Next(Status.FAILED)),
        (Answer(Outcome.UNKNOWN), Next(Status.UNKNOWN)),
        (lost(repeatable=False), Next(Status.UNKNOWN)),
    ],
)
def test_what_is_decided_by_the_first_answer(answer: Answer, then: Next) -> None:
    assert next_attempt("msg_1", 1, answer, 0) == then


def test_a_webhook_that_was_interrupted_is_tried_again() -> None:
    assert next_attempt("msg_1", 1, lost(repeatable=True), 0).status is Status.PENDING


def test_the_other_side_may_ask_for_a_longer_wait_within_bounds() -> None:
    assert next_attempt("m", 1, Answer(Outcome.FAILED, retry_after=90), 0).due_at_ms == 90_000
    assert next_attempt("m", 1, Answer(Outcome.FAILED, retry_after=1e9), 0).due_at_ms == 3_600_000
    assert (next_attempt("m", 1, Answer(Outcome.FAILED, retry_after=1), 0).due_at_ms or 0) > 4000


def test_a_log_holds_nothing_that_a_terminal_obeys() -> None:
    assert printable("no\x1b[2J\r\nway") == "no [2J  way"
    assert len(printable("x" * 5000)) == ANSWER_MAX
