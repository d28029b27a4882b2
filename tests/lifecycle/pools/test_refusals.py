"""AWS's refusals as errors of a pool."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

from lifecycle.pools import NoCapacity, PoolError, Throttled
from lifecycle.pools.ecs_answers import raise_worst, translated
from lifecycle.pools.refusals import all_in_one, pool_error


def said(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "words"}}, "RunInstances")


@pytest.mark.parametrize("code", ["RequestLimitExceeded", "Throttling", "ThrottlingException"])
def test_asked_too_often(code: str) -> None:
    assert isinstance(pool_error(said(code), "launch m-1"), Throttled)
    assert isinstance(translated(said(code), "launch m-1", "c"), Throttled)


def test_anything_else() -> None:
    assert type(pool_error(said("InvalidParameterValue"), "launch m-1")) is PoolError
    assert type(pool_error(OSError("cut"), "launch m-1")) is PoolError


def test_of_several_calls_one_was_throttled() -> None:
    assert isinstance(all_in_one("words", [PoolError("a"), Throttled("b")]), Throttled)
    assert type(all_in_one("words", [PoolError("a")])) is PoolError
    with pytest.raises(Throttled):
        raise_worst([PoolError("a"), Throttled("b")])
    with pytest.raises(NoCapacity):
        raise_worst([Throttled("b"), NoCapacity("full", ["m-1"])])
