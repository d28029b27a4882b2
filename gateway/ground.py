"""The ground serve stands on, before anything runs: the data directory, its lock, the listening socket."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from pathlib import Path
from typing import IO

import psutil

from gateway.bounds import mind_death
from gateway.exits import ConfigurationError, Exit, TryAgain

BACKLOG = 2048
"""Connections that wait for accept; the kernel refuses more. Visits during start-up wait here too."""


def make_data_dir(path: Path, source: str) -> None:
    """A private directory that can be written. Raises ConfigurationError."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = path / f".probe.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        where = "" if source == "default" else f"set by {source.partition(' ')[2]}; "
        raise ConfigurationError(
            f"cannot write to the data directory {path} ({reason})",
            f"{where}try: ide-gateway serve --data-dir DIRECTORY",
        ) from error


def lock(data_dir: Path) -> IO[str]:
    """Keep this data directory to ourselves until the answer is closed. Raises TryAgain."""
    file = (data_dir / "lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read().strip()
        file.close()
        raise TryAgain(
            f"another gateway serves {data_dir}" + (f" (pid {holder})" if holder else ""),
            "stop it first, or try: ide-gateway serve --data-dir DIRECTORY",
        ) from error
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def listen(host: str, port: int, peer_timeout: float = 0) -> socket.socket:
    """The listening socket; port 0 takes a free one. peer_timeout: seconds (bounds.py). Raises TryAgain, ConfigurationError."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        sock = socket.create_server(
            family[0][4][:2], family=family[0][0], backlog=BACKLOG, dualstack_ipv6=False
        )
    except OSError as error:
        raise _not_listening(host, port, error) from error
    if peer_timeout:
        mind_death(sock, peer_timeout)
    return sock


def _not_listening(host: str, port: int, error: OSError) -> Exit:
    if error.errno == errno.EADDRINUSE:
        return TryAgain(
            f"port {port} is already in use on {host}{_owner(port)}",
            f"try: ide-gateway serve --port {_free_port_after(host, port)}",
        )
    if error.errno == errno.EACCES:
        return ConfigurationError(
            f"not allowed to listen on port {port}: ports below 1024 need more rights",
            "try: ide-gateway serve --port 8000, behind a proxy that has them",
        )
    reason = (error.strerror or str(error)).lower()
    return ConfigurationError(
        f"cannot listen on {host} port {port} ({reason})",
        "--host takes an address of this machine: 127.0.0.1, or 0.0.0.0 for all of them",
    )


def _owner(port: int) -> str:
    """ " (pid 4121, python3)" of who listens there; "" where we may not know."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,):
                name = psutil.Process(connection.pid).name() if connection.pid else ""
                return f" (pid {connection.pid}, {name})" if name else ""
    except (psutil.Error, OSError):
        pass
    return ""


def _free_port_after(host: str, port: int) -> int:
    for candidate in range(port + 1, min(port + 100, 65536)):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            try:
                probe.bind((host, candidate))
            except OSError:
                continue
            return candidate
    return 0
