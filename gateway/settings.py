"""One frozen record with every setting. It is read once; `gateway.sources` says where each value came from.

Times are seconds, sizes bytes. A field's description is the help text of its flag.
"""

from __future__ import annotations

import base64
import re
import shlex
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from lifecycle import schedule
from lifecycle.plans import KINDS
from lifecycle.snapshots.registry import S3_FORM, s3_parts

JUPYTERLAB_COMMAND = (
    "JUPYTER_TOKEN={secret} jupyter-lab --no-browser --allow-root --ServerApp.ip={host}"
    " --ServerApp.port={port} --ServerApp.port_retries=0 --ServerApp.base_url={base_url}"
    " --ServerApp.root_dir={dir} --ServerApp.allow_remote_access=True"
    # No calls to jupyter.org or PyPI, and nobody installs extensions into the gateway's own Python.
    " --LabApp.news_url=None --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"
    " --LabApp.extension_manager=readonly"
)
JUPYTERLAB = {
    "workspace_ready_path": "/api",
    "workspace_jobs_path": "/api/kernels",
    "workspace_upstream_header": "Authorization: token {secret}",
}
"""What belongs to the default command, and to no other."""
JUPYTERLAB_READS = (
    ".jupyter/jupyter_*",
    "jupyter_*config*",
    ".local/etc/jupyter",
    ".local/lib/python*",
)
"""What its server reads of a person's home when it starts: their configuration of it, and their extensions."""

SECRETS = frozenset(
    {"api_key", "signing_key", "redis_url", "metrics_token", "store", "smtp_url", "webhook_secret"}
)
"""Never printed; each may also be given as IDE_GATEWAY_<NAME>_FILE."""

NO_FLAG = frozenset({"api_key", "signing_key"})
"""Every process on a machine can read another's arguments."""

PARTS = {
    "host": "Where",
    "workspace_command": "The IDE",
    "idle_timeout": "The life of a workspace (seconds)",
    "pool": "The pool of machines",
    "plans": "Fair use",
    "webhook_url": "Notices",
    "store": "State and snapshots",
    "aws_region": "AWS",
    "max_sessions": "Bounds",
    "log_level": "Log",
}
"""First field of each part → the part's heading in the help text."""

MAKE_SECRET = 'make one with: echo "whsec_$(openssl rand -base64 32)"'

PLACEHOLDERS = ("host", "port", "workspace", "dir", "base_url", "secret")

_HOST_NAME = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+: ?[\x20-\x7e]+")
_CREDENTIAL = re.compile(r"[\x21-\x7e]*")
_MAILBOX = re.compile(r"([^<>\r\n]* )?<?[A-Za-z0-9._+=-]+@[A-Za-z0-9.-]+>?")
_NAME_VALUE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")


def _seconds(default: float, text: str, **bounds: Any) -> Any:
    bounds = bounds or {"gt": 0}
    return Field(default, description=f"{text}, in seconds.", allow_inf_nan=False, **bounds)


