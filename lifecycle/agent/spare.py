"""An IDE that was started before anybody asked for it, and how it becomes somebody's.

It stands in its home and knows it by a path, and neither can be changed any more: so the person's files move
into that directory, and the directory becomes the workspace's. In a view of its own the path goes on leading there
(SEEN). Elsewhere it is the one that the IDE was started with, and a link leads on from there; that link
stays, for people write such paths into their files.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from dataclasses import dataclass
from pathlib import Path

from lifecycle.agent import probe, uids
from lifecycle.agent.contract import StartSpec, WarmSpec
from lifecycle.agent.disk import WorkspaceDir
from lifecycle.agent.ide import Ide
from lifecycle.agent.isolation import Isolation
from lifecycle.snapshots import tree

GIVEN_AT_MOST = 10_000
"""Files that change hands: a tenth of a second. More of them take longer than an IDE takes to start."""


@dataclass(eq=False, slots=True)
class Spare:
    """ready: done once the IDE serves, failed when it never will."""

    ide: Ide
    where: WorkspaceDir
    uid: int
    spec: WarmSpec
    ready: asyncio.Task[None]
    born: float
    broken: bool = False

    @property
    def lives(self) -> bool:
        """Whether it serves, or may still come to."""
        failed = self.ready.done() and (self.ready.cancelled() or self.ready.exception())
        return not self.broken and not failed and self.ide.process.returncode is None

    @property
    def header(self) -> str:
        return self.spec.upstream_header.replace("{secret}", self.ide.secret)

    def fits(self, spec: StartSpec) -> bool:
        """Whether that boot would have started the same."""
        header = self.spec.upstream_header.replace("{secret}", spec.secret)
        asked = (spec.command, spec.ready_path, spec.upstream_header, spec.base_url)
        return asked == (self.spec.command, self.spec.ready_path, header, "/") and not spec.volume

    async def serves(self) -> str:
        """ "" once it does, else why not."""
        await asyncio.wait({self.ready})
        if not self.lives:
            return "it has ended"
        if not self.spec.ready_path:
            return await probe.accepts(self.ide.host, self.ide.port)
        ide = self.ide
        return await probe.answers(ide.host, ide.port, self.spec.ready_path, self.header)

    def unsuited(self, where: WorkspaceDir) -> str:
        """Why the files there need an IDE that starts with them; "" when they do not. Blocks."""
        if not where.has_files():
            return ""
        if self.spec.reads is None:
            return "nobody knows what this IDE reads of a person's files when it starts"
        for pattern in self.spec.reads:
            if any(where.home.glob(pattern)):
                return f"this IDE reads {pattern} when it starts"
        if self.uid and where.home.stat().st_uid != self.uid and _many(where.home):
            return f"more than {GIVEN_AT_MOST:,} files would change hands"
        return ""

    def give(self, where: WorkspaceDir, held: int, isolation: Isolation) -> None:
        """Make that workspace's files those of this IDE, and all it has the workspace's. held: the uid that
        the workspace had. Blocks. Raises OSError; then nothing of the person's is lost, and this IDE is spoilt."""
        if self.uid:
            uids.give(self.uid, self.where.path, where.path)
            if held != self.uid:
                uids.release(where.path, held)
        try:
            where.move_in(self.where, self.uid)
        finally:
            tree.remove(self.where.path)
        if not (self.uid and isolation.mounts):
            self.where.path.symlink_to(os.path.relpath(where.path, self.where.path.parent))


def _many(home: Path) -> bool:
    files = (name for _, names, files in os.walk(home) for name in (*names, *files))
    return next(itertools.islice(files, GIVEN_AT_MOST, None), None) is not None
