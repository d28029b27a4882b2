"""`ide-gateway serve`, step by step. The port is bound before anything has a side effect that lasts.

settings → plans, prices and peaks → data directory, its lock → listening socket → Redis → API key → signing key → the
machines' directory → gateway process(es)
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import structlog

from gateway import __version__, fair_use, ground, wire
from gateway.announce import announce, bin_dir
from gateway.await_redis import wait_for_redis
from gateway.logs import configure
from gateway.private import secret_in, write_private
from gateway.process import Boot, run
from gateway.settings import Settings
from gateway.shared import shared_directory, shared_signing_key
from gateway.sources import Loaded, is_set, without_credentials
from gateway.terminal import DONE, report, say, warn
from gateway.valkey import Embedded, start
from gateway.workers import supervise

log = structlog.get_logger(__name__)


def serve(loaded: Loaded) -> int:
    """Run until told to stop; the exit code. Raises Exit."""
    configure(loaded.settings.log_level, loaded.settings.log_format)
    say(
        f"ide-gateway {__version__}   settings: {_changed(loaded)} (see them: ide-gateway settings)"
    )
    for text in loaded.warnings:
        warn(text)
    if not wire.IS_COMPILED and sys.platform == "linux":
        warn(
            "the relay runs in Python alone, at about twice the CPU: gateway/_wire.c was not compiled. "
            "Install a C compiler and Python's headers, then ide-gateway again"
        )
    fair_use.check(loaded.settings)
    with ExitStack() as stack:
        sock, loaded = _take_ground(loaded, stack)
        data_dir = loaded.settings.data_dir
        redis_url, look_after = _redis(loaded, stack)
        directory = data_dir.absolute()
        if loaded.settings.pool == "local":
            directory = shared_directory(redis_url, data_dir, embedded=look_after is not None)
        if directory != data_dir.absolute():
            say(f"          machines: in {directory}, as for every gateway on this Redis")
        boot = Boot(
            settings=_settled(loaded, directory),
            redis_url=redis_url,
            api_key=loaded.settings.api_key or secret_in(data_dir / "api-key"),
            signing_key=shared_signing_key(
                redis_url, data_dir / "signing-key", loaded.settings.signing_key
            ),
        )
        url_file = data_dir / "url"  # where `ide-gateway ls` looks
        url = loaded.settings.public_url + "\n"
        write_private(url_file, url)
        stack.callback(_withdraw, url_file, url)
        _add_to_path(bin_dir())
        code = _run(boot, sock, look_after)
        if look_after:
            say("Stopping Valkey")
    return code


def _changed(loaded: Loaded) -> str:
    names = loaded.changed()
    return ", ".join(names) if names else "defaults"


def _take_ground(loaded: Loaded, stack: ExitStack) -> tuple[socket.socket, Loaded]:
    settings = loaded.settings
    ground.make_data_dir(settings.data_dir, loaded.sources["data_dir"])
    if not settings.redis_url:
        stack.enter_context(ground.lock(settings.data_dir))
    sock = stack.enter_context(ground.listen(settings.host, settings.port, settings.peer_timeout))
    return sock, loaded.with_port(sock.getsockname()[1])


def _redis(loaded: Loaded, stack: ExitStack) -> tuple[str, Callable[[], None] | None]:
    """(URL, what to call every second): the one of the settings, or an embedded one."""
    url, data_dir = loaded.settings.redis_url, loaded.settings.data_dir
    if url:
        version, warnings = wait_for_redis(url, loaded.sources["redis_url"])
        report(DONE, "Redis", f"{version} at {without_credentials(url)}")
        for text in warnings:
            warn(text)
        return url, None
    embedded = stack.enter_context(start(data_dir))
    report(DONE, "Redis", f"embedded Valkey {embedded.version}, data in {data_dir}/")
    path = embedded.socket
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    say(f"          look inside: redis-cli -s {path} (password: {data_dir / 'redis' / 'password'})")
    return embedded.url, lambda: _revive(embedded)


def _revive(embedded: Embedded) -> None:
    if embedded.revive():
        log.error("the embedded Valkey had ended; started it again", log=embedded.directory)


def _run(boot: Boot, sock: socket.socket, look_after: Callable[[], None] | None) -> int:
    if boot.settings.workers > 1:
        return supervise(boot, sock, look_after)
    return run(boot, sock, report, lambda url: announce(boot.settings, url), say, look_after)


def _settled(loaded: Loaded, directory: Path) -> Settings:
    """With paths that stay right in other processes, whatever their working directory; data_dir is where
    the machines are."""
    settings = loaded.settings
    changes: dict[str, Any] = {"data_dir": directory}
    if not is_set(loaded.sources["snapshots"]):
        changes["snapshots"] = str(directory / "snapshots")
    elif "://" not in settings.snapshots:
        changes["snapshots"] = str(Path(settings.snapshots).absolute())
    return settings.model_copy(update=changes)


def _withdraw(url_file: Path, url: str) -> None:
    """Unless another gateway on this directory has written its own since."""
    with contextlib.suppress(OSError):
        if url_file.read_text() == url:
            url_file.unlink()


def _add_to_path(directory: Path) -> None:
    """IDEs installed beside us are found without an activated environment; others of that name come first."""
    known = os.environ.get("PATH", os.defpath)
    if str(directory) not in known.split(os.pathsep):
        os.environ["PATH"] = f"{known}{os.pathsep}{directory}"
