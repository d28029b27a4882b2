"""What a person reads."""

from __future__ import annotations

from lifecycle.model import Workspace, WorkspaceStatus
from lifecycle.notices import TYPES, words

DEMO = Workspace("demo-abc", "ada", WorkspaceStatus.RUNNING, 0, 0, name="demo")
MIDNIGHT = 1_795_564_800_000  # 2026-11-25 00:00 UTC


def test_a_stop_is_announced_with_its_reason_and_what_prevents_it() -> None:
    assert words.stopping_soon(DEMO, "idle", 300, 3300) == (
        "“demo” stops in 5 minutes: nothing was done in it for 55 minutes. Its files are kept."
        " Open it and press Stay, or just type."
    )
    said = {reason: words.stopping_soon(DEMO, reason, 60) for reason in ("job limit", "quota")}
    assert "its job has run for as long as jobs may" in said["job limit"]
    assert said["job limit"].endswith("or just type.")
    assert said["quota"].endswith(
        "used up. Its files are kept."
    )  # staying is not for them to choose
    assert "for as long as it may" in words.stopping_soon(DEMO, "max lifetime", 60)


def test_what_happened_says_what_becomes_of_the_files() -> None:
    assert words.stopped(DEMO, "idle", MIDNIGHT) == (
        "“demo” was stopped: nothing was done in it. Its files are kept until 2026-11-25 00:00 UTC,"
        " and in a snapshot afterwards. Open it, and it starts again."
    )
    assert "Its files are kept. Open it" in words.stopped(DEMO, "quota")
    assert words.terminating_soon(DEMO, 86400).startswith("“demo” is put away in 1 day:")
    assert "it had no files to keep" in words.terminated(DEMO)
    assert words.failed(DEMO, "jupyter-lab: not found.") == (
        "“demo” failed: jupyter-lab: not found. Open its page to read more, or to start it again."
    )


def test_every_type_has_a_subject_of_its_own() -> None:
    assert len({words.subject(type, "demo") for type in TYPES}) == len(TYPES)
