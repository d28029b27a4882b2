"""Logs: a console on a terminal, else one JSON object a line. Ours, uvicorn's and everybody's go one way.

What users supply (paths, names, headers) ends up in logs: it cannot break a line, and credentials in it are taken out.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TextIO

import structlog

from gateway.terminal import colourful, one_line

QUIET = dict.fromkeys(
    ("uvicorn.error", "asyncio", "aiohttp", "aiobotocore", "botocore", "boto3"), logging.WARNING
)
"""Loggers whose news at the level "info" is ours to tell."""

_GONE = "[redacted]"
_SECRET_KEY = re.compile(
    r"(?i)(^|[_-])(secret|token|password|passwd|authorization|cookie|api[_-]?key|signing[_-]?key)$"
)
_PATTERNS = (
    # Authorization: Bearer x, "authorization": "token x", Cookie: a=b; c=d
    (re.compile(r"(?i)\b((?:proxy-)?authorization[\"']?\s*[:=]\s*(?:b?[\"'])?)(?:(?:bearer|token|basic)\s+)?[^\s\"',;]+"), rf"\1{_GONE}"),
    (re.compile(r"(?i)\b((?:set-)?cookie[\"']?\s*[:=]\s*(?:b?[\"'])?)[^\"'\r\n]+"), rf"\1{_GONE}"),
    (re.compile(r"(?i)\b(bearer\s+)[\w.~+/=-]+"), rf"\1{_GONE}"),
    # ?code=x&token=y, JUPYTER_TOKEN=z, password: w
    (re.compile(r"(?i)((?:\b|_)(?:token|secret|password|api_?key)[\"']?\s*=\s*(?:b?[\"'])?)[^\s&\"'#;,]+"), rf"\1{_GONE}"),
    (re.compile(r"\b(igw_)[\w.-]+"), rf"\1{_GONE}"),
    # ?code=x in a link; a close code or an exit code is no secret
    (re.compile(r"([?&]code=)[^\s&\"'#;,]+"), rf"\1{_GONE}"),
    # redis://user:password@host
    (re.compile(r"(?i)(\b[a-z][a-z0-9+.-]*://[^\s:/@]*:)[^\s/@]+(?=@)"), rf"\1{_GONE}"),
)  # fmt: skip


def configure(level: str, form: str, stream: TextIO | None = None) -> None:
    """Send structlog and the standard library's logging to one stream. form: auto, console or json."""
    stream = stream or sys.stderr
    console = form == "console" or (form == "auto" and stream.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        redact,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *(
                    _console(stream)
                    if console
                    else [structlog.processors.JSONRenderer(default=str)]
                ),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name, least in QUIET.items():
        logging.getLogger(name).setLevel(least if level != "debug" else logging.DEBUG)
    logging.captureWarnings(True)


KNOWN_MAX = 128  # characters: shorter ones are remembered


def redact(_logger: Any, _method: str, event: Any) -> Any:
    """Processor: take credentials out of every value, by its name and by its looks."""
    ours = {key: value for key, value in event.items() if key.startswith("_")}  # structlog's own
    return _clean({key: event[key] for key in event if key not in ours}, 5) | ours


def without_secrets(text: str) -> str:
    return _known_without(text) if len(text) < KNOWN_MAX else _without_secrets(text)


def _without_secrets(text: str) -> str:
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


_known_without = lru_cache(2048)(_without_secrets)  # the same names come again and again
_says_secret = lru_cache(1024)(_SECRET_KEY.search)


def _clean(value: Any, depth: int) -> Any:
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if isinstance(value, str):
        return without_secrets(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth and isinstance(value, Mapping):
        return {
            # A number is no credential: the lease's fencing token is one.
            str(key): _GONE
            if item and not isinstance(item, int) and _says_secret(str(key))
            else _clean(item, depth - 1)
            for key, item in value.items()
        }
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [_clean(item, depth - 1) for item in value]
    return without_secrets(str(value))


def _console(stream: TextIO) -> list[Any]:
    return [
        _in_one_line,
        structlog.dev.ConsoleRenderer(
            colors=colourful(stream),
            exception_formatter=structlog.dev.plain_traceback,
            pad_event_to=0,
        ),
    ]


def _in_one_line(_logger: Any, _method: str, event: Any) -> Any:
    """Only a traceback has lines of its own, and they are indented: none can pass for another record."""
    for key, value in event.items():
        if key in ("exception", "stack"):
            lines = str(value).splitlines()
            event[key] = "\n".join("    " + one_line(line) for line in lines)
        elif not isinstance(value, bool | int | float):
            event[key] = one_line(str(value))
    return event
