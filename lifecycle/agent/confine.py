"""Become a workspace's process: own uid, own view of the disk, then run the command.

    python -I -S confine.py SPEC -- PROGRAM [ARG ...]

Stands alone (standard library only) because it runs once for every boot and must start in
milliseconds. SPEC is JSON and holds nothing secret, as argv is public to all users:

    parent   pid of the agent; the command ends with it
    uid      to become, with the gid of the same number; 0 = stay who we are
    cwd      where to run
    home     the workspace's files, by their path on the machine
    steps    ["tmpfs", PATH] or ["bind", SOURCE, PATH, READ_ONLY], in order, in a private
             mount namespace, with System V IPC of its own

Fails with exit code 125, a missing program with 127, one that may not be run with 126; the reason
is on stderr after "ide-gateway: ".
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from typing import NoReturn

CLONE_NEWNS, CLONE_NEWIPC = 0x00020000, 0x08000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = (
    1, 2, 4, 32, 4096, 16384, 1 << 18,
)  # fmt: skip
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
MAX_PROCESSES = 4096  # of one uid: a fork bomb ends here, not with the machine
MAX_FILES = 65536


def main(spec: dict[str, object], argv: list[str]) -> NoReturn:
    uid, steps = spec["uid"], spec["steps"]
    assert isinstance(uid, int)
    assert isinstance(steps, list)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        os.umask(0o022)
        if steps:
            enter_namespace(libc, steps, str(spec["home"]))
        os.umask(0o077)
        limit(resource.RLIMIT_CORE, 0)
        limit(resource.RLIMIT_NOFILE, MAX_FILES, final=False)
        if uid:
            limit(resource.RLIMIT_NPROC, MAX_PROCESSES)
            become(libc, uid)
        die_with(libc, int(str(spec["parent"])))
        os.chdir(str(spec["cwd"]))
    except OSError as error:
        fail(125, f"cannot confine the workspace: {error}")
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # Python's own doing, inherited through exec
        signal.signal(ignored, signal.SIG_DFL)
    try:
        os.execv(argv[0], argv)
    except FileNotFoundError as error:
        fail(127, f"cannot run {argv[0]}: {error.strerror}")
    except OSError as error:
        fail(126, f"cannot run {argv[0]}: {error.strerror}")


def enter_namespace(libc: ctypes.CDLL, steps: list[list[object]], home: str) -> None:
    """Apply the steps where nobody else sees them. System V's shared memory and queues are its own as well: they outlast
    the processes that made them, and the next holder of the uid could open them."""
    check(libc.unshare(CLONE_NEWNS | CLONE_NEWIPC), "unshare")
    mount(libc, None, "/", None, MS_REC | MS_PRIVATE)
    for volume in others_volumes(home):
        check(libc.umount2(os.fsencode(volume), MNT_DETACH), f"umount of {volume}")
    # What is bound back may lie under what gets covered: hold on to all of it first.
    held = {str(s[1]): os.open(str(s[1]), os.O_PATH) for s in steps if s[0] == "bind"}
    for step in steps:
        if step[0] == "tmpfs":
            mount(libc, "tmpfs", str(step[1]), "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=1m")
            continue
        source, target, read_only = f"/proc/self/fd/{held[str(step[1])]}", str(step[2]), step[3]
        make_mount_point(source, target)
        mount(libc, source, target, None, MS_BIND | MS_REC)
        if read_only:
            mount(libc, None, target, None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NODEV)


def others_volumes(home: str) -> list[str]:
    """Volumes of the machine's other workspaces: held in this view, they could not be detached."""
    with open("/proc/self/mountinfo", "rb") as file:
        points = [os.fsdecode(line.split()[4].decode("unicode_escape")) for line in file]
    ours = [point for point in points if os.path.basename(point) == "volume"]
    beside = [p for p in ours if home.startswith(os.path.dirname(os.path.dirname(p)) + "/")]
    return [point for point in beside if not home.startswith(point + "/")]


def make_mount_point(source: str, target: str) -> None:
    if os.path.exists(target):
        return
    if os.path.isdir(source):
        os.makedirs(target, 0o755)
    else:
        os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))


def become(libc: ctypes.CDLL, uid: int) -> None:
    """Take the uid for good: no group, no capability and no set-uid program leads back."""
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def die_with(libc: ctypes.CDLL, parent: int) -> None:
    """End when the agent ends, however it ends. After setresuid, which clears the setting."""
    if sys.platform == "linux":
        check(libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it died before the setting was made
        fail(125, "the agent is gone")


def limit(which: int, value: int, *, final: bool = True) -> None:
    """final: the command cannot raise it again."""
    hard = resource.getrlimit(which)[1]
    bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (bound, bound if final else hard))


def mount(
    libc: ctypes.CDLL,
    source: str | None,
    target: str,
    kind: str | None,
    flags: int,
    data: str | None = None,
) -> None:
    as_bytes = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    options = None if data is None else data.encode()
    check(libc.mount(*as_bytes, ctypes.c_ulong(flags), options), f"mount on {target}")


def check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def fail(code: int, message: str) -> NoReturn:
    print(f"ide-gateway: {message}", file=sys.stderr, flush=True)
    os._exit(code)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[3:])
