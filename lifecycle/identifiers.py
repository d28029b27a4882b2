"""Names made from names: workspace ids and machine ids."""

from __future__ import annotations

import base64
import hashlib
import re


def machine_number(machine_id: str) -> int:
    """7 of "m-7"; 0 for a name that is not one of ours."""
    prefix, _, number = machine_id.partition("-")
    return int(number) if prefix == "m" and number.isascii() and number.isdecimal() else 0


def workspace_id_for(user_id: str, name: str = "") -> str:
    """The id of a user's workspace of that name: a DNS label of at most 33 characters.

    It is a function of both, so that asking twice finds the same workspace without a look-up, and a
    terminated one is found again. The user's id is only in the hash: it shows in no address.
    """
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:22].strip("-") or "ws"
    digest = hashlib.sha256(f"{user_id}\0{name}".encode()).digest()
    return f"{slug}-{base64.b32encode(digest)[:10].decode().lower()}"
