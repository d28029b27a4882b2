"""Sessions where nothing is compiled: the same tests of the relay, on the event loops' own transports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.wire import IS_COMPILED

HERE = Path(__file__).parent
TESTS = ("test_relay.py", "test_handing.py", "test_frames.py", "test_upgrade.py", "test_passing.py", "test_opening.py")  # fmt: skip


@pytest.mark.skipif(not IS_COMPILED, reason="all other tests ran so")
def test_the_relay_in_python_alone() -> None:
    tests = [str(HERE / name) for name in TESTS if (HERE / name).exists()]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests],
        env={**os.environ, "IDE_GATEWAY_PURE": "1", "PYTEST_ADDOPTS": ""},
        cwd=HERE.parent.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