def _count(default: int, text: str, least: int = 1) -> Any:
    return Field(default, description=f"{text}.", ge=least)


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    host: str = Field("127.0.0.1", description="Address to listen on.", min_length=1)
    port: int = Field(8000, description="Port to listen on; 0 takes a free one.", ge=0, le=65535)
    domain: str = Field(
        "localhost", description="Home page here, workspace W at W.DOMAIN (wildcard DNS)."
    )
    public_url: str = Field(
        "",
        description="What browsers call the home page, as https://DOMAIN[:PORT]. Derived from"
        " --domain and --port when not given.",
    )
    data_dir: Path = Field(
        Path(".ide-gateway"), description="Directory of everything that has to last."
    )
    redis_url: str = Field(
        "", description="redis://, rediss:// or unix:// URL; empty runs an embedded Valkey."
    )
    workers: int = _count(1, "Gateway processes on the port, best one per core")
    lifecycle: Literal["on", "off"] = Field(
        "on", description="Whether this gateway stands by to run the lifecycle loops."
    )
    api_key: str = Field(
        "", description="Opens the API. Made once in DATA_DIR/api-key when not given.", repr=False
    )
    signing_key: str = Field(
        "",
        description="Signs cookies, tokens and machines' credentials; the same for every gateway."
        " Made once and kept in Redis and DATA_DIR/signing-key when not given.",
        repr=False,
    )
    metrics_token: str = Field(
        "", description="Bearer token that /metrics asks for; empty asks for none.", repr=False
    )

    workspace_command: str = Field(
        JUPYTERLAB_COMMAND,
        description="Starts the IDE. {host} {port} {workspace} {dir} {base_url} {secret} are filled in,"
        " leading NAME=value words become its environment.",
    )
    workspace_ready_path: str = Field(
        "", description="Ready once this answers 2xx/3xx; empty: once the port accepts."
    )
    workspace_upstream_header: str = Field(
        "", description="Header the gateway adds so that only it gets in: 'Name: value {secret}'."
    )
    workspace_jobs_path: str = Field(
        "",
        description="Jupyter's list of kernels there: a busy one is a job. Empty: CPU alone tells.",
    )
    shell: Literal["on", "off"] = Field(
        "on", description="Show the IDE in a page of ours that tells input and shows notices."
    )
    workspace_user: Literal["auto", "own", "shared"] = Field(
        "auto", description="Linux user per workspace (own needs root), or the agent's (shared)."
    )
    boot_timeout: float = _seconds(120, "An IDE not ready after this has failed")
    stop_grace: float = _seconds(10, "Between asking an IDE to end and ending it", ge=0)

    idle_timeout: float = _seconds(3600, "Without activity for this long: stop")
    retention: float = _seconds(86400, "Stopped for this long: snapshot and terminate", ge=0)
    idle_sweep_interval: float = _seconds(60, "Between two looks for idle workspaces")
    terminate_sweep_interval: float = _seconds(3600, "Between two looks for expired ones")
    countdown: str = Field(
        "300,60", description="The person is told these many seconds before a stop."
    )
    ending_notice: str = Field(
        "86400,3600", description="And these many seconds before a termination."
    )
    signals: str = Field(
        "input,frames,job,api", description="Which signals count as activity, with commas."
    )
    max_job_hours: float = Field(
        6, description="A job keeps its workspace for that many hours.", ge=0, allow_inf_nan=False
    )
    job_cpu: float = Field(
        20,
        description="Percent of a core above which a process is a job.",
        gt=0,
        allow_inf_nan=False,
    )
    max_lifetime: float = _seconds(0, "A workspace runs at most this long; 0: no bound", ge=0)
    quiet_hours: str = Field(
        "", description="Cron expression of quiet minutes, such as '* 22-23,0-5 * * *'."
    )
    quiet_idle_timeout: float = _seconds(600, "The idle timeout in quiet hours")
    time_zone: str = Field("UTC", description="Of cron expressions, such as Europe/Berlin.")
    session_timeout: float = _seconds(90, "A session silent for this long is evicted")
    ping_interval: float = _seconds(20, "Between two pings on a quiet session")

    pool: Literal["local", "ec2", "ecs", "asg", "eks"] = Field(
        "local", description="What adds machines; local: agent processes on this host."
    )
    slots: int = _count(5, "Workspaces per machine; 1 makes machines dedicated")
    warm_slots: int = _count(1, "Slots kept free at least, however few come", least=0)
    wait_probability: float = Field(
        0.01,
        description="Share of those who come that may find no free slot; 0: --warm-slots are kept and no"
        " more.",
        ge=0,
        le=0.5,
        allow_inf_nan=False,
    )
    wait_cost: float = Field(
        0,
        description="What a wait for a machine costs, in the currency of --prices: where it is more than the"
        " slots that would spare it cost, more are kept than promised, never fewer. 0: the promise alone counts.",
        ge=0,
        allow_inf_nan=False,
    )
    warm_workspaces: int = _count(
        1, "IDEs that a machine keeps started and empty, of its free slots", least=0
    )
    max_machines: int = _count(10, "Machines at most")
    standby_machines: int = _count(
        0, "Stopped machines kept at most, since they start faster than new ones", least=0
    )
    scale_interval: float = _seconds(2, "Between two decisions of the scaler")
    scale_in_delay: float = _seconds(
        120, "Empty, and not wanted, for this long: a machine may go", ge=0
    )
    move_after: float = _seconds(
        0,
        "Without a session for this long: may move, so that a machine comes free; 0: nothing moves",
        ge=0,
    )
    launch_burst: int = _count(
        1000, "Launches that the pool's API grants at once (not --pool local); 0: no bound", least=0
    )
    launch_rate: float = Field(
        2, description="And that many more a second.", ge=0, allow_inf_nan=False
    )
    launch_timeout: float = _seconds(60, "A machine silent this long after launch is lost")
    peaks: str = Field("", description="TOML file with peaks: when many people come at once.")

    plans: str = Field("", description="TOML file with plans: their policies and quotas.")
    prices: str = Field("", description="TOML file with prices by machine class.")
    machine_class: str = Field(
        "standard", description="What a machine is billed as, where its pool does not say."
    )
    max_starting: int = _count(100, "Workspaces that boot at once; more wait in the queue")
    start_rate: float = Field(
        30, description="Starts that a user may ask for in a minute.", gt=0, allow_inf_nan=False
    )
    api_rate: float = Field(
        50,
        description="API calls a second of one caller, of each process.",
        gt=0,
        allow_inf_nan=False,
    )
    webhook_url: str = Field("", description="Where notices are posted to, signed.")
    webhook_secret: str = Field(
        "", description="Signs webhooks: whsec_ and base64 (Standard Webhooks).", repr=False
    )
    smtp_url: str = Field(
        "",
        description="smtp://USER:PASSWORD@HOST:PORT or smtps://…; empty sends no mail.",
        repr=False,
    )
    mail_from: str = Field("", description="Sender of e-mail.")

    store: str = Field(
        "redis", description="Where records last: redis, dynamodb:TABLE or postgresql://… (a URL)."
    )
    snapshots: str = Field(
        "", description="Directory or s3://BUCKET/PREFIX; DATA_DIR/snapshots when not given."
    )
    snapshot_on_stop: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Move files into a snapshot with every stop; auto: where machines come and go"
        " and take more than one workspace.",
    )
    snapshot_kms_key: str = Field(
        "", description="KMS key for snapshots in S3; empty: S3's own encryption."
    )
    snapshots_kept: int = _count(2, "Snapshots kept per workspace")
    snapshot_max_bytes: int = _count(10 * 2**30, "Bytes of files in a snapshot at most")
    snapshot_max_files: int = _count(1_000_000, "Files in a snapshot at most")

    aws_region: str = Field("", description="Region; AWS_REGION or the profile's when not given.")
    fleet: str = Field(
        "ide-gateway", description="Tag that marks this fleet's machines and volumes in an account."
    )
    join_url: str = Field(
        "", description="What machines call to join; --public-url when not given."
    )
    agent_port: int = Field(7070, description="Port of a machine's agent.", ge=1, le=65535)
    launch_template: str = Field("", description="EC2: launch template, NAME-OR-ID[:VERSION].")
    machine_image: str = Field("", description="EC2: image, when no launch template names one.")
    instance_types: str = Field("", description="EC2: types in order of preference, with commas.")
    subnets: str = Field("", description="EC2, ECS: subnets in order of preference, with commas.")
    security_groups: str = Field("", description="EC2, ECS: security groups, with commas.")
    instance_profile: str = Field("", description="EC2: name of the machines' instance profile.")
    market: Literal["on-demand", "spot"] = Field("on-demand", description="EC2: how to buy.")
    hibernate: Literal["on", "off"] = Field(
        "off", description="EC2: keep a stopped machine's memory."
    )
    ecs_cluster: str = Field("", description="ECS: cluster.")
    ecs_task_definition: str = Field("", description="ECS: task definition, FAMILY[:REVISION].")
    ecs_launch_type: Literal["FARGATE", "EC2"] = Field("FARGATE", description="ECS: launch type.")
    asg: str = Field("", description="ASG: name of the Auto Scaling group.")
    warm_pool: int = _count(0, "ASG: stopped machines kept in the warm pool", least=0)
    warm_pool_state: Literal["Stopped", "Hibernated"] = Field(
        "Stopped", description="ASG: how they are kept."
    )
    eks_cluster: str = Field("", description="EKS: cluster.")
    eks_node_group: str = Field("", description="EKS: managed node group.")
    workspace_disk: Literal["machine", "ebs"] = Field(
        "machine", description="Files on the machine's disk, or on an EBS volume per workspace."
    )
    volume_gib: int = _count(10, "EBS: size of a workspace's volume in GiB")
    aws_queue: str = Field("", description="SQS queue (URL) that EventBridge feeds.")
    aws_topic: str = Field("", description="SNS topic (ARN) that hears of the life of workspaces.")
    cloudwatch_namespace: str = Field("", description="CloudWatch namespace; empty sends nothing.")
    target_group: str = Field("", description="Load balancer's target group (ARN) to register in.")

    max_sessions: int = _count(8000, "Sessions per gateway process; more are told 1013")
    max_sessions_per_user: int = _count(100, "Sessions per user; more are told 4429")
    max_connections: int = _count(
        12000, "Client connections per gateway process, sessions among them; more get 503", least=0
    )
    max_connections_per_address: int = _count(
        1000, "The same per public client address, without sessions; more get 429", least=0
    )
    head_timeout: float = _seconds(10, "From a request's first byte to the end of its headers")
    stall_timeout: float = _seconds(60, "A side that takes nothing of what waits for it is cut off")
    peer_timeout: float = _seconds(45, "A peer that answers no packet for this long is dead", ge=3)
    max_workspaces_per_user: int = _count(20, "Workspaces per user")
    max_queue: int = _count(1000, "Workspaces waiting to boot; more are told to come back", least=0)
    lease_ttl: float = _seconds(6, "A lifecycle lease not renewed for this long is free")
    entry_ttl: float = _seconds(86400, "Life of a cookie or workspace token")
    code_ttl: float = _seconds(30, "Life of a one-use entry code", gt=0, le=30)
    drain_delay: float = _seconds(0, "Serve on with /readyz at 503 before closing", ge=0)

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Log from.")
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="auto: console on a terminal, else one JSON object a line."
    )

    @field_validator("domain")
    @classmethod
    def _domain(cls, value: str) -> str:
        value = value.lower().rstrip(".")
        if len(value) > 200 or not _HOST_NAME.fullmatch(value):
            raise ValueError("must be a host name such as ide.example.com, without scheme or port")
        return value

    @field_validator("public_url")
    @classmethod
    def _public_url(cls, value: str) -> str:
        return value and origin(value)

    @field_validator("countdown", "ending_notice")
    @classmethod
    def _seconds_list(cls, value: str) -> str:
        if not re.fullmatch(r"\s*(\d+(\.\d+)?\s*(,\s*\d+(\.\d+)?\s*)*)?", value):
            raise ValueError("must be seconds with commas, such as 300,60")
        return value

    @field_validator("signals")
    @classmethod
    def _signals(cls, value: str) -> str:
        wrong = {word.strip() for word in value.split(",")} - set(KINDS)
        if wrong:
            raise ValueError(f"{min(wrong)!r} is no signal; there are {', '.join(KINDS)}")
        return value

    @field_validator("time_zone")
    @classmethod
    def _time_zone(cls, value: str) -> str:
        schedule.check("* * * * *", value)
        return value

    @field_validator("quiet_hours")
    @classmethod
    def _quiet_hours(cls, value: str) -> str:
        if value:
            schedule.check(value, "UTC")
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis_url(cls, value: str) -> str:
        if value and not value.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must start with redis://, rediss:// or unix://")
        return value

    @field_validator("store")
    @classmethod
    def _store(cls, value: str) -> str:
        if value == "redis" or re.fullmatch(r"dynamodb:[A-Za-z0-9_.-]{3,255}", value):
            return value
        if value.startswith(("postgresql://", "postgres://")):
            return value
        raise ValueError("must be redis, dynamodb:TABLE or postgresql://USER@HOST/DATABASE")

    @field_validator("join_url")
    @classmethod
    def _join_url(cls, value: str) -> str:
        return value and origin(value)

    @field_validator("fleet")
    @classmethod
    def _fleet(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,35}", value):
            raise ValueError("must be up to 36 letters, digits and . _ -: it becomes a tag's value")
        return value

    @field_validator("signing_key")
    @classmethod
    def _signing_key(cls, value: str) -> str:
        if value and not re.fullmatch(r"[\x21-\x7e]{32,}", value):
            raise ValueError("must be 32 printable characters or more, without spaces")
        return value

    @field_validator("api_key", "metrics_token")
    @classmethod
    def _credential(cls, value: str) -> str:
        if not _CREDENTIAL.fullmatch(value):
            raise ValueError("must be printable ASCII without spaces: it travels in a header")
        return value

    @field_validator("webhook_url")
    @classmethod
    def _webhook_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise ValueError("must start with http:// or https:// and name a host")
        if parts.username or parts.password:
            raise ValueError("must hold no password: webhooks are signed with --webhook-secret")
        return value

    @field_validator("webhook_secret")
    @classmethod
    def _webhook_secret(cls, value: str) -> str:
        if value and not 24 <= _decoded(value.removeprefix("whsec_")) <= 64:
            raise ValueError(f"must be whsec_ and 24 to 64 bytes in base64; {MAKE_SECRET}")
        if value and not value.startswith("whsec_"):
            raise ValueError("must begin with whsec_, as Standard Webhooks spells secrets")
        return value

    @field_validator("smtp_url")
    @classmethod
    def _smtp_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and (parts.scheme not in ("smtp", "smtps") or not parts.hostname):
            raise ValueError("must look like smtp://USER:PASSWORD@HOST:PORT, or smtps://…")
        _ = parts.port  # raises where it is none
        return value

    @field_validator("mail_from")
    @classmethod
    def _mail_from(cls, value: str) -> str:
        if value and not _MAILBOX.fullmatch(value):
            raise ValueError("must be an address such as ide@example.com, or NAME <ADDRESS>")
        return value

    @field_validator("workspace_command")
    @classmethod
    def _command(cls, value: str) -> str:
        unknown = set(re.findall(r"\{([a-z_]+)\}", value)) - set(PLACEHOLDERS)
        if unknown:
            known = " ".join(f"{{{name}}}" for name in PLACEHOLDERS)
            raise ValueError(f"{{{min(unknown)}}} is never filled in; there are {known}")
        if "{port}" not in value:
            raise ValueError("must hand {port} to the IDE: that is where the gateway looks for it")
        if not executable(value):
            raise ValueError("must name a program after its NAME=value words")
        return value

    @field_validator("workspace_ready_path", "workspace_jobs_path")
    @classmethod
    def _ready_path(cls, value: str) -> str:
        if value and not re.fullmatch(r"/[\x21-\x7e]*", value):
            raise ValueError("must be a path that starts with /")
        return value

    @field_validator("workspace_upstream_header")
    @classmethod
    def _upstream_header(cls, value: str) -> str:
        if value and not _HEADER.fullmatch(value):
            raise ValueError('must look like "Name: value", in one line of ASCII')
        return value

    @field_validator("snapshots")
    @classmethod
    def _snapshots(cls, value: str) -> str:
        if value.startswith("s3://"):
            s3_parts(value)
        elif "://" in value:
            raise ValueError(f"must be a directory, or {S3_FORM}")
        return value


