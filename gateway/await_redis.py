"""Wait for the Redis or Valkey that --redis-url names, or say why it cannot be used."""

from __future__ import annotations

import time

import redis
import redis.exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from gateway.exits import ConfigurationError, DependencyMissing
from gateway.sources import without_credentials

OLDEST = (7, 0)

ONCE = Retry(NoBackoff(), 0)
"""redis-py tries ten times by itself, with pauses; the tries here are ours."""


def wait_for_redis(
    url: str, source: str, tries: int = 5, seconds: float = 10.0
) -> tuple[str, list[str]]:
    """("Redis 7.4.1", warnings) once it answers. seconds: for all the tries together.

    source: where the URL was set, for the error. Raises DependencyMissing, ConfigurationError.
    """
    pause = seconds / tries
    reason = ""
    for attempt in range(tries):
        began = time.monotonic()
        try:
            return _looked_at(url, source, timeout=max(pause, 0.5))
        except (redis.ConnectionError, redis.TimeoutError) as error:
            reason = _reason(error)
        if attempt < tries - 1:
            time.sleep(max(0.0, pause - (time.monotonic() - began)))
    raise DependencyMissing(
        f"cannot reach Redis at {without_credentials(url)}"
        f" ({reason}, {tries} tries in {seconds:g} s)",
        _undo(source),
    )


def _looked_at(url: str, source: str, timeout: float) -> tuple[str, list[str]]:
    shown = without_credentials(url)
    try:
        client = redis.Redis.from_url(
            url,
            socket_connect_timeout=timeout,
            socket_timeout=timeout,
            decode_responses=True,
            retry=ONCE,
        )
    except ValueError as error:
        raise ConfigurationError(
            f"{shown} is no Redis URL: {error}", f"set by {_name(source)}"
        ) from error
    with client:
        try:
            info = client.info()
        except (redis.AuthenticationError, redis.exceptions.AuthorizationError) as error:
            raise ConfigurationError(
                f"Redis at {shown} refuses the password or user ({error})",
                f"set by {_name(source)}",
            ) from error
        except redis.ResponseError as error:
            raise ConfigurationError(
                f"Redis at {shown} does not let us in ({error})", f"set by {_name(source)}"
            ) from error
    return _judged(info, shown)


def _judged(info: dict[str, object], shown: str) -> tuple[str, list[str]]:
    version = str(info.get("redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        raise ConfigurationError(
            f"Redis at {shown} is version {version}; 7.0 is the oldest that does",
            "use a newer Redis, any Valkey, or the embedded one (unset the URL)",
        )
    if info.get("role") == "slave":
        raise ConfigurationError(
            f"Redis at {shown} is a read-only replica", "name its primary with --redis-url"
        )
    policy = info.get("maxmemory_policy", "noeviction")
    warnings = []
    if policy != "noeviction":
        warnings.append(
            f"Redis at {shown} may drop keys when it is full (maxmemory-policy {policy}), and with"
            " them workspaces' records; set it to noeviction"
        )
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}", warnings
    return f"Redis {version}", warnings


def _reason(error: Exception) -> str:
    """Why it cannot be reached, in the words of the system and without any credential."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, redis.TimeoutError):
        return "no answer in time"
    return str(error).splitlines()[0][:200].rstrip(".").lower() or type(error).__name__


def _undo(source: str) -> str:
    verb = "leave it out" if source.startswith("flag") else "unset it"
    return f"set by {_name(source)}; {verb} to use the embedded Valkey"


def _name(source: str) -> str:
    """ "--redis-url" of "flag --redis-url"."""
    return source.partition(" ")[2] or source
