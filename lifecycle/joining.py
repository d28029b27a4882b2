"""How a machine proves which one it is, without anything secret being kept anywhere. Pure.

Both credentials are made from the key that all gateways share and can be made again after every record
is lost. A join code is public to whoever reads a machine's user data, so it opens one thing once: the
place of one machine that has not joined yet. The token is the machine's own from then on.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re

_CODE = re.compile(r"([1-9][0-9]{0,9})-([1-9][0-9]{0,4})\.([A-Za-z0-9_-]{32})")


class Joining:
    def __init__(self, key: str) -> None:
        """key: the gateways' signing key."""
        self._key = key.encode()

    def token(self, machine_id: str) -> str:
        """What opens the agent of that machine, and what its agent shows to the gateway."""
        return self._mac(f"machine {machine_id}")

    def code(self, first: int, count: int = 1) -> str:
        """For the machines m-{first} … of one launch: they share their user data."""
        return f"{first}-{count}.{self._mac(f'join {first} {count}')}"

    def machine(self, code: str, index: int = 0) -> str:
        """The machine that the code's `index`-th user is; "" when the code is not ours or the index is not in it."""
        parts = _CODE.fullmatch(code)
        if not parts:
            return ""
        first, count = int(parts[1]), int(parts[2])
        if not hmac.compare_digest(parts[3], self._mac(f"join {first} {count}")):
            return ""
        return f"m-{first + index}" if 0 <= index < count else ""

    def _mac(self, text: str) -> str:
        digest = hmac.digest(self._key, text.encode(), hashlib.sha256)[:24]
        return base64.urlsafe_b64encode(digest).decode()
