"""Whether what the pool is set to launch exists, asked before anything is launched."""

from __future__ import annotations

from lifecycle.pools import PoolError
from lifecycle.pools.ec2_calls import Ec2Calls, code
from lifecycle.pools.ec2_launch import FLEET, Ec2Config


async def check(calls: Ec2Calls, config: Ec2Config) -> dict[str, str]:
    """Subnet → its zone. Raises PoolError with what to do."""
    if not config.launch_template and not (config.image and config.instance_types):
        raise PoolError(
            "the ec2 pool does not know what to launch: set --launch-template, or --machine-image"
            " and --instance-types"
        )
    await calls.ask(
        f"list the machines of fleet {config.fleet}",
        "describe_instances",
        Filters=[{"Name": f"tag:{FLEET}", "Values": [config.fleet]}],
        MaxResults=5,
    )
    if config.launch_template:
        await _template(calls, config)
    if config.image:
        await _exists(calls, "image", config.image, "--machine-image")
    for group in config.security_groups:
        await _exists(calls, "security_group", group, "--security-groups")
    return await zones(calls, config)


async def zones(calls: Ec2Calls, config: Ec2Config) -> dict[str, str]:
    """Subnet → its zone. Raises PoolError with what to do."""
    found = {}
    for subnet in config.subnets:
        (row,) = await _exists(calls, "subnet", subnet, "--subnets")
        found[subnet] = row["AvailabilityZone"]
    return found


_ASKS = {
    "image": ("describe_images", "ImageIds", "Images"),
    "security_group": ("describe_security_groups", "GroupIds", "SecurityGroups"),
    "subnet": ("describe_subnets", "SubnetIds", "Subnets"),
}
"""Kind → call, parameter, part of its answer."""


async def _exists(calls: Ec2Calls, kind: str, name: str, setting: str) -> list[dict[str, str]]:
    verb, parameter, part = _ASKS[kind]
    words = kind.replace("_", " ")
    rows: list[dict[str, str]] = []
    try:
        rows = (await calls.ask(f"look up {words} {name}", verb, **{parameter: [name]}))[part]
    except PoolError as error:
        # …NotFound, …Malformed, …Unavailable: EC2 names each kind's own.
        if not code(error).startswith("Invalid"):
            raise
    if not rows:
        raise PoolError(await _missing(calls, words, name, setting))
    return rows


async def _template(calls: Ec2Calls, config: Ec2Config) -> None:
    asked = config.template
    version = asked.pop("Version")
    ((kind, name),) = asked.items()
    rows = []
    try:
        found = await calls.ask(
            f"look up launch template {name}", "describe_launch_templates", **{f"{kind}s": [name]}
        )
        rows = found["LaunchTemplates"]
    except PoolError as error:
        if not code(error).startswith("InvalidLaunchTemplate"):
            raise
    if not rows:
        raise PoolError(await _missing(calls, "launch template", name, "--launch-template"))
    newest = rows[0]["LatestVersionNumber"]
    if version not in ("$Default", "$Latest") and not (
        version.isdecimal() and 1 <= int(version) <= newest
    ):
        raise PoolError(
            f"launch template {name} has no version {version!r}, its newest is {newest}: correct"
            " --launch-template NAME-OR-ID[:VERSION]"
        )


async def _missing(calls: Ec2Calls, kind: str, name: str, setting: str) -> str:
    region = await calls.region()
    return f"there is no {kind} {name} in {region}: create it, or correct {setting} or --aws-region"