def origin(url: str) -> str:
    """`scheme://host[:port]` of a URL that is nothing more; a scheme's own port is left out."""
    parts = urlsplit(url)
    plain = not (parts.query or parts.fragment or parts.username) and parts.path in ("", "/")
    if parts.scheme not in ("http", "https") or not parts.hostname or not plain:
        raise ValueError("must be an origin such as https://ide.example.com, without a path")
    port = parts.port
    default = 443 if parts.scheme == "https" else 80
    return f"{parts.scheme}://{parts.hostname}" + (f":{port}" if port and port != default else "")


def derived_public_url(domain: str, port: int) -> str:
    return origin(f"http://localhost:{port}" if domain == "localhost" else f"https://{domain}")


def _decoded(text: str) -> int:
    """How many bytes that base64 is of; 0 when it is none."""
    try:
        return len(base64.b64decode(text, validate=True))
    except ValueError:
        return 0


def executable(command: str) -> str:
    """The program of a command template, after its NAME=value words; "" when there is none."""
    words = shlex.split(command)
    return next((word for word in words if not _NAME_VALUE.match(word)), "")


def contradictions(settings: Settings) -> list[str]:
    """Values that are fine alone and wrong together."""
    found = []
    if settings.ping_interval >= settings.session_timeout:
        found.append(
            f"--ping-interval {settings.ping_interval:g} must be below --session-timeout"
            f" {settings.session_timeout:g}: quiet sessions would be evicted before they can answer"
        )
    host = urlsplit(settings.public_url).hostname
    if host and host != settings.domain:
        found.append(
            f"--public-url names {host}, but --domain is {settings.domain}: they must be the same"
        )
    if settings.warm_slots > settings.slots * settings.max_machines:
        found.append(
            f"--warm-slots {settings.warm_slots} can never be free: --max-machines"
            f" {settings.max_machines} with --slots {settings.slots} each is less; lower it, or raise one of those"
        )
    found += _scaling(settings)
    if settings.webhook_url and not settings.webhook_secret:
        found.append(
            f"--webhook-url needs --webhook-secret, which signs what is sent; {MAKE_SECRET}"
        )
    if settings.smtp_url and not settings.mail_from:
        found.append("--smtp-url needs --mail-from: mail has to come from somebody")
    return found + _elsewhere(settings) if settings.pool != "local" else found + _here(settings)


