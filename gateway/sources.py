"""Where settings come from: default < TOML file < environment < flag. Every value keeps its source.

By hand, because a settings library neither tells where a value came from nor notices a misspelt variable.
"""

from __future__ import annotations

import difflib
import textwrap
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from gateway.exits import ConfigurationError
from gateway.settings import (
    JUPYTERLAB,
    JUPYTERLAB_COMMAND,
    SECRETS,
    Settings,
    contradictions,
    derived_public_url,
)

PREFIX = "IDE_GATEWAY_"
OTHER_VARIABLES = frozenset({f"{PREFIX}CONFIG", f"{PREFIX}URL"})
"""Ours, but no settings of the gateway: the TOML file, and where the client commands find it."""

LAUNCH_TIMEOUT_ELSEWHERE = 300.0
"""Seconds: an instance takes a minute or two to come up and join, and lists may be behind by as much."""

_DERIVED_URL = "derived from --domain and --port"


@dataclass(frozen=True, slots=True)
class Loaded:
    """sources: name → "default", "file …", "environment IDE_GATEWAY_X", "flag --x", …"""

    settings: Settings
    sources: dict[str, str]
    warnings: tuple[str, ...] = ()

    def with_port(self, port: int) -> Loaded:
        """The same, once the port is known (--port 0 takes a free one)."""
        update: dict[str, Any] = {"port": port}
        if self.sources["public_url"] == _DERIVED_URL:
            update["public_url"] = derived_public_url(self.settings.domain, port)
        return replace(self, settings=self.settings.model_copy(update=update))

    def changed(self) -> list[str]:
        """Names of the settings that somebody set."""
        return [name for name, source in self.sources.items() if is_set(source)]


def is_set(source: str) -> bool:
    return not source.startswith(("default", "derived"))


def variable(name: str) -> str:
    return PREFIX + name.upper()


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def load(flags: Mapping[str, Any], environ: Mapping[str, str], config: str | None = None) -> Loaded:
    """Merge the sources and check the outcome. flags: those given, by setting's name. Raises ConfigurationError."""
    values: dict[str, Any] = {}
    sources = dict.fromkeys(Settings.model_fields, "default")
    warnings: list[str] = []
    path = config or environ.get(f"{PREFIX}CONFIG", "")
    layers = [
        _from_file(path, warnings) if path else {},
        _from_environment(environ, warnings),
        {name: (value, f"flag {flag(name)}") for name, value in flags.items()},
    ]
    for layer in layers:
        for name, (value, source) in layer.items():
            values[name], sources[name] = value, source
    settings = _derive(_validated(values, sources), sources)
    wrong = contradictions(settings)
    if wrong:
        raise ConfigurationError(_listed(wrong), "see them all: ide-gateway settings --help")
    return Loaded(settings, sources, (*warnings, *_doubts(settings)))


def shown(name: str, value: object) -> str:
    """A setting's value as it may be printed."""
    if name == "redis_url" and value:
        return without_credentials(str(value))
    if name in SECRETS and value:
        return "(set)"
    return f"{value:g}" if isinstance(value, float) else str(value)


def without_credentials(url: str) -> str:
    """A URL with its password and its query (which may hold one too) left out."""
    try:
        parts = urlsplit(url)
        address = parts.netloc.rpartition("@")[2]
    except ValueError:
        return url.partition(":")[0] + "://…"
    return f"{parts.scheme}://{address}{parts.path}"


_Layer = dict[str, tuple[Any, str]]


def _from_file(path: str, warnings: list[str]) -> _Layer:
    try:
        table = tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the settings file {path} ({error.strerror})",
            f"set by --config or {PREFIX}CONFIG",
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the settings file {path} is not valid TOML: {error}") from error
    layer: _Layer = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name in Settings.model_fields:
            layer[name] = (value, f"file {path}")
        else:
            warnings.append(
                f"unknown setting {key} in {path}" + _suggestion(name, Settings.model_fields)
            )
    return layer


def _from_environment(environ: Mapping[str, str], warnings: list[str]) -> _Layer:
    names = {variable(name): name for name in Settings.model_fields}
    files = {f"{variable(name)}_FILE": name for name in SECRETS}
    known = [*names, *files, *OTHER_VARIABLES]
    layer: _Layer = {}
    for key in sorted(environ):
        if not key.startswith(PREFIX):
            continue
        if key not in known:
            warnings.append(f"unknown setting {key}" + _suggestion(key, known))
        elif not environ[key]:
            continue  # `X= ide-gateway serve`, and what compose files make of an unset variable
        elif key in names:
            layer[names[key]] = (environ[key], f"environment {key}")
        elif key in files:
            if environ.get(variable(files[key])):
                raise ConfigurationError(
                    f"{variable(files[key])} and {key} are both set", "unset one of them"
                )
            layer[files[key]] = (_secret_from(key, environ[key]), f"environment {key}")
    return layer


def _secret_from(key: str, path: str) -> str:
    try:
        return Path(path).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigurationError(f"cannot read {path} ({reason})", f"set by {key}") from error


def _suggestion(name: str, known: Any) -> str:
    """What was meant, perhaps. The prefix is left out: it would make everything look alike."""
    prefix = PREFIX if name.startswith(PREFIX) else ""
    candidates = [other.removeprefix(prefix) for other in known]
    close = difflib.get_close_matches(name.removeprefix(prefix), candidates, 1)
    return f"; did you mean {prefix}{close[0]}?" if close else ""


def _validated(values: dict[str, Any], sources: dict[str, str]) -> Settings:
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        wrong = []
        for detail in error.errors(include_url=False):
            name = str(detail["loc"][0])
            why = detail["msg"].removeprefix("Value error, ").replace("Input should", "must")
            given = textwrap.shorten(repr(shown(name, detail["input"])), 120, placeholder=" …")
            wrong.append(f"{name} = {given} ({sources[name]}): {why}")
        raise ConfigurationError(_listed(wrong)) from error


def _listed(wrong: list[str]) -> str:
    if len(wrong) == 1:
        return wrong[0]
    return f"{len(wrong)} settings are wrong" + "".join(f"\n  {line}" for line in wrong)


def _derive(settings: Settings, sources: dict[str, str]) -> Settings:
    update: dict[str, Any] = {}
    if settings.workspace_command == JUPYTERLAB_COMMAND:
        for name, value in JUPYTERLAB.items():
            if not is_set(sources[name]):
                update[name], sources[name] = value, "default for JupyterLab"
    if not settings.public_url:
        update["public_url"] = derived_public_url(settings.domain, settings.port)
        sources["public_url"] = _DERIVED_URL
    if not settings.snapshots:
        update["snapshots"] = str(settings.data_dir / "snapshots")
        sources["snapshots"] = "derived from --data-dir"
    if settings.pool != "local" and not is_set(sources["launch_timeout"]):
        update["launch_timeout"] = LAUNCH_TIMEOUT_ELSEWHERE
        sources["launch_timeout"] = f"default for --pool {settings.pool}"
    return settings.model_copy(update=update)


def _doubts(settings: Settings) -> list[str]:
    """What may be meant, and seldom is."""
    if settings.domain == "localhost" and settings.host not in ("localhost", "127.0.0.1", "::1"):
        return [
            f"listening on {settings.host} with --domain localhost: only browsers on this machine"
            " find the workspaces; set --domain to a name with wildcard DNS"
        ]
    return []
