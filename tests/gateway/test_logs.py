"""Logs: one record a line whatever users supply, no credentials, colours only where they are wanted."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from gateway.logs import configure, without_secrets
from gateway.terminal import colourful

SECRET = "s3cr3t-value-0123456789"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)
    structlog.reset_defaults()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("form", ["console", "json"])
def test_what_users_supply_cannot_begin_a_record(form: str) -> None:
    stream = io.StringIO()
    configure("info", form, stream)
    forged = "x\n2026-01-01T00:00:00Z [info] forged\r\u2028\x1b[2J"
    structlog.get_logger("gateway.x").info("visit " + forged, path=forged, names=[forged])
    logging.getLogger("uvicorn.error").warning("bad request %s", forged)
    text = stream.getvalue()
    assert text.count("\n") == 2
    assert "\x1b" not in text
    assert len(text.splitlines()) == 2


def test_only_a_traceback_has_more_lines_and_they_are_indented() -> None:
    stream = io.StringIO()
    configure("info", "console", stream)
    try:
        raise ValueError("x\n2026-01-01T00:00:00Z [info] forged")
    except ValueError:
        structlog.get_logger("gateway.x").exception("failed")
    first, *rest = stream.getvalue().splitlines()
    assert "failed" in first
    assert any("forged" in line for line in rest)
    assert all(line.startswith("    ") for line in rest)


@pytest.mark.parametrize("form", ["console", "json"])
def test_credentials_are_taken_out(form: str) -> None:
    stream = io.StringIO()
    configure("info", form, stream)
    log = structlog.get_logger("gateway.x")
    log.info(
        "proxied",
        path=f"/enter?next=/&code={SECRET}",
        token=SECRET,
        headers={"Authorization": f"Bearer {SECRET}", "cookie": f"ide-gateway={SECRET}"},
        raw=[(b"authorization", b"Bearer " + SECRET.encode())],
        command=f"JUPYTER_TOKEN={SECRET} jupyter-lab",
        redis=f"unix://:{SECRET}@/run/valkey.sock",
    )
    logging.getLogger("x").warning("Authorization: token %s, Cookie: a=%s; b=2", SECRET, SECRET)
    try:
        raise ValueError(f"cannot open redis://me:{SECRET}@host/0")
    except ValueError:
        log.exception("failed")
    assert stream.getvalue().count("[redacted]") >= 9
    assert SECRET not in stream.getvalue()


def test_close_codes_and_counts_are_no_credentials() -> None:
    assert without_secrets("session ended, code=4408") == "session ended, code=4408"
    stream = io.StringIO()
    configure("info", "json", stream)
    structlog.get_logger("gateway.x").info(
        "ended", close_code=4408, error_code="quota_exceeded", token=7
    )
    record = json.loads(stream.getvalue())
    assert (record["close_code"], record["error_code"]) == (4408, "quota_exceeded")
    assert record["token"] == 7  # a lease's


def test_json_has_one_object_a_record() -> None:
    stream = io.StringIO()
    configure("info", "auto", stream)
    structlog.get_logger("gateway.x").info("started", machines=1)
    record = json.loads(stream.getvalue())
    assert record["event"] == "started"
    assert record["level"] == "info"
    assert record["logger"] == "gateway.x"
    assert record["machines"] == 1
    assert record["timestamp"].endswith("Z")


def test_below_the_level_and_uvicorns_small_talk_are_left_out() -> None:
    stream = io.StringIO()
    configure("info", "json", stream)
    structlog.get_logger("gateway.x").debug("detail")
    logging.getLogger("uvicorn.error").info("Started server process")
    assert stream.getvalue() == ""
    configure("debug", "json", stream)
    logging.getLogger("uvicorn.error").info("Started server process")
    assert "Started server process" in stream.getvalue()


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert colourful(Terminal())
    assert not colourful(io.StringIO())
    monkeypatch.setenv("TERM", "dumb")
    assert not colourful(Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colourful(Terminal())
    stream = Terminal()
    configure("info", "auto", stream)
    structlog.get_logger("gateway.x").info("started")
    assert "started" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()