def _scaling(settings: Settings) -> list[str]:
    found = []
    if bool(settings.launch_burst) != bool(settings.launch_rate):
        found.append(
            f"--launch-burst {settings.launch_burst} and --launch-rate {settings.launch_rate:g} bound"
            " launches together: set both, or both to 0"
        )
    if settings.wait_cost and not settings.prices:
        found.append("--wait-cost needs --prices: it is held against the price of a machine")
    if settings.wait_cost and not settings.wait_probability:
        found.append(
            "--wait-cost keeps more slots free than --wait-probability promises, and 0 promises none: set it above 0"
        )
    if settings.move_after and settings.slots == 1:
        found.append(
            "--move-after empties machines that others work on too: --slots 1 has none; leave it out"
        )
    if settings.standby_machines and not _keeps_disks(settings):
        found.append(
            f"--standby-machines needs machines that can be stopped and started: --pool {settings.pool}"
            f" --market {settings.market} has none; use --pool ec2 --market on-demand, or asg"
        )
    return found


def _keeps_disks(settings: Settings) -> bool:
    if settings.pool == "ec2":
        return settings.market == "on-demand" or settings.slots == 1
    return settings.pool in ("local", "asg")


def _here(settings: Settings) -> list[str]:
    if settings.workspace_disk == "ebs":
        return ["--workspace-disk ebs needs machines of EC2: --pool ec2 or asg"]
    return []


