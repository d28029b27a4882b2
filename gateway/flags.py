"""A command line flag for every setting, made from the record: its type, its bounds, its help text."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click

from gateway.settings import NO_FLAG, PARTS, SECRETS, Settings
from gateway.sources import Loaded, flag, shown, variable

_TYPES: dict[Any, click.ParamType[Any]] = {int: click.INT, float: click.FLOAT}

_METAVARS: dict[Any, str] = {Path: "DIRECTORY", float: "SECONDS"}


def options() -> list[click.Parameter]:
    """None means not given: defaults are the record's business."""
    config = click.Option(
        ["--config"], metavar="FILE", help="TOML file with settings by name.  [IDE_GATEWAY_CONFIG]"
    )
    flags = [_option(name) for name in Settings.model_fields if name not in NO_FLAG]
    return [config, *flags]


def _option(name: str) -> click.Option:
    field = Settings.model_fields[name]
    kind: click.ParamType[Any] = _TYPES.get(field.annotation, click.STRING)
    if get_origin(field.annotation) is Literal:
        kind = click.Choice(get_args(field.annotation))
    default = field.get_default()
    if isinstance(default, float):
        default = f"{default:g}"
    known = f"; default: {default}" if default != "" and len(str(default)) < 40 else ""
    if name == "workspace_command":
        known = "; default: JupyterLab"
    help_text = f"{field.description}  [{variable(name)}{known}]"
    metavar = _METAVARS.get(field.annotation)
    return click.Option([flag(name), name], type=kind, metavar=metavar, help=help_text)


def write_parts(
    params: list[click.Parameter], context: click.Context, formatter: click.HelpFormatter
) -> None:
    """The help text's options, under the headings of the record's parts."""
    parts: dict[str, list[tuple[str, str]]] = {}
    heading = "Options"
    for param in params:
        heading = PARTS.get(str(param.name), heading)
        if param.name not in Settings.model_fields:
            heading = "Options"
        record = param.get_help_record(context)
        if record:
            parts.setdefault(heading, []).append(record)
    for heading, records in parts.items():
        with formatter.section(heading):
            formatter.write_dl(records)
    secrets = ", ".join(f"{variable(name)}_FILE" for name in sorted(SECRETS))
    formatter.write_paragraph()
    formatter.write_text(
        f"{variable('api_key')} and {variable('signing_key')} have no flag: everybody on a machine can read its arguments."
        f" Secrets may be in files: {secrets}."
    )


def as_rows(loaded: Loaded) -> list[tuple[str, str, str]]:
    """(name, value as it may be shown, source) of every setting."""
    return [
        (name, shown(name, getattr(loaded.settings, name)), loaded.sources[name])
        for name in Settings.model_fields
    ]


def as_json(loaded: Loaded) -> dict[str, dict[str, Any]]:
    """name → {value, source}; secrets as they may be shown."""
    values = loaded.settings.model_dump(mode="json")
    values.update({name: shown(name, values[name]) for name in SECRETS})
    return {name: {"value": values[name], "source": loaded.sources[name]} for name in values}
