"""The control channel's messages, as bytes and as values. Pure. docs/control-channel.md is their contract.

BadMessage says what is wrong with one that came up; whoever sent it is told and closed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgpack

from lifecycle.activity import Bound
from lifecycle.model import Workspace, WorkspaceStatus
from lifecycle.notices import Notice

SUBPROTOCOL = "ide-gateway.v1"
UP_MAX = 4096  # bytes of a message from a client

_SEQ_MAX = 2**53
_CLIENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._/-]{0,31}")
_FIELDS_MAX = 32
"""Of one map: room for what later clients say beside what is known today."""


class BadMessage(ValueError):
    """str(error) fits a close frame."""


@dataclass(frozen=True, slots=True)
class Hello:
    """seq: of the newest notice that the client has; 0: it has none. client: what it is."""

    seq: int
    client: str


@dataclass(frozen=True, slots=True)
class Seen:
    """A person was there just now."""


@dataclass(frozen=True, slots=True)
class Stay:
    """A person wants the workspace to stay."""


def heard(data: bytes | None) -> Hello | Seen | Stay:
    """A message from a client; unknown fields are left alone. None: it came as text. Raises BadMessage."""
    if data is None:
        raise BadMessage("messages are binary frames")
    if len(data) > UP_MAX:
        raise BadMessage(f"a message has {UP_MAX} bytes at most")
    try:
        said = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            max_map_len=_FIELDS_MAX,
            max_array_len=_FIELDS_MAX,
            max_ext_len=0,
        )
    except (ValueError, TypeError):
        raise BadMessage("a message is one msgpack map with text keys") from None
    if not isinstance(said, dict):
        raise BadMessage("a message is one msgpack map with text keys")
    match said:
        case {"t": "hello"}:
            return _hello(said)
        case {"t": "seen", "kind": "input"}:
            return Seen()
        case {"t": "stay"}:
            return Stay()
    raise BadMessage("t is hello, seen (with kind input) or stay")


def _hello(said: Mapping[Any, Any]) -> Hello:
    seq, client = said.get("seq", 0), said.get("client")
    if type(seq) is not int or not 0 <= seq < _SEQ_MAX:
        raise BadMessage("seq is the number of the last notice seen, 0 for none")
    if not isinstance(client, str) or not _CLIENT.fullmatch(client):
        raise BadMessage("client is a name of up to 32 letters, digits, spaces and . _ / -")
    return Hello(seq, client)


def packed(message: Mapping[str, Any]) -> bytes:
    data: bytes = msgpack.packb(dict(message))
    return data


def state(workspace: Workspace, bound: Bound) -> dict[str, Any]:
    """What a client is told of its workspace, but for `now`."""
    runs = workspace.status is WorkspaceStatus.RUNNING
    return {
        "t": "state",
        "status": str(workspace.status),
        "stopsAt": bound.at_ms if runs else None,
        "because": bound.because if runs else None,
        "reason": workspace.reason or workspace.error or None,
        "canStay": runs and not bound.hard,
    }


def notice(told: Notice) -> dict[str, Any]:
    return {
        "t": "notice",
        "seq": told.seq,
        "type": told.type,
        "at": told.at_ms,
        "text": told.text,
        "data": dict(told.data),
    }
