from __future__ import annotations

import pytest

from lifecycle.snapshots.links import MAX_HOPS, stays


@pytest.mark.parametrize(
    ("path", "target", "kept"),
    [
        ("a", "b", True),
        ("a", "", True),
        ("a", ".", True),
        ("a", "..", False),
        ("d/a", "..", True),
        ("d/a", "../..", False),
        ("d/a", "../../d/b", False),  # out and in again: the root may have another name
        ("d/a", ".././//../x", False),
        ("d/e/a", "../../x/../y", True),
        ("a", "/", False),
        ("a", "/etc/passwd", False),
        ("a", "/home/ada/x", False),
        ("a", "/usr/bin/python3", True),
        ("a", "//usr/./bin", True),
        ("a", "/opt/conda/bin/python", True),
        ("a", "/usr", False),
        ("a", "/usr/../etc/passwd", False),
        ("a", "/usrlocal/x", False),
        (".#notes.md", "ada@host.4711:1700000000", True),  # an editor's lock
    ],
)
def test_one_link(path: str, target: str, kept: bool) -> None:
    assert stays(path, {path: target}) is kept


def test_a_link_is_judged_by_what_it_passes_through() -> None:
    links = {"p/q/r/s": "../../../t", "innocent": "p/q/r/s/../../.."}
    assert stays("p/q/r/s", links)
    assert not stays("innocent", links)  # s is t, t/.. is the root, and two more


def test_what_points_to_a_link_that_leaves_leaves_too() -> None:
    links = {"a": "/etc", "b": "a/passwd", "c": "b"}
    assert [stays(path, links) for path in links] == [False, False, False]


def test_software_is_entered_and_never_left_upwards() -> None:
    links = {"bin/python3": "/usr/bin/python3", "bin/python": "python3", "up": "bin/python/../.."}
    assert [stays(path, links) for path in links] == [True, True, False]


def test_only_the_given_software() -> None:
    assert stays("a", {"a": "/srv/py/bin/python"}, ["/srv/py"])
    assert not stays("a", {"a": "/usr/bin/python"}, ["/srv/py"])


def test_chains_as_long_as_the_kernel_follows() -> None:
    links = {f"l{n}": f"l{n + 1}" for n in range(100)}
    assert stays(f"l{100 - MAX_HOPS}", links)
    assert not stays(f"l{99 - MAX_HOPS}", links)


def test_loops_and_explosions_end() -> None:
    assert not stays("a", {"a": "a"})
    links = {f"l{n}": f"l{n + 1}/l{n + 1}" for n in range(60)}  # 2**60 steps if all were walked
    assert not stays("l0", links)
