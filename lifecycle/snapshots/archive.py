"""Archives: what of a workspace goes into a snapshot, and what comes out of one.

Format: POSIX tar (PAX) in one zstd frame with a checksum; `tar --zstd -xf` reads it too.

Kept: regular files, directories, symbolic links, hard links among the workspace's own files,
permissions, times of change to the nanosecond, names of any bytes.
Not kept: sockets, FIFOs and devices (they belong to running processes), owners (the machine that
restores decides), setuid and setgid bits, extended attributes and ACLs, holes in sparse files, the
directories in `EXCLUDED`.
A file that changes while it is read keeps the length it had at first: cut if it grew, filled with
zeros if it shrank. One that vanishes is left out.

Symbolic links. An absolute one that points into the workspace becomes a relative one, since the
workspace may have another path next time. All others are stored as they are, and judged when they
are restored (`links.stays`): kept if they stay inside the root however they are followed, or lead
to the machine's own software (/usr, /opt, the agent's Python: without those every virtual
environment would come back broken). Others are left out with a line in the log, and stay in the archive. They would be
inert as well, for nothing of ours follows a link in a workspace, but "no link leaves the root" is
what operators can check.

An archive that could not come from here (a name outside the root or below a link, a device, a
hard link to what is not there, a second member of one name, bytes after the end) is refused as a
whole, as corrupt.
"""

from __future__ import annotations

from lifecycle.snapshots.packing import EXCLUDED, pack
from lifecycle.snapshots.unpacking import unpack

__all__ = ["EXCLUDED", "pack", "unpack"]
