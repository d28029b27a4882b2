"""What all gateways on one Redis have in common, kept there by whoever came first: the key that signs
cookies and tokens, and the directory with the local pool's machines."""

from __future__ import annotations

from pathlib import Path

import redis
from redis.asyncio import Redis

from gateway.exits import ConfigurationError
from gateway.private import secret_in, write_private
from lifecycle.stores.connection import asked
from lifecycle.stores.keys import POOL_DIRECTORY, SIGNING_KEY

_ID = "pool-id"
"""File in that directory with the id, so that one of that name on another host is not taken for it."""


def shared_signing_key(redis_url: str, path: Path, given: str = "") -> str:
    """The key in Redis wins; one that Redis has lost is put back from the file. given: by an operator,
    who keeps it elsewhere: it wins over both."""
    ours = given or secret_in(path)
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        client.set(SIGNING_KEY, ours, nx=not given)
        shared = str(client.get(SIGNING_KEY))
    if shared != ours and not given:
        write_private(path, shared + "\n")
    return shared


def shared_directory(redis_url: str, data_dir: Path, *, embedded: bool) -> Path:
    """The data directory with the local pool's machines and, by default, the snapshots: that of the first
    gateway on this Redis. So whoever leads sees every machine, whoever launched it; to a pool of another
    directory those of a killed gateway would look gone. Raises ConfigurationError."""
    ours, here = secret_in(data_dir / _ID), data_dir.absolute()
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        # The embedded Redis lies in that directory itself, wherever it was moved to.
        client.set(POOL_DIRECTORY, f"{ours} {here}", nx=not embedded)
        known, _, path = str(client.get(POOL_DIRECTORY)).partition(" ")
        if _id_in(Path(path)) == known:
            return Path(path)
        if known == ours:  # it was moved
            client.set(POOL_DIRECTORY, f"{ours} {here}")
            return here
    raise ConfigurationError(
        f"this Redis's machines are in {path}, which is not on this host or cannot be read",
        "local machines serve the gateways of one host: start this one there, or give it another"
        f" Redis; if that directory is gone for good: redis-cli DEL {POOL_DIRECTORY}",
    )


async def put_back(client: Redis, signing_key: str, directory: Path | None) -> None:
    """After Redis has lost its data: who starts next is to share both with those that run. directory:
    None when the machines are not on this host."""
    await asked(client.set(SIGNING_KEY, signing_key, nx=True))
    if directory is None:
        return
    await asked(client.set(POOL_DIRECTORY, f"{_id_in(directory)} {directory}", nx=True))


def _id_in(directory: Path) -> str:
    try:
        return (directory / _ID).read_text().strip()
    except OSError:
        return ""
