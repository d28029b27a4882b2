"""Why an agent says no, and why a boot came to nothing.

Refused      a call is answered with an HTTP error; nothing was changed
BootFailed   a start was accepted and then failed; shown as status `failed`
"""

from __future__ import annotations


class Refused(Exception):
    """code: stale_epoch, no_slot, bad_request, unauthorized, not_found, busy, disk_full, …"""

    def __init__(self, status: int, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.hint = hint


class BootFailed(Exception):
    """code: exited, crashed, not_ready, command_not_found, bad_command, isolation_impossible, …"""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def stale_epoch(workspace_id: str, asked: int, newest: int) -> Refused:
    message = f"workspace {workspace_id}: epoch {asked} is over, this machine knows epoch {newest}"
    return Refused(409, "stale_epoch", message, "read the workspace's record again")
