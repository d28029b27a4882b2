"""How a machine that nobody logs in to becomes one of the fleet: an address and a code in, its own token out.

The code opens one machine's place once. What it was opened with, a nonce, is on the disk before it is
used, so that an answer that was lost is given again; the token is there afterwards, so that a machine that
was stopped comes back as the one it was. Both are forgotten on a copy of that disk in another instance.
Everything here blocks: the agent does nothing else yet.
"""

from __future__ import annotations

import json
import logging
import random
import re
import secrets
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lifecycle.agent.disk import read_json, write_json
from lifecycle.agent.imds import Imds, NoMetadata

log = logging.getLogger("lifecycle.agent")

URL, JOIN = "IDE_GATEWAY_URL", "IDE_GATEWAY_JOIN"
TAG = "/meta-data/tags/instance/ide-gateway:join"

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0  # seconds between two tries, doubled in between
JOIN_FOR = 900.0  # seconds of trying; by then the fleet has given the machine up
TAG_POLL = 2.0
TIMEOUT = 10.0  # seconds for one answer
MAX_ANSWER = 64 * 1024


class CannotJoin(Exception):
    """It was refused, or nobody answered for too long. str(error) says what to do."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where this machine was launched. url: of the gateway. code: () → the code and which of its launch's
    machines this is. host: its own address. instance: what its cloud calls it. imds: where notices come from."""

    url: str
    code: Callable[[], tuple[str, int]]
    host: str
    instance: str = ""
    imds: Imds | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    machine_id: str
    token: str = field(repr=False)
    slots: int


def by_environment(environment: Mapping[str, str]) -> Place:
    """As in a container. Raises CannotJoin."""
    url = _gateway(environment.get(URL, ""), "the environment")
    code = environment.get(JOIN, "")
    return Place(url, lambda: (code, 0), _route_to(url))


def by_imds(imds: Imds) -> Place:
    """As on an EC2 instance; one of a group gets its code as a tag. Raises CannotJoin."""
    try:
        user_data = imds.get("/user-data")
        instance, host = imds.get("/meta-data/instance-id"), imds.get("/meta-data/local-ipv4")
    except NoMetadata as error:
        raise CannotJoin(str(error)) from None
    url = _gateway(_line(URL, user_data), "the user data")
    code = _line(JOIN, user_data)

    def find() -> tuple[str, int]:
        if code:
            return code, int(imds.get("/meta-data/ami-launch-index") or 0)
        return _tagged(imds), 0

    return Place(url, find, host or _route_to(url), instance, imds)


def identify(place: Place, directory: Path, address: str) -> Identity:
    """Who this machine is: as it was told before, or as the gateway tells it now. Raises CannotJoin."""
    kept = directory / "joined.json"
    try:
        known = read_json(kept)
    except ValueError as error:
        raise CannotJoin(f"{error}; remove it, and launch another machine") from None
    if known.get("instance", place.instance) != place.instance:
        log.info("this disk was another instance's: joining anew")
        known = {}
    if "token" in known:
        return Identity(known["machineId"], known["token"], known["slots"])
    nonce = known.get("nonce") or secrets.token_urlsafe(24)
    write_json(kept, {"nonce": nonce, "instance": place.instance})
    try:
        code, index = place.code()
    except NoMetadata as error:
        raise CannotJoin(str(error)) from None
    body = {"code": code, "index": index, "nonce": nonce, "address": address}
    told = _join(place.url, body | {"instance": place.instance})
    who = Identity(str(told["machineId"]), str(told["token"]), int(told["slots"]))
    write_json(kept, told | {"nonce": nonce, "instance": place.instance})
    return who


def post(url: str, body: Mapping[str, Any], token: str = "") -> tuple[int, dict[str, Any]]:
    """Status and JSON of the answer. Raises OSError when there is none. Never follows to another place:
    the token is for this one."""
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers, method="POST")
    try:
        with _OPENER.open(request, timeout=TIMEOUT) as answer:
            return answer.status, _object(answer.read(MAX_ANSWER))
    except urllib.error.HTTPError as error:
        with error:
            return error.code, _object(error.read(MAX_ANSWER))


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_Stay)


def _join(url: str, body: Mapping[str, Any]) -> dict[str, Any]:
    give_up, pause = time.monotonic() + JOIN_FOR, FIRST_PAUSE
    while True:
        try:
            status, told = post(f"{url}/api/machines/join", body)
        except OSError as error:
            status, told = 0, {"error": {"message": str(error)}}
        if status == 200 and {"machineId", "token", "slots"} <= told.keys():
            return {name: told[name] for name in ("machineId", "token", "slots")}
        why = str(told.get("error", {}).get("message", "")) or f"it answers {status}"
        if status in (401, 409, 422):
            raise CannotJoin(f"{url} refuses this machine: {why}; launch another one")
        if time.monotonic() > give_up:
            raise CannotJoin(f"{url} did not let this machine join within {JOIN_FOR:g} s: {why}")
        log.warning("cannot join %s yet: %s", url, why)
        time.sleep(random.uniform(pause / 2, pause))
        pause = min(2 * pause, LONGEST_PAUSE)


def _tagged(imds: Imds) -> str:
    """Its code, once the gateway has tagged it. One that waits in a warm pool has none for long."""
    log.info("waiting for the tag ide-gateway:join")
    while True:
        try:
            if code := imds.get(TAG):
                return code
        except NoMetadata as error:
            log.warning("%s", error)
        time.sleep(random.uniform(TAG_POLL / 2, TAG_POLL))


def _gateway(url: str, where: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise CannotJoin(f"{where} has no line {URL}=https://…: launch machines by a pool")
    return url.rstrip("/")


def _line(name: str, text: str) -> str:
    found = re.search(rf"^{name}=(\S+)\s*$", text, re.MULTILINE)
    return found[1] if found else ""


def _route_to(url: str) -> str:
    """Our address as that host sees it. Sends nothing."""
    parts = urlsplit(url)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probing:
            probing.connect((parts.hostname, parts.port or 443))
            return str(probing.getsockname()[0])
    except OSError as error:
        raise CannotJoin(f"no way leads to {url} ({error}); or say --advertise ADDRESS") from None


def _object(raw: bytes) -> dict[str, Any]:
    try:
        data = json.loads(raw)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}
