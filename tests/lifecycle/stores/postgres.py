"""A real PostgreSQL server from Debian's packages, on a Unix socket, for one test process."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

WHERE = Path("/usr/lib/postgresql")
NOBODY = 65534
MISSING = "there is no PostgreSQL server here: apt-get install postgresql"


def binaries() -> Path | None:
    """The directory of the newest version's programs; None where the package is not installed."""
    found = sorted(WHERE.glob("*/bin/postgres"), key=lambda path: float(path.parts[-3]))
    return found[-1].parent if found else None


class Postgres:
    """PostgreSQL refuses to be root: as root it is run by nobody."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        # Not below pytest's own directory, which only its owner may enter.
        self.directory = Path(tempfile.mkdtemp(prefix="postgres-"))
        self._process: subprocess.Popen[bytes] | None = None
        if os.getuid() == 0:
            os.chown(self.directory, NOBODY, NOBODY)
        self._run("initdb", "-D", str(self._data), "-U", "gateway", "--auth=trust", "--no-sync",
                  "--encoding=UTF8", "--locale=C")  # fmt: skip

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://gateway@/{database}?host={self.directory}"

    def start(self) -> None:
        """Returns once it answers."""
        options = ["-D", str(self._data), "-k", str(self.directory), "-h", "", "-F"]
        self._process = subprocess.Popen(
            self._command("postgres", *options, "-c", "full_page_writes=off"),
            cwd=self.directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 20
        while True:
            try:
                self.execute("SELECT 1")
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def stop(self) -> None:
        """At once: whoever is connected is cut off."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGINT)
            self._process.wait(20)
            self._process = None

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.directory)

    def execute(self, *statements: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """To arrange and to look: the rows of the last statement."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            for statement in statements:
                found = connection.execute(statement.encode())
            return found.fetchall() if found.description else []

    def empty(self) -> None:
        self.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")

    def _command(self, program: str, *arguments: str) -> list[str]:
        nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        before = nobody if os.getuid() == 0 else []
        return [*before, str(self._programs / program), *arguments]

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            self._command(program, *arguments), cwd=self.directory, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
