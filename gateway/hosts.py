"""Which place does a Host header name: the base host, a workspace, a port of a workspace, or nothing of ours?

    localhost:8000             Base
    ada-x2k4.localhost         WorkspaceHost("ada-x2k4")
    8080--ada-x2k4.localhost   PortHost("ada-x2k4", 8080)

Anchored matches only: what is not spelled exactly like one of these is None, never a guess. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

MAX_WORKSPACE_ID = 40
MAX_USER_ID = 128

# `--` separates a port from a workspace, and starts punycode labels ("xn--"): no id contains it.
_WORKSPACE = re.compile(r"(?!.*--)[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
_PORT_LABEL = re.compile(r"([1-9][0-9]{0,4})--(.+)")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+|:=-]*")
_DOMAIN = re.compile(r"(?!-)[a-z0-9-]+(?<!-)(?:\.(?!-)[a-z0-9-]+(?<!-))*")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_LOOPBACK = frozenset({"127.0.0.1", "[::1]"})


@dataclass(frozen=True, slots=True)
class Base:
    """The bare domain: home page, API, metrics."""


@dataclass(frozen=True, slots=True)
class WorkspaceHost:
    workspace: str


@dataclass(frozen=True, slots=True)
class PortHost:
    """A port that something in the workspace listens on."""

    workspace: str
    port: int


Place = Base | WorkspaceHost | PortHost


@dataclass(frozen=True, slots=True)
class PublicUrl:
    """Where people reach the base host. host: lower case, without port. scheme: http or https."""

    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> PublicUrl:
        """From "https://ide.example.com:8443". Raises ValueError that says what is wrong."""
        parts = urlsplit(text)
        host = (parts.hostname or "").rstrip(".")
        if parts.scheme not in _DEFAULT_PORTS or not _DOMAIN.fullmatch(host):
            raise ValueError(f'public URL "{text}": write it like https://ide.example.com')
        if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username:
            raise ValueError(f'public URL "{text}": only scheme, host and port, no path or user')
        try:
            port = parts.port
        except ValueError:
            raise ValueError(f'public URL "{text}": the port must be 1 to 65535') from None
        if port == 0:
            raise ValueError(f'public URL "{text}": the port must be 1 to 65535')
        return cls(parts.scheme, host, port or _DEFAULT_PORTS[parts.scheme])

    @property
    def https(self) -> bool:
        return self.scheme == "https"


def place_of(host_header: str | bytes | None, domain: str) -> Place | None:
    """The place a Host header names, or None. domain: lower case, without port or trailing dot."""
    if isinstance(host_header, bytes):
        host_header = host_header.decode("latin-1")
    if not host_header or len(host_header) > 300 or not host_header.isascii():
        return None
    match = _HOST.fullmatch(host_header.lower())
    if match is None or int(match[2] or 1) not in range(1, 65536):
        return None
    host = match[1].removesuffix(".")
    if host == domain or (domain == "localhost" and match[1] in _LOOPBACK):
        return Base()
    if not host.endswith("." + domain):
        return None
    return place_of_label(host.removesuffix("." + domain))


def place_of_label(label: str) -> WorkspaceHost | PortHost | None:
    """What "ada-x2k4" or "8080--ada-x2k4" names in front of the domain, or None."""
    if _WORKSPACE.fullmatch(label):
        return WorkspaceHost(label)
    match = _PORT_LABEL.fullmatch(label)
    if match and int(match[1]) < 65536 and _WORKSPACE.fullmatch(match[2]):
        return PortHost(match[2], int(match[1]))
    return None


def label_of(place: WorkspaceHost | PortHost) -> str:
    """The other way round."""
    match place:
        case WorkspaceHost(workspace):
            return workspace
        case PortHost(workspace, port):
            return f"{port}--{workspace}"


def host_of(place: Place, public: PublicUrl) -> str:
    """What a browser sends as Host for this place; the scheme's own port is left out, as browsers do."""
    match place:
        case Base():
            host = public.host
        case WorkspaceHost() | PortHost():
            host = f"{label_of(place)}.{public.host}"
    return host if public.port == _DEFAULT_PORTS[public.scheme] else f"{host}:{public.port}"


def origin_of(place: Place, public: PublicUrl) -> str:
    """The origin as browsers write it: what an Origin header must equal, and a prefix for links."""
    return f"{public.scheme}://{host_of(place, public)}"


def workspace_id_error(text: str) -> str | None:
    """What is wrong with a workspace id, for a person; None: nothing."""
    if len(text) > MAX_WORKSPACE_ID:
        return f"a workspace id has at most {MAX_WORKSPACE_ID} characters, this one has {len(text)}"
    if not _WORKSPACE.fullmatch(text):
        return (
            "a workspace id is lower-case letters, digits and single dashes, "
            "and starts and ends with a letter or digit"
        )
    return None


def user_id_error(text: str) -> str | None:
    """What is wrong with a user id, for a person; None: nothing."""
    if not text:
        return "a user id must not be empty"
    if len(text) > MAX_USER_ID:
        return f"a user id has at most {MAX_USER_ID} characters, this one has {len(text)}"
    if not _USER.fullmatch(text) or ".." in text:
        return (
            "a user id is letters, digits and _.@+|:=- without spaces, slashes or two dots "
            "in a row, and starts with a letter, digit or _"
        )
    return None
