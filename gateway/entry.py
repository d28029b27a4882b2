"""One-use entry codes: how a person gets from one origin to another without a lasting secret in a URL.

Redis: code:{sha256(code)} → JSON, expires after the code's life; read and deleted in one step.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from dataclasses import asdict, dataclass
from typing import Literal

from redis.asyncio import Redis

from lifecycle.stores import keys
from lifecycle.stores.connection import asked

Kind = Literal["home", "workspace"]

# Printable ASCII without backslash and space: browsers take "\" for "/", and skip tabs and newlines.
_PATH = re.compile(r"/(?!/)[!-\[\]-~]*")
_MAX_NEXT = 2048


@dataclass(frozen=True, slots=True)
class Grant:
    """What a code was good for. next: a path on the origin entered.

    workspace: the label of that one host, "ada-x2k4" or "8080--ada-x2k4": what is served at a port may
    see the codes that come there, and must not enter the IDE with one. "" for kind home.
    """

    kind: Kind
    user: str
    workspace: str
    next: str


class Codes:
    def __init__(self, redis: Redis) -> None:
        """redis: with decode_responses=True."""
        self._redis = redis

    async def mint(
        self, kind: Kind, user: str, workspace: str = "", *, ttl: float, next: str = "/"
    ) -> str:
        """A code of 256 random bits, good once within ttl seconds. Redis sees only its hash.
        Raises StoreUnavailable."""
        code = secrets.token_urlsafe(32)
        grant = Grant(kind, user, workspace, safe_next(next))
        life = max(1, int(ttl * 1000))
        await asked(self._redis.set(_key(code), json.dumps(asdict(grant)), px=life))
        return code

    async def redeem(self, code: str) -> Grant | None:
        """What the code was good for; None when it is wrong, used or too old. It is used up by this."""
        found = await asked(self._redis.getdel(_key(code)))
        return Grant(**json.loads(found)) if found else None


def safe_next(path: str) -> str:
    """The path itself when it can only lead to the same origin, "/" otherwise.

    Refused: other schemes and hosts, `//host`, `/\\host`, control characters, what is no plain ASCII.
    """
    return path if len(path) <= _MAX_NEXT and _PATH.fullmatch(path) else "/"


def _key(code: str) -> str:
    return keys.code(hashlib.sha256(code.encode("utf-8", "surrogatepass")).hexdigest())
