"""May this symbolic link be restored? Pure.

The rule is that no link leads out of the workspace. The one exception is the machine's own
software: a virtual environment is nothing without its `bin/python → /usr/bin/python3`, and what
stands in those directories is there for everybody on the machine.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

SOFTWARE = ("/bin", "/lib", "/lib32", "/lib64", "/libx32", "/nix", "/opt", "/sbin", "/usr")

MAX_HOPS = 40
"""Links followed before giving up, as in the kernel: a longer chain opens nothing for anybody."""


def stays(path: str, links: Mapping[str, str], software: Collection[str] = SOFTWARE) -> bool:
    """True if following the link at `path` never leaves the root, except into `software`.

    links: every link of the tree, path below the root → target. All of them matter: with
    `s → ../../../t` in p/q/r, the innocent looking `p/q/r/s/../../..` leads out of the root.
    What is no link is taken for a directory, so the answer holds whatever stands there.
    """
    at = path.split("/")
    ahead = [at.pop()]  # components still to walk, the next one last
    in_software, hops = False, 0
    while ahead:
        name = ahead.pop()
        if name in ("", "."):
            continue
        if name == "..":
            if in_software or not at:
                return False
            at.pop()
            continue
        target = None if in_software else links.get("/".join([*at, name]))
        if target is None:
            at.append(name)
            continue
        hops += 1
        if hops > MAX_HOPS:
            return False
        if target.startswith("/"):
            if not _is_below(software, target):
                return False
            in_software = True
        ahead.extend(reversed(target.split("/")))
    return True


def _is_below(directories: Collection[str], target: str) -> bool:
    names = [name for name in target.split("/") if name not in ("", ".")]
    path = "/" + "/".join(names)
    return ".." not in names and any(path.startswith(f"{each}/") for each in directories)
