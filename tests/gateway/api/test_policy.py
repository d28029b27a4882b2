"""How long one workspace lives, over the API: its own policy, keeping it longer, pinning it."""

from __future__ import annotations

from typing import Any

import pytest

from lifecycle.model import WorkspaceStatus as W
from lifecycle.plans import Plan, Quota, plans_of

PLANS = plans_of(
    {"plans": {"pro": {"idle-timeout": 7200, "signals": ["input", "job"], "retention": 600}}},
    Plan("default", quota=Quota()),
)
DAY = 86_400_000


async def given(world: Any, user: str = "ada", plan: str = "pro") -> str:
    """The path of a new workspace's policy."""
    world.plans = PLANS
    body = {"userId": user, "plan": plan}
    created = (await world.call("POST", "/api/workspaces", body)).json
    return f"/api/workspaces/{created['workspaceId']}/policy"


@pytest.fixture
async def planned(served: Any) -> Any:
    async with served(plans=PLANS) as running:
        yield running


async def test_it_says_what_holds_and_who_says_so(planned: Any) -> None:
    path = await given(planned)
    before = (await planned.call("GET", path, user="ada")).json
    assert (before["plan"], before["pinned"]) == ("pro", False)
    assert before["values"]["idleTimeout"] == 7200
    assert before["values"]["signals"] == ["input", "job"]
    assert before["values"]["countdown"] == [300, 60]
    assert (before["sources"]["idleTimeout"], before["sources"]["keep"]) == ("plan", "default")

    own = {"idleTimeout": 90, "quietHours": "* 22-23 * * *", "timeZone": "Europe/Berlin"}
    after = (await planned.call("PUT", path, own, user="ada")).json
    assert {name: after["values"][name] for name in own} == own
    assert {after["sources"][name] for name in own} == {"own"}
    assert (await planned.call("GET", path)).json == after
    assert (await planned.call("PUT", path, {}, user="ada")).json == before


async def test_a_person_changes_what_is_theirs_and_leaves_the_operators(planned: Any) -> None:
    path = await given(planned)
    operators = {"maxJobHours": 1, "keep": True, "idleTimeout": 86_400, "countdown": [60]}
    assert (await planned.call("PUT", path, operators)).json["values"]["idleTimeout"] == 86_400
    answer = (await planned.call("PUT", path, {"signals": ["input"]}, user="ada")).json
    assert answer["values"]["idleTimeout"] == 7200, "given back"
    assert answer["values"]["keep"] is True
    assert answer["values"]["maxJobHours"] == 1
    own = {name for name, source in answer["sources"].items() if source == "own"}
    assert own == {"maxJobHours", "keep", "countdown", "signals"}


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ({"idleTimeout": 7201}, "idleTimeout", "at most 7200 seconds"),
        ({"quietIdleTimeout": 7201}, "quietIdleTimeout", "at most 7200 seconds"),
        ({"signals": ["input", "frames"]}, "signals", "frames does not count in this plan"),
        ({"retention": 1}, "retention", "is for the operator"),
        ({"keep": False}, "keep", "is for the operator"),
        ({"maxLifetime": 0}, "maxLifetime", "is for the operator"),
        ({"endingNotice": []}, "endingNotice", "is for the operator"),
    ],
)
async def test_a_person_gets_no_more_than_the_plan_gives(
    planned: Any, body: Any, field: str, words: str
) -> None:
    path = await given(planned)
    answer = await planned.call("PUT", path, body, user="ada")
    assert answer.refusal == (403, "forbidden")
    assert (answer.error["field"], words in answer.error["message"]) == (field, True)
    assert (await planned.call("PUT", path, body)).status == 200, "the operator may"


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ({"idleTimeout": 0}, "idleTimeout", "idleTimeout: must be above 0 seconds"),
        ({"quietHours": "at night"}, "quietHours", "quietHours: "),
        ({"timeZone": "Mars/Olympus"}, "timeZone", "timeZone: "),
        ({"signals": ["telepathy"]}, "signals", "signals"),
        ({"idleTimeout": "soon"}, "idleTimeout", "idleTimeout: "),
    ],
)
async def test_what_is_no_policy_is_refused_by_field(
    planned: Any, body: Any, field: str, words: str
) -> None:
    answer = await planned.call("PUT", await given(planned), body, user="ada")
    assert answer.refusal == (422, "invalid")
    assert answer.error["field"] == field
    assert words in answer.error["message"], answer.error["message"]


async def test_keeping_it_longer(world: Any) -> None:
    workspace = await world.bring("ada", W.STOPPED)
    path = f"/api/workspaces/{workspace.id}"
    before = (await world.call("GET", path)).json
    assert before["keptUntil"] == before["statusSince"] + DAY
    kept = (await world.call("POST", f"{path}/keep", {}, user="ada")).json
    assert before["keptUntil"] <= kept["keptUntil"] <= before["keptUntil"] + 60_000
    long = (await world.call("POST", f"{path}/keep", {"seconds": 30 * 86_400})).json["keptUntil"]
    assert long >= before["statusSince"] + 30 * DAY
    again = (await world.call("POST", f"{path}/keep", {"seconds": 60}, user="ada")).json
    assert again["keptUntil"] == long, "never sooner than it would have been"

    more = await world.call("POST", f"{path}/keep", {"seconds": 86_401}, user="ada")
    assert (more.refusal, more.error["allowed"]) == ((403, "forbidden"), 86_400)
    assert (await world.call("PUT", f"{path}/policy", {"keep": True})).status == 200
    assert (await world.call("GET", path)).json["keptUntil"] is None, "for ever"

    running = await world.bring("bob", W.RUNNING)
    answer = await world.call("POST", f"/api/workspaces/{running.id}/keep", {})
    assert (answer.refusal, answer.error["status"]) == ((409, "conflict"), "running")
    assert (await world.call("GET", f"/api/workspaces/{running.id}")).json["keptUntil"] is None


async def test_the_operator_pins(world: Any) -> None:
    workspace = await world.bring("ada", W.RUNNING)
    path = f"/api/workspaces/{workspace.id}"
    assert (await world.call("POST", f"{path}/pin")).json["pinned"] is True
    assert (await world.call("GET", path, user="ada")).json["stopsAt"] is None
    assert (await world.call("POST", f"{path}/pin", user="ada")).refusal == (403, "forbidden")
    assert (await world.call("POST", f"{path}/unpin")).json["pinned"] is False
    assert (await world.call("GET", path, user="ada")).json["stopsAt"] is not None
