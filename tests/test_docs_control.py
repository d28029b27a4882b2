"""The client in docs/control-channel.md works as it stands, and its tables say what the code does."""

from __future__ import annotations

import asyncio
import functools
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from gateway import auth, closing, control, tab
from gateway.control_messages import SUBPROTOCOL, UP_MAX
from lifecycle.model import WorkspaceStatus
from lifecycle.notices import STOPPED, STOPPING_SOON
from tests.gateway.inside import HOST, KEYS, served

PAGE = (Path(__file__).parents[1] / "docs" / "control-channel.md").read_text()


async def test_the_client_of_the_page_follows_stays_and_ends(
    capsys: pytest.CaptureFixture[str], until: Callable[..., Any]
) -> None:
    (source,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    found: dict[str, Any] = {}
    exec(source, found)
    token = auth.make_workspace_token("w1", "ada", KEYS, now=time.time())
    async with served() as world:
        # *.localhost need not resolve where this runs
        found["connect"] = functools.partial(connect, host="127.0.0.1", port=world.port, proxy=None)
        following = found["follow"](f"ws://{HOST}/_gateway/control", token)

        async def happen() -> None:
            world.write(STOPPING_SOON, "it stops in 5 minutes")
            await until(lambda: world.extensions)
            world.write(STOPPED, "it was stopped")
            world.becomes(WorkspaceStatus.STOPPED, reason="idle")

        code, _ = await asyncio.gather(following, happen())
    assert code == 4410
    said = capsys.readouterr().out
    assert "running boot, 0 s ago" in said
    assert "it stops in 5 minutes\n" in said
    assert "it was stopped\n" in said
    assert "stopped idle\n" in said


def test_the_page_names_the_bounds_and_the_codes() -> None:
    for words in (
        SUBPROTOCOL,
        f"At most {UP_MAX:,} bytes a message, and {control.MESSAGES:g} messages a second",
        f"within {control.HELLO_WITHIN:g} s",
        f"One in {control.SEEN_EVERY:g} s of each connection",
        f"{tab.WAITING_MAX} messages wait",
        f"{control.TABS_MAX} connections of this workspace",
    ):
        assert words in PAGE, words
    for code, back in re.findall(r"^\| ([\d, ]+) \|.*\| (yes|no) \|$", PAGE, re.MULTILINE):
        for one in re.findall(r"\d+", code):
            known = closing.BY_CODE.get(int(one))
            # a lost connection of this channel is no lost workspace
            assert known is None or known.come_back is (back == "yes") or one == "1011"
