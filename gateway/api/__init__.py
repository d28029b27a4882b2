"""The REST API of the bare domain: every call, in one table.

`routes(parts)` goes into the base host's router; it answers /api, /heartbeat, /workspace/update,
/healthz, /readyz and /metrics. gateway/openapi.py describes the same table.
"""

from __future__ import annotations

from itertools import groupby

from starlette.routing import BaseRoute, Route

from gateway.api import answers as a
from gateway.api import (
    archive,
    dashboard,
    events,
    fleet,
    health,
    joining,
    peaks,
    policy,
    quota,
    usage,
)
from gateway.api import bodies as b
from gateway.api import notices as n
from gateway.api import workspaces as w
from gateway.api.operation import Endpoint, Operation, UnknownPath
from gateway.api.parts import Entry, Parts

__all__ = ["Entry", "Parts", "operations", "routes"]

_ONE = "/api/workspaces/{id}"
_WS, _LATER = {200: a.WorkspaceAnswer}, {200: a.WorkspaceAnswer, 202: a.WorkspaceAnswer}
_CREATE = "Give the user their workspace, awake; safe to repeat"
_TEXT, _STREAM = "text/plain", "text/event-stream"


def operations() -> tuple[Operation, ...]:
    """Every call. Paths that have several methods stand together."""
    told, seen = events.EventCalls(), dashboard.DashboardCalls()
    of = Operation
    return (
        of("GET", "/api/workspaces", w.listing, "List workspaces, newest first", "person", _WS,
           query=b.ListQuery, many=True),
        of("POST", "/api/workspaces", w.create, _CREATE, "person", _LATER, b.Create,
           errors=(403, 409, 429)),
        of("POST", "/api/createWorkspace", w.create, _CREATE, "person", _LATER, b.Create,
           errors=(403, 409, 429)),
        of("GET", _ONE, w.get, "One workspace", "person", _WS, errors=(404,)),
        of("DELETE", _ONE, w.delete, "Snapshot and terminate; purge a terminated one", "person",
           {202: a.WorkspaceAnswer, 204: None}, query=b.DeleteQuery, errors=(404, 409)),
        of("POST", f"{_ONE}/start", w.start, "Wake it", "person", _LATER, b.Nothing,
           errors=(404, 429)),
        of("POST", f"{_ONE}/stop", w.stop, "Stop it, files are kept", "person", _LATER, b.Nothing,
           errors=(404,)),
        of("POST", f"{_ONE}/extend", w.extend, "No stop for idleness before then", "person", _WS,
           b.Extend, errors=(404, 409)),
        of("POST", f"{_ONE}/snapshot", w.snapshot, "Write and verify a snapshot now", "person",
           {200: a.ManifestAnswer}, b.Nothing, errors=(404, 409, 507)),
        of("POST", f"{_ONE}/heartbeat", w.heartbeat, "Activity on purpose", "person", _WS,
           b.Heartbeat, errors=(404, 409)),
        of("POST", f"{_ONE}/enter", w.enter, "A fresh one-use entry URL", "person",
           {200: a.EntryAnswer}, b.Enter, errors=(404,)),
        of("GET", f"{_ONE}/activity", w.activity, "Why it is alive, and what happens when",
           "person", {200: a.ActivityAnswer}, errors=(404,)),
        of("GET", f"{_ONE}/policy", policy.policy, "How long it lives, and who says so", "person",
           {200: a.PolicyAnswer}, errors=(404,)),
        of("PUT", f"{_ONE}/policy", policy.set_policy, "Its own policy, over its plan's", "person",
           {200: a.PolicyAnswer}, b.OwnPolicy, errors=(403, 404)),
        of("POST", f"{_ONE}/keep", policy.keep, "Not put away before then", "person", _WS, b.Keep,
           errors=(403, 404, 409)),
        of("POST", f"{_ONE}/pin", policy.pin, "Never stopped by itself; for the operator",
           "person", _WS, b.Nothing, errors=(403, 404)),
        of("POST", f"{_ONE}/unpin", policy.unpin, "Stopped like any other; for the operator",
           "person", _WS, b.Nothing, errors=(403, 404)),
        of("GET", f"{_ONE}/download", archive.download, "The newest snapshot, as a .tar.gz",
           "person", {200: None}, errors=(404, 503), media_types=("application/gzip",)),
        of("POST", "/heartbeat", w.heartbeat, "Activity on purpose", "person", _WS, b.Update,
           errors=(404, 409)),
        of("POST", "/workspace/update", w.heartbeat, "Activity on purpose", "person", _WS,
           b.Update, errors=(404, 409)),
        of("GET", "/api/machines", fleet.machines, "Machines", "admin", {200: a.MachineAnswer},
           many=True),
        of("POST", "/api/machines/join", joining.join, "A machine joins with its launch's code",
           "public", {200: a.JoinAnswer}, b.Join, errors=(401, 404, 409, 503)),
        of("POST", "/api/machines/{id}/report", joining.report, "A machine says that it is there",
           "machine", {200: a.Empty}, b.MachineReport, errors=(404,)),
        of("POST", "/api/machines/{id}/drain", dashboard.drain, "Nothing new comes to it", "admin",
           {200: a.MachineAnswer}, b.Nothing, errors=(404, 409)),
        of("POST", "/api/machines/{id}/undrain", dashboard.undrain, "It works again", "admin",
           {200: a.MachineAnswer}, b.Nothing, errors=(404, 409)),
        of("GET", "/api/dashboard", seen.get, "Everything at a glance; live as an event stream",
           "admin", {200: a.DashboardAnswer}, errors=(503,),
           media_types=("application/json", _STREAM)),
        of("GET", "/api/pool", fleet.pool, "The scaler's last decision with its inputs", "admin",
           {200: a.PoolAnswer}),
        of("GET", "/api/peaks", peaks.listing, "Peaks that are declared, and what is held for each", "admin",
           {200: a.PeakAnswer}, many=True),
        of("POST", "/api/peaks", peaks.declare, "So many people come at that time: have slots for them",
           "admin", {200: a.PeakAnswer}, b.DeclarePeak, errors=(409,)),
        of("DELETE", "/api/peaks/{name}", peaks.remove, "They do not come: hold no slots for them", "admin",
           {200: a.PeakAnswer}, errors=(404, 409)),
        of("GET", "/api/usage", usage.usage, "Metered usage in a month, and its cost",
           "person", {200: a.UsageReply}, query=b.UsageQuery, errors=(404,),
           media_types=("application/json", "text/csv")),
        of("GET", "/api/quota", quota.quota, "What a user has of their quotas, and when it frees",
           "person", {200: a.QuotaAnswer}, query=b.QuotaQuery, errors=(404,)),
        of("GET", f"{_ONE}/notices", n.notices, "What its person was told", "person",
           {200: a.NoticeAnswer}, query=b.NoticesQuery, many=True, errors=(404,)),
        of("GET", "/api/preferences", n.preferences, "Which notices a user wants, and where",
           "person", {200: a.PreferencesAnswer}, query=b.UserQuery, errors=(404,)),
        of("PUT", "/api/preferences", n.prefer, "Opt out of notices; the operator sets addresses",
           "person", {200: a.PreferencesAnswer}, b.Preferences, query=b.UserQuery,
           errors=(403, 404)),
        of("GET", "/api/deliveries", n.deliveries, "Notices on their way, newest first", "admin",
           {200: a.DeliveryAnswer}, query=b.DeliveriesQuery, many=True),
        of("POST", "/api/deliveries/{id}/retry", n.retry, "Send one again that failed", "admin",
           {200: a.DeliveryAnswer}, b.Nothing, errors=(404, 409)),
        of("GET", "/api/events", told.get, "What happened, newest last; live as an event stream",
           "person", {200: a.EventAnswer}, query=b.EventsQuery, many=True, errors=(404, 429),
           media_types=("application/json", _STREAM)),
        of("GET", "/api/me", fleet.me, "Who calls", "person", {200: a.MeAnswer}),
        of("GET", "/api/openapi.json", health.openapi, "This document", "public", {200: None}),
        of("GET", "/healthz", health.healthz, "Alive", "public", {200: a.HealthAnswer}),
        of("GET", "/readyz", health.readyz, "Take traffic?", "public",
           {200: a.ReadyAnswer, 503: a.ReadyAnswer}),
        of("GET", "/metrics", health.metrics, "Prometheus text; needs the metrics token if one is set",
           "public", {200: None}, errors=(401,), media_types=(_TEXT,)),
    )  # fmt: skip


def routes(parts: Parts) -> list[BaseRoute]:
    """Routes that answer every method and every path below /api themselves, in the API's error shape."""
    by_path = groupby(operations(), key=lambda operation: operation.path)
    known: list[BaseRoute] = [Route(path, Endpoint(group, parts)) for path, group in by_path]
    return [*known, Route("/api/{rest:path}", UnknownPath())]
