"""What callers send: the bodies and queries, their limits, and how a body is read.

Unknown fields are refused by name, so that a misspelt one is never silently without effect. The
declared content type is not asked for: what counts is that the bytes are JSON.
"""

from __future__ import annotations

import ipaddress
import json
from typing import Annotated, Any, Literal, NoReturn, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel
from starlette.requests import Request

from gateway.api.errors import ApiError, Invalid
from gateway.entry import safe_next
from lifecycle.model import WorkspaceStatus
from lifecycle.notices.deliveries import Status
from lifecycle.peaks import EARLY, LATE
from lifecycle.peaks_declared import NAME, USERS_MAX, WINDOW_MAX
from lifecycle.queueing import PRIORITIES, boost_ms

MAX_BODY = 64 * 1024
MAX_KEEP = 366 * 86_400.0  # seconds
MAX_EXTEND = 7 * 86400
MAX_EVENTS = 1000
MAX_USERS = 1000
EVENT_ID = "[0-9]{1,16}(-[0-9]{1,16})?"
MAIL = r"^[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@[A-Za-z0-9.-]{1,189}$"

Model = TypeVar("Model", bound=BaseModel)


def _no_dots(user_id: str) -> str:
    if ".." in user_id:
        raise ValueError('must not contain ".."')
    return user_id


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must consist of printable characters")
    return text


def _local_path(path: str) -> str:
    if safe_next(path) != path:
        raise ValueError('must be a path of the workspace, such as "/lab"')
    return path


def _priority(value: str | int) -> str | int:
    if isinstance(value, int):
        boost_ms(str(value))
    elif value not in PRIORITIES:
        raise ValueError(f"must be one of {', '.join(PRIORITIES)}, or a number of seconds")
    return value


def _endpoint(address: str) -> str:
    host, _, port = address.rpartition(":")
    try:
        ip = ipaddress.IPv4Address(host)
    except ValueError:
        raise ValueError('must be an IPv4 address and a port, such as "10.0.0.7:7070"') from None
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError("must end in a port from 1 to 65535")
    if ip.is_link_local or ip.is_multicast or ip.is_unspecified:
        raise ValueError("must be an address that a machine can have")
    return f"{ip}:{int(port)}"


UserId = Annotated[
    str,
    Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.@+|:=-]*$"),
    AfterValidator(_no_dots),
]
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
WorkspaceId = Annotated[str, Field(min_length=1, max_length=40)]
Kind = Literal["api", "input", "frames", "job"]
NoticeType = Literal[
    "workspace.stopping_soon",
    "workspace.stays",
    "workspace.stopped",
    "workspace.failed",
    "workspace.terminating_soon",
    "workspace.terminated",
    "quota.alert",
]
Priority = Annotated[
    str | int,
    AfterValidator(_priority),
    WithJsonSchema({"anyOf": [{"enum": list(PRIORITIES)}, {"type": "integer"}]}),
]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)


class Create(Body):
    """priority: "vip", "normal", "batch", or the seconds of waiting that it is worth."""

    user_id: UserId | None = None
    name: Annotated[str, Field(max_length=64), AfterValidator(_printable)] = ""
    priority: Priority = "normal"
    plan: Label = "default"
    region: Label = "local"


class Nothing(Body):
    """An empty object, or no body at all."""


class Preferences(Body):
    """email: null for none. optOut: type → channels that it does not come by; the whole of it."""

    email: Annotated[str, Field(max_length=254, pattern=MAIL)] | None = None
    opt_out: dict[NoticeType, list[Literal["ide", "webhook", "email"]]] | None = None


class Extend(Body):
    """seconds: from now; the idle timeout if left out."""

    seconds: Annotated[float, Field(gt=0, le=MAX_EXTEND)] | None = None


class Keep(Body):
    """seconds: from now; the retention if left out."""

    seconds: Annotated[float, Field(gt=0, le=MAX_KEEP)] | None = None


class DeclarePeak(Body):
    """at: milliseconds since the epoch. users: who come beside those who usually do; the first of them earlySeconds
    before, the last lateSeconds after. One of the same name is replaced."""

    name: Annotated[str, Field(pattern=NAME)]
    at: Annotated[int, Field(ge=0, lt=10**14)]
    users: Annotated[int, Field(ge=1, le=USERS_MAX)]
    early_seconds: Annotated[float, Field(ge=0, le=WINDOW_MAX)] = EARLY
    late_seconds: Annotated[float, Field(ge=1, le=WINDOW_MAX)] = LATE


Seconds = Annotated[float, Field(ge=0, lt=10**9)]
Cron = Annotated[str, Field(max_length=100)]


class OwnPolicy(Body):
    """As in a plan. What is null or left out is as the plan has it."""

    idle_timeout: Seconds | None = None
    signals: list[Literal["input", "frames", "job", "api"]] | None = None
    max_job_hours: Annotated[float, Field(ge=0, lt=10**6)] | None = None
    retention: Seconds | None = None
    keep: bool | None = None
    max_lifetime: Seconds | None = None
    quiet_hours: Cron | None = None
    quiet_idle_timeout: Seconds | None = None
    autostart: Cron | None = None
    time_zone: Annotated[str, Field(max_length=64)] | None = None
    countdown: Annotated[list[Seconds], Field(max_length=10)] | None = None
    ending_notice: Annotated[list[Seconds], Field(max_length=10)] | None = None


