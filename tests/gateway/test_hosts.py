"""Hosts are matched whole: what is not spelled exactly like one of ours is nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.hosts import (
    Base,
    PortHost,
    PublicUrl,
    WorkspaceHost,
    host_of,
    origin_of,
    place_of,
    user_id_error,
    workspace_id_error,
)

LOCAL = PublicUrl("http", "localhost", 8000)
PUBLIC = PublicUrl("https", "ide.example.com", 443)


@pytest.mark.parametrize(
    ("host", "place"),
    [
        ("localhost", Base()),
        ("localhost:8000", Base()),
        ("LocalHost:8000", Base()),
        ("localhost.", Base()),
        ("localhost.:8000", Base()),
        (b"localhost:8000", Base()),
        ("127.0.0.1:8000", Base()),
        ("127.0.0.1", Base()),
        ("[::1]:8000", Base()),
        ("[::1]", Base()),
        ("ada-x2.localhost:8000", WorkspaceHost("ada-x2")),
        ("ADA-X2.LOCALHOST", WorkspaceHost("ada-x2")),
        ("ada-x2.localhost.", WorkspaceHost("ada-x2")),
        ("a.localhost", WorkspaceHost("a")),
        ("8080.localhost", WorkspaceHost("8080")),
        ("8080--ada.localhost:8000", PortHost("ada", 8080)),
        ("65535--ada.localhost", PortHost("ada", 65535)),
        (f"{'w' * 40}.localhost", WorkspaceHost("w" * 40)),
    ],
)
def test_our_hosts(host: str | bytes, place: object) -> None:
    assert place_of(host, "localhost") == place


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "evil.com",
        "localhost.evil.com",
        "evillocalhost",
        "ada.evil-localhost",
        "ada.localhost.evil.com",
        "a.b.localhost",
        ".localhost",
        "ada..localhost",
        "ada.localhost..",
        "-ada.localhost",
        "ada-.localhost",
        "a--b.localhost",
        "xn--80ak6aa92e.localhost",
        "0--ada.localhost",
        "08080--ada.localhost",
        "65536--ada.localhost",
        "8080--.localhost",
        "8080---ada.localhost",
        "8080--9090--ada.localhost",
        f"{'w' * 41}.localhost",
        "localhost:",
        "localhost:80a",
        "localhost:0",
        "localhost:65536",
        "localhost:8000:8000",
        "localhost:\uff18\uff10",
        "localhost/evil",
        "user@localhost",
        "localhost\n",
        " localhost",
        "ada_x.localhost",
        "adé.localhost",
        "\u212a.localhost",  # the Kelvin sign is "k" in lower case
        "127.0.0.2",
        "127.0.0.1.",
        "ada.127.0.0.1",
        "::1",
        "[::1",
        "0.0.0.0",
        "w." * 200 + "localhost",
    ],
)
def test_foreign_hosts(host: str | None) -> None:
    assert place_of(host, "localhost") is None


def test_loopback_addresses_are_nothing_on_a_real_domain() -> None:
    assert place_of("127.0.0.1:8000", "ide.example.com") is None
    assert place_of("[::1]", "ide.example.com") is None
    assert place_of("localhost", "ide.example.com") is None
    assert place_of("example.com", "ide.example.com") is None
    assert place_of("ada.ide.example.com", "ide.example.com") == WorkspaceHost("ada")
    # The dots of the domain are no wildcards.
    assert place_of("ada.ideXexample.com", "ide.example.com") is None


@pytest.mark.parametrize("public", [LOCAL, PUBLIC])
@pytest.mark.parametrize("place", [Base(), WorkspaceHost("ada"), PortHost("ada", 8080)])
def test_the_host_of_a_place_leads_back_to_it(
    place: Base | WorkspaceHost | PortHost, public: PublicUrl
) -> None:
    assert place_of(host_of(place, public), public.host) == place


def test_origins_are_written_as_browsers_write_them() -> None:
    assert origin_of(Base(), LOCAL) == "http://localhost:8000"
    assert origin_of(WorkspaceHost("ada"), LOCAL) == "http://ada.localhost:8000"
    assert origin_of(WorkspaceHost("ada"), PUBLIC) == "https://ada.ide.example.com"
    assert origin_of(PortHost("ada", 80), PUBLIC) == "https://80--ada.ide.example.com"
    assert origin_of(Base(), PublicUrl("http", "localhost", 80)) == "http://localhost"
    assert origin_of(Base(), PublicUrl("http", "localhost", 443)) == "http://localhost:443"


def test_public_url() -> None:
    assert PublicUrl.parse("https://IDE.example.com/") == PUBLIC
    assert PublicUrl.parse("http://localhost:8000") == LOCAL
    assert PUBLIC.https
    assert not LOCAL.https


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost:8000",
        "ftp://localhost",
        "https://",
        "https://ide.example.com/path",
        "https://ada@ide.example.com",
        "https://ide.example.com?x=1",
        "https://ide.example.com:0",
        "https://ide.example.com:99999",
        "https://ide example.com",
        "https://-ide.com",
    ],
)
def test_a_bad_public_url_says_so(text: str) -> None:
    with pytest.raises(ValueError, match="public URL"):
        PublicUrl.parse(text)


@pytest.mark.parametrize("text", ["a", "8", "ada", "ada-x2-3", "a" * 40])
def test_good_workspace_ids(text: str) -> None:
    assert workspace_id_error(text) is None


@pytest.mark.parametrize(
    "text", ["", "A", "a_b", "-a", "a-", "a--b", "a.b", "a b", "a\n", "../x", "a" * 41, "é"]
)
def test_bad_workspace_ids(text: str) -> None:
    error = workspace_id_error(text)
    assert error is not None
    assert "a workspace id" in error


@pytest.mark.parametrize(
    "text", ["a", "_a", "Ada.Lovelace+x@example.com", "auth0|12:3=-", "9", "u" * 128]
)
def test_good_user_ids(text: str) -> None:
    assert user_id_error(text) is None


@pytest.mark.parametrize(
    "text", ["", ".a", "-a", "@a", "a/b", "a..b", "..", "a b", "a\n", "a\0", "é", "u" * 129]
)
def test_bad_user_ids(text: str) -> None:
    assert user_id_error(text) is not None


def test_an_error_does_not_repeat_ten_thousand_characters() -> None:
    error = user_id_error("u" * 10_000)
    assert error is not None
    assert "10000" in error
    assert len(error) < 200


@given(st.text(max_size=80))
def test_no_text_makes_a_place_that_is_no_valid_id(text: str) -> None:
    match place_of(text + ".localhost", "localhost"):
        case WorkspaceHost(workspace) | PortHost(workspace):
            assert workspace_id_error(workspace) is None
        case Base():
            raise AssertionError(text)
