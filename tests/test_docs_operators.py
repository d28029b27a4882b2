"""The pages for operators say what the code does: their examples are used, their tables and numbers compared."""

from __future__ import annotations

import json
import re
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway import dashboard, operators
from gateway.api import bodies, usage
from gateway.api.answers import UsersUsage, UserUsage
from gateway.settings import Settings
from lifecycle import peaks, peaks_book, peaks_declared, plans, pricing, quota
from lifecycle.notices import STOPPED, TYPES, Notice, deliveries
from lifecycle.notices.deliveries import Delivery, Outcome, Status
from lifecycle.notices.webhook import TIMEOUT, Webhook
from lifecycle.queueing import MAX_BOOST, PRIORITIES
from lifecycle.stores.scripts.notices import DELIVERIES_AGE, DELIVERIES_KEPT, NOTICES_KEPT
from lifecycle.usage import RUNNING, STORED, Piece
from tests.lifecycle.notices.receiver import SECRET, receiving

ROOT = Path(__file__).parents[1]
DEFAULTS = {name: field.default for name, field in Settings.model_fields.items()}


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text()


def block(name: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page(name), re.DOTALL)


def table(name: str, heading: str) -> list[list[str]]:
    """Cells of the rows below that heading of a table."""
    rows = page(name).partition(heading)[2].splitlines()[2:]
    end = next(n for n, line in enumerate([*rows, ""]) if not line.startswith("|"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in rows[:end]]


# plans.md


def test_the_plans_of_the_page_are_read_and_hold_what_it_says() -> None:
    (text,) = block("plans", "toml")
    found = plans.plans_of(tomllib.loads(text), plans.Plan("default"))
    assert set(found.by_name) == {"default", "free", "pro"}
    assert (found.of("free").policy.idle_timeout, found.of("free").quota.hours_a_day) == (1200, 4)
    assert found.of("free").quota.sessions == found.default.quota.sessions
    assert found.of("gone") is found.default


def test_its_tables_are_all_keys_with_their_defaults() -> None:
    rows = table("plans", "| key | unit | default | means |")
    assert [row[0] for row in rows] == [f"`{key}`" for key in (*plans.FIELDS, "priority")]
    for key, _, default, _ in rows:
        name = key.strip("`").replace("-", "_")
        said = tomllib.loads(f"x = {default.strip('`')}")["x"]
        wanted = getattr(plans.Policy(), name, plans.Plan("default").priority)
        assert (type(wanted)(said) if isinstance(said, list) else said) == wanted, key

    quotas = table("plans", "| key | unit | default | flag | refused with |")
    assert [row[0] for row in quotas] == [f"`{key}`" for key in plans.QUOTA_FIELDS]
    for key, _, default, flag, _ in quotas:
        name = flag.strip("`").removeprefix("--").replace("-", "_")
        value = getattr(plans.Quota(), key.strip("`").replace("-", "_"))
        assert float(default.strip("`")) == value == DEFAULTS.get(name, 0), key


def test_its_numbers_are_the_codes() -> None:
    text = page("plans")
    for bound, setting, _ in table("plans", "| bound | setting | at the bound |"):
        flag, _, default = setting.replace("`", "").partition(" ")
        assert f"({DEFAULTS[flag.removeprefix('--').replace('-', '_')]})" == default, bound
    vip, normal, batch = (f"{PRIORITIES[name]:g}" for name in ("vip", "normal", "batch"))
    assert f"`vip` {vip}\nseconds, `normal` {normal}, `batch` {batch}" in text
    assert f"({MAX_BOOST:,.0f} at most" in text
    assert "{}, {} and {} %".format(*quota.THRESHOLDS) in text
    assert f"for {bodies.MAX_EXTEND // 86400} days at most" in text


# peaks.md


def test_the_peaks_of_the_page_are_read_and_its_numbers_are_the_codes() -> None:
    (text,) = block("peaks", "toml")
    exam, lecture = peaks_declared.entries_of(tomllib.loads(text))
    assert (exam.users, exam.early, exam.at_ms) == (3000, 900, 1_796_112_000_000)
    assert (lecture.cron, lecture.zone) == ("0 9 * * MON-FRI", "Europe/Berlin")
    rows = table("peaks", "| field | is | if left out |")
    named = [name for row in rows for name in re.findall(r"`([a-z-]+)`", row[0])]
    assert sorted(named) == sorted(peaks_declared._READERS)
    left_out = {row[0]: row[2].replace(",", "") for row in rows}
    assert (left_out["`early`"], left_out["`late`"]) == (f"{peaks.EARLY:g}", f"{peaks.LATE:g}")
    said = page("peaks")
    assert f"1 to {peaks_declared.USERS_MAX:,}" in said
    assert f"to {peaks_declared.WINDOW_MAX:,.0f}" in said
    assert said.count(f"There are {peaks_declared.ENTRIES_MAX} ") == 1
    assert (peaks.SURE, peaks_declared.NEXT, peaks_book.REFRESH) == (1.25, 3, 60), "as it says"
    one = peaks.Peak(exam.at_ms, 3000, "exam", early=900)
    notice = peaks_declared.doubts(one, [one], peaks_declared.Reach(5, 100, 80), 0)
    assert f'"notice": "{notice}"' in said


# billing.md


def test_the_prices_of_the_page_make_its_example() -> None:
    (text,) = block("billing", "toml")
    one, everybody = (json.loads(example) for example in block("billing", "json"))
    ran = Piece("ws-abcdefghij", RUNNING, "m7i.large", 0, 0, 5_400_250)
    stored = Piece("ws-abcdefghij", STORED, "", pricing.GIB, 0, 86_400_000)
    call: Any = SimpleNamespace(parts=SimpleNamespace(prices=pricing.read(text)))
    said = usage._of_user(call, "ada", "2026-11", [ran, stored], 1)
    assert said.model_dump(mode="json", by_alias=True) == one
    row = UserUsage(
        user_id="ada", seconds=said.seconds, minutes=said.minutes, stored_gib_hours=24, cost=said.cost
    )  # fmt: skip
    answer = UsersUsage(month="2026-11", currency="EUR", users=[row], next="ada")
    assert answer.model_dump(mode="json", by_alias=True) == everybody
    sheet = usage._intervals_csv(call, "ada", "2026-11", [ran]).body
    people = SimpleNamespace(month="2026-11", currency="EUR", users=[], next=None)
    heads = [sheet, usage._users_csv(call, people).body]  # type: ignore[arg-type]
    assert all(bytes(head).decode().split("\r\n")[0] + "\n" in page("billing") for head in heads)
    assert f"at most {bodies.MAX_USERS:,}" in page("billing")
    assert f"are from 0 to {pricing.PRICE_MAX:,}" in page("billing")


# notices.md


async def test_the_receiver_of_the_page_takes_ours_and_nothing_else() -> None:
    (text,) = block("notices", "python")
    found: dict[str, Callable[..., Any]] = {}
    exec(text, found)
    read = found["notice"]
    told = Notice(
        7, STOPPED, "ws-1", "ada", 1_795_564_800_000, "“demo” was stopped", {"epoch": "3"}
    )
    async with receiving() as receiver:
        channel = Webhook(receiver.url, SECRET)
        answer = await channel.send(Delivery("msg_1_7", "webhook", told, "demo"))
        await channel.close()
    assert answer.outcome is Outcome.SENT
    [(headers, body)] = receiver.got
    said = read(headers, body, SECRET)
    assert (said["type"], said["data"]["seq"], said["data"]["epoch"]) == (STOPPED, 7, 3)
    example = page("notices").partition('{"type":')[2].partition("```")[0]
    shown = json.loads('{"type":' + example)
    assert {*shown} == {*said}
    assert {*shown["data"]} == {*said["data"], "reason"}

    other = SECRET[:-4] + "AAA="
    for wrong in (
        (headers, body + b" ", SECRET),
        ({**headers, "webhook-id": "msg_1_8"}, body, SECRET),
        (headers, body, other),
    ):
        with pytest.raises(ValueError, match="not signed"):
            read(*wrong)
    with pytest.raises(ValueError, match="five minutes"):
        read(headers, body, SECRET, now=time.time() + 301)
    both = {**headers, "webhook-signature": f"v1,bm8= {headers['webhook-signature']}"}
    assert read(both, body, SECRET) == said


def test_every_notice_has_a_row_and_the_tries_are_the_codes() -> None:
    text = page("notices")
    assert [row[0] for row in table("notices", "| type | when | data |")] == [
        f"`{type}`" for type in TYPES
    ]
    first, second, third, last = deliveries.WAITS
    assert f"after {first:g} s, {second:g} s, {third / 60:g} min, {last / 60:g} min, give" in text
    assert deliveries.TRIES == len(deliveries.WAITS) + 1 == 5
    for words in (
        ", ".join(f"`{status}`" for status in Status),
        f"({deliveries.ANSWER_MAX:,} characters)",
        f"within {TIMEOUT:g} s",
        f"newest {NOTICES_KEPT} of a workspace",
        f"keeps {DELIVERIES_AGE // 86400} days, and the newest {DELIVERIES_KEPT:,}",
    ):
        assert words in text, words


# dashboard.md


def test_the_dashboards_page_has_every_alert_button_and_bound() -> None:
    text, rules = page("dashboard"), (ROOT / "deploy" / "alerts.yaml").read_text()
    told = table("dashboard", "| alert | severity | says |")
    assert [row[0].strip("`") for row in told] == re.findall(r"- alert: (\w+)", rules)
    assert [row[1] for row in told] == re.findall(r"severity: (\w+)", rules)
    assert [row[2] for row in told] == re.findall(r"summary: (.+)", rules)

    script = (ROOT / "static" / "dashboard.js").read_text()
    named = ", ".join(row[0] for row in table("dashboard", "| button | does |")).split(", ")
    buttons = re.findall(r'action\((?:pinned \? )?"(\w+)"(?: : "(\w+)")?', script)
    assert {*named} == {word for pair in buttons for word in pair if word}

    minutes = dashboard.SAMPLES * dashboard.SAMPLE / 60
    for words in (
        f"over {minutes:g} minutes, a point every {dashboard.SAMPLE:g} s",
        f"the first {dashboard.MACHINES_MAX} |",
        f"the first {dashboard.QUEUE_MAX} |",
        f"the newest {dashboard.EVENTS} |",
    ):
        assert words in text, words
    assert dashboard.LOOK == 2
    assert (operators.TRIES, operators.WINDOW) == (5, 60)