class Heartbeat(Body):
    kind: Kind = "api"


class Update(Heartbeat):
    workspace_id: WorkspaceId


class Enter(Body):
    """next: the path to land on."""

    next: Annotated[str, Field(max_length=2048), AfterValidator(_local_path)] = "/"


Endpoint = Annotated[str, Field(max_length=21), AfterValidator(_endpoint)]
Instance = Annotated[str, Field(max_length=256), AfterValidator(_printable)]


class Join(Body):
    """index: which machine of the launch. nonce: the agent's own secret, the same with every try.
    address: where its agent listens. instance: what its cloud calls it."""

    code: Annotated[str, Field(max_length=64)]
    index: Annotated[int, Field(ge=0, lt=100_000)] = 0
    nonce: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{16,64}$")]
    address: Endpoint
    instance: Instance = ""


class Notice(Body):
    """What its cloud told the machine. at: when it is taken away."""

    kind: Literal["spot", "rebalance"]
    at: Annotated[int, Field(ge=0, lt=10**14)]


class MachineReport(Body):
    """report: the agent's figures, as its own /status tells them."""

    address: Endpoint
    instance: Instance = ""
    report: dict[str, Any]
    notice: Notice | None = None


class Query(BaseModel):
    """Query strings are text, so numbers and booleans are read from it."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel)


class ListQuery(Query):
    user_id: UserId | None = None
    status: WorkspaceStatus | None = None


class DeleteQuery(Query):
    purge: bool = False


class UsageQuery(Query):
    """month: YYYY-MM, UTC; this one if left out. after, limit: of the users, when none is named."""

    user: UserId | None = None
    month: Annotated[str, Field(pattern=r"^20[0-9]{2}-(0[1-9]|1[0-2])$")] | None = None
    format: Literal["json", "csv"] | None = None
    after: UserId | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_USERS)] = 100


class QuotaQuery(Query):
    """user: whose; persons ask for their own. plan: whose quotas; that of the newest workspace if left out."""

    user: UserId | None = None
    plan: Label | None = None


class UserQuery(Query):
    """user: whose; a person's own if left out."""

    user: UserId | None = None


class NoticesQuery(Query):
    """after: the number of the last one seen."""

    after: Annotated[int, Field(ge=0, le=10**12)] = 0


class DeliveriesQuery(Query):
    user: UserId | None = None
    status: Status | None = None
    limit: Annotated[int, Field(ge=1, le=500)] = 100


class EventsQuery(Query):
    """after: the id of the last event seen."""

    after: Annotated[str, Field(pattern=f"^{EVENT_ID}$")] | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_EVENTS)] = 100
    workspace_id: WorkspaceId | None = None


async def read_body(request: Request, model: type[Model]) -> Model:
    """The request's body as that model. Raises 413, 400 `bad_json`, 422 naming the field."""
    raw = await _bounded(request)
    data = _parse(raw) if raw.strip() else {}
    if not isinstance(data, dict):
        raise Invalid("the body must be a JSON object, such as {}")
    return _validated(model, data)


def read_query(request: Request, model: type[Model]) -> Model:
    """The query string as that model; an empty value is as good as none. Raises 422."""
    pairs = [(name, value) for name, value in request.query_params.multi_items() if value]
    for name, _ in pairs:
        if [other for other, _ in pairs].count(name) > 1:
            raise Invalid(f"{_short(name)} is given twice", _short(name))
    return _validated(model, dict(pairs))


async def _bounded(request: Request) -> bytes:
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > MAX_BODY:
            message = f"the body is larger than {MAX_BODY} bytes"
            # What is left of it is not read, so the connection cannot be used again.
            raise ApiError(413, "body_too_large", message, headers={"Connection": "close"})
    return bytes(raw)


def _parse(raw: bytes) -> Any:
    try:
        return json.loads(raw.decode(), parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        where = {"line": error.lineno, "column": error.colno}
        message = f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        raise ApiError(400, "bad_json", message, details=where) from None
    except UnicodeDecodeError as error:
        message = f"not JSON: byte {error.start} is not UTF-8"
        raise ApiError(400, "bad_json", message) from None
    except (ValueError, RecursionError) as error:
        raise ApiError(400, "bad_json", f"not JSON that can be read: {error}") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _validated(model: type[Model], data: dict[str, Any]) -> Model:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        # Never the input itself: it may be long, and it may be somebody's secret.
        first = error.errors(include_url=False, include_input=False)[0]
        field = _short(str(first["loc"][0])) if first["loc"] else ""
        if first["type"] == "extra_forbidden":
            known = ", ".join(_aliases(model)) or "none"
            message = f"unknown field {field}; known: {known}"
            raise Invalid(message, field, "unknown_field") from None
        said = first["msg"].removeprefix("Value error, ")
        raise Invalid(f"{field}: {said[:1].lower()}{said[1:]}", field) from None


def _aliases(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _short(name: str) -> str:
    """A caller's own word, fit for a message."""
    return "".join(c if c.isprintable() else "?" for c in name[:64])
