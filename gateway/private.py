"""Files that only we may read: the API key, the signing key, the embedded Valkey's password."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from gateway.exits import ConfigurationError


def secret_in(path: Path) -> str:
    """The secret in this file, made now if there is none: 43 characters, 256 bits."""
    with contextlib.suppress(FileNotFoundError):
        known = path.read_text("utf-8", "replace").strip()
        if not known:
            raise ConfigurationError(f"{path} is empty", f"remove it and a new one is made: {path}")
        return known
    beside = _beside(path, secrets.token_urlsafe(32) + "\n")
    try:
        # Two gateways that start at once on one directory: the first one's secret is both's.
        os.link(beside, path)
    except FileExistsError:
        return secret_in(path)
    finally:
        beside.unlink()
    return path.read_text("utf-8").strip()


def write_private(path: Path, text: str) -> None:
    """Whole or not at all, and readable by nobody else at any moment (mode 0600)."""
    _beside(path, text).replace(path)


def _beside(path: Path, text: str) -> Path:
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    return beside
