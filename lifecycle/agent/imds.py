"""The metadata service of an EC2 instance, version 2 only: a token is asked for first. Blocks.

Instances are launched with a hop limit of 1, so that what comes through a container's bridge gets no
answer; a firewall rule keeps workspaces' own users from it (deploy/cloud-init.yaml). Nothing that is read
here is secret but for the instance's role, which we never ask for.
"""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

ENDPOINT = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
"""The same variable that AWS's own tools heed."""

TIMEOUT = 2.0  # seconds; it answers within milliseconds, or is not there
TTL = 21_600  # seconds that a token lives
MAX_ANSWER = 64 * 1024  # bytes; user data is 16 KiB at most


class NoMetadata(Exception):
    """It does not answer. str(error) says what to do."""


@dataclass(frozen=True, slots=True)
class Notice:
    """kind: "spot": taken away at that time; "rebalance": at a higher risk of that since then."""

    kind: Literal["spot", "rebalance"]
    at_ms: int


class Imds:
    def __init__(self, endpoint: str = "") -> None:
        base = endpoint or os.environ.get(ENDPOINT) or "http://169.254.169.254"
        self._base = base.rstrip("/") + "/latest"
        # A proxy would ask its own instance.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._token, self._renew_at = "", 0.0

    def get(self, path: str) -> str:
        """What stands there; "" when nothing does. Raises NoMetadata."""
        try:
            try:
                return self._read(path)
            except urllib.error.HTTPError as error:
                if error.code != 401:
                    raise
                self._token = ""  # the instance was resumed: it takes a new one
                return self._read(path)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return ""
            raise NoMetadata(f"the metadata service answers {error.code} to {path}") from None
        except OSError as error:
            raise NoMetadata(
                f"the metadata service at {self._base} does not answer ({error}); run on an EC2"
                " instance with IMDSv2, outside of containers, or use --join env"
            ) from None

    def notices(self) -> list[Notice]:
        """What was announced for this instance. Raises NoMetadata."""
        found = []
        for kind, path, field in _NOTICES:
            at_ms = _time(self.get(path), field)
            if at_ms:
                found.append(Notice(kind, at_ms))
        return found

    def _read(self, path: str) -> str:
        if not self._token or time.monotonic() > self._renew_at:
            ttl = {"X-aws-ec2-metadata-token-ttl-seconds": str(TTL)}
            self._token = self._ask("PUT", "/api/token", ttl)
            self._renew_at = time.monotonic() + TTL / 2
        return self._ask("GET", path, {"X-aws-ec2-metadata-token": self._token})

    def _ask(self, method: str, path: str, headers: dict[str, str]) -> str:
        request = urllib.request.Request(self._base + path, headers=headers, method=method)
        with self._opener.open(request, timeout=TIMEOUT) as answer:
            return str(answer.read(MAX_ANSWER).decode(errors="replace"))


_NOTICES: tuple[tuple[Literal["spot", "rebalance"], str, str], ...] = (
    ("spot", "/meta-data/spot/instance-action", "time"),
    ("rebalance", "/meta-data/events/recommendations/rebalance", "noticeTime"),
)


def _time(text: str, field: str) -> int:
    """Milliseconds since the epoch of an answer such as {"time": "2027-09-18T08:22:00Z"}; 0 if none is said."""
    try:
        data: Any = json.loads(text or "{}")
        said = datetime.strptime(data[field], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except (ValueError, KeyError, TypeError):
        return 0
    return int(said.timestamp() * 1000)