def _elsewhere(settings: Settings) -> list[str]:
    """What machines on other hosts need."""
    pool, found = settings.pool, []
    for name in _NEEDS[pool]:
        if not getattr(settings, name):
            found.append(f"--pool {pool} needs --{name.replace('_', '-')}")
    if pool == "ec2" and not (settings.launch_template or settings.machine_image):
        found.append("--pool ec2 needs --launch-template, or --machine-image and --instance-types")
    if settings.workspace_disk == "ebs" and pool in ("ecs", "eks"):
        found.append(f"--workspace-disk ebs does not go with --pool {pool}: use ec2 or asg")
    if settings.workspace_disk == "machine" and not settings.snapshots.startswith("s3://"):
        found.append(
            f"--pool {pool} needs --snapshots s3://BUCKET/PREFIX: machines on other hosts cannot"
            " reach a directory here"
        )
    home = urlsplit(settings.public_url).hostname or settings.domain
    if not settings.join_url and home in ("localhost", "127.0.0.1"):
        found.append(
            f"--pool {pool} needs --join-url: machines on other hosts cannot reach {home}; give the"
            " address of this gateway, or of its load balancer, as they see it"
        )
    return found


_NEEDS = {
    "ec2": (),
    "ecs": ("ecs_cluster", "ecs_task_definition", "subnets"),
    "asg": ("asg",),
    "eks": ("eks_cluster", "eks_node_group"),
}
