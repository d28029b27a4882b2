"""Who may enter: every credential opens exactly one kind of door."""

from __future__ import annotations

import pytest

from gateway.auth import (
    HOME_COOKIE,
    OPERATOR_COOKIE,
    OWN_COOKIE_NAMES,
    WORKSPACE_COOKIE,
    Admin,
    BadCookies,
    Keys,
    Nobody,
    Person,
    Principal,
    TokenBearer,
    Visitor,
    authorization_is_ours,
    bearer,
    check_origin,
    check_reader,
    cookie_name,
    identify_base,
    identify_workspace,
    make_home_cookie,
    make_workspace_cookie,
    make_workspace_token,
    may,
    origin_header,
    set_cookie,
)

KEYS = Keys("signing-key", "the-api-key")
OTHER = Keys("another-signing-key", "another-api-key")
DAY = 86400.0
T = 1_000_000.0

Headers = list[tuple[bytes, bytes]]


def on_base(headers: Headers, keys: Keys = KEYS, https: bool = False, now: float = T) -> Principal:
    return identify_base(headers, keys, https=https, max_age=DAY, now=now)


def on_workspace(
    headers: Headers,
    workspace: str = "w1",
    keys: Keys = KEYS,
    https: bool = False,
    now: float = T,
) -> Principal:
    return identify_workspace(headers, workspace, keys, https=https, max_age=DAY, now=now)


def cookie(name: str, value: str) -> tuple[bytes, bytes]:
    return (b"cookie", f"{name}={value}".encode())


def authorization(value: str) -> tuple[bytes, bytes]:
    return (b"authorization", value.encode())


HOME = make_home_cookie("ada", KEYS, now=T)
ROOM = make_workspace_cookie("w1", "ada", KEYS, now=T)
TOKEN = make_workspace_token("w1", "ada", KEYS, now=T)


def test_each_credential_opens_its_door() -> None:
    assert on_base([authorization("Bearer the-api-key")]) == Admin()
    assert on_base([authorization("bearer the-api-key")]) == Admin()
    assert on_base([cookie("ide-gateway-home", HOME)]) == Person("ada")
    assert on_workspace([cookie("ide-gateway", ROOM)]) == Visitor("w1", "ada")
    assert on_workspace([authorization(f"Bearer {TOKEN}")]) == TokenBearer("w1", "ada")
    assert on_base([]) == on_workspace([]) == Nobody()


def test_no_credential_opens_another_door() -> None:
    for value in (ROOM, TOKEN, TOKEN.removeprefix("igw_")):
        assert on_base([cookie("ide-gateway-home", value)]) == Nobody()
    for value in (HOME, TOKEN.removeprefix("igw_"), TOKEN):
        assert on_workspace([cookie("ide-gateway", value)]) == Nobody()
    for value in (HOME, ROOM, f"igw_{HOME}", f"igw_{ROOM}"):
        assert on_workspace([authorization(f"Bearer {value}")]) == Nobody()
    for value in (HOME, ROOM, TOKEN):
        assert on_base([authorization(f"Bearer {value}")]) == Nobody()
    assert on_base([cookie("ide-gateway", HOME)]) == Nobody()
    assert on_workspace([cookie("ide-gateway-home", ROOM)]) == Nobody()


def test_another_workspace_or_key_is_nobody() -> None:
    assert on_workspace([cookie("ide-gateway", ROOM)], "w2") == Nobody()
    assert on_workspace([authorization(f"Bearer {TOKEN}")], "w2") == Nobody()
    assert on_workspace([cookie("ide-gateway", ROOM)], keys=OTHER) == Nobody()
    assert on_workspace([authorization(f"Bearer {TOKEN}")], keys=OTHER) == Nobody()
    assert on_base([cookie("ide-gateway-home", HOME)], keys=OTHER) == Nobody()


@pytest.mark.parametrize("value", [HOME, ROOM])
def test_one_changed_character_breaks_the_signature(value: str) -> None:
    door = on_base if value is HOME else on_workspace
    name = "ide-gateway-home" if value is HOME else "ide-gateway"
    assert door([cookie(name, value)]) != Nobody()
    # The last character of a base64 group may hold unused bits, so it is left out.
    for i in range(len(value) - 1):
        if value[i] != ".":
            changed = value[:i] + ("A" if value[i] != "A" else "B") + value[i + 1 :]
            assert door([cookie(name, changed)]) == Nobody(), i


def test_credentials_grow_old() -> None:
    for headers in ([cookie("ide-gateway", ROOM)], [authorization(f"Bearer {TOKEN}")]):
        assert on_workspace(headers, now=T + DAY) != Nobody()
        assert on_workspace(headers, now=T + DAY + 1) == Nobody()
    assert on_base([cookie("ide-gateway-home", HOME)], now=T + DAY) == Person("ada")
    assert on_base([cookie("ide-gateway-home", HOME)], now=T + DAY + 1) == Nobody()


@pytest.mark.parametrize(
    "value",
    [
        "Bearer the-api-ke",
        "Bearer the-api-keyy",
        "Bearer THE-API-KEY",
        "Bearer ",
        "Bearer",
        "Bearer the-api-key the-api-key",
        "Basic the-api-key",
        "the-api-key",
        "Bearer thé-api-key",
        "Bearer " + "x" * 100_000,
    ],
)
def test_a_wrong_api_key_is_nobody(value: str) -> None:
    assert on_base([authorization(value)]) == Nobody()


def test_an_empty_api_key_lets_nobody_in() -> None:
    keys = Keys("signing-key", "")
    assert on_base([authorization("Bearer ")], keys) == Nobody()
    assert on_base([authorization("Bearer")], keys) == Nobody()


def test_a_wrong_bearer_is_not_saved_by_a_cookie() -> None:
    assert on_base([cookie("ide-gateway-home", HOME), authorization("Bearer no")]) == Nobody()
    expired = make_workspace_token("w1", "ada", KEYS, now=T - 2 * DAY)
    headers = [cookie("ide-gateway", ROOM), authorization(f"Bearer {expired}")]
    assert on_workspace(headers) == Nobody()


def test_two_authorization_headers_are_nobody() -> None:
    twice = [authorization("Bearer the-api-key"), authorization("Bearer the-api-key")]
    assert bearer(twice) == ""
    assert on_base(twice) == Nobody()
    assert on_base([authorization("Basic x"), authorization("Bearer the-api-key")]) == Nobody()


def test_the_api_key_opens_no_workspace_and_stays_with_us() -> None:
    headers = [cookie("ide-gateway", ROOM), authorization("Bearer the-api-key")]
    assert on_workspace(headers) == Nobody()
    assert authorization_is_ours(headers, KEYS)


def test_whose_authorization_it_is() -> None:
    assert authorization_is_ours([authorization(f"Bearer {TOKEN}")], KEYS)
    assert authorization_is_ours([authorization(f"Bearer {TOKEN}")], OTHER)
    assert not authorization_is_ours([authorization("token jupyter")], KEYS)
    assert not authorization_is_ours([authorization("Bearer of-the-ide")], KEYS)
    assert not authorization_is_ours([], KEYS)
    # What belongs to the IDE does not stand in the cookie's way.
    headers = [cookie("ide-gateway", ROOM), authorization("Bearer of-the-ide")]
    assert on_workspace(headers) == Visitor("w1", "ada")


@pytest.mark.parametrize(
    "headers",
    [
        [(b"cookie", f"ide-gateway={ROOM}; ide-gateway={ROOM}".encode())],
        [(b"cookie", f"ide-gateway={ROOM};ide-gateway=planted".encode())],
        [(b"cookie", f"ide-gateway=planted; a=b; \tide-gateway = {ROOM}".encode())],
        [cookie("ide-gateway", ROOM), cookie("ide-gateway", ROOM)],
        [(b"cookie", f"ide-gateway; ide-gateway={ROOM}".encode())],
    ],
)
def test_two_cookies_of_our_name_are_refused(headers: Headers) -> None:
    with pytest.raises(BadCookies, match="two cookies named ide-gateway"):
        on_workspace(headers)


def test_two_cookies_of_our_name_are_refused_on_the_base_host() -> None:
    with pytest.raises(BadCookies):
        on_base([cookie("ide-gateway-home", HOME), cookie("ide-gateway-home", "x")])
    # Even for an admin's bearer there is nothing to decide: the cookie is not looked at.
    headers = [cookie("ide-gateway-home", HOME), cookie("ide-gateway-home", "x")]
    assert on_base([*headers, authorization("Bearer the-api-key")]) == Admin()


def test_other_cookies_do_not_disturb() -> None:
    value = f'_xsrf=2|a|b; x="a; y; =z; ide-gateway={ROOM}; ide-gateway-x=1; IDE-GATEWAY=2'
    assert on_workspace([(b"cookie", value.encode())]) == Visitor("w1", "ada")


def test_under_https_only_the_prefixed_cookie_counts() -> None:
    assert on_workspace([cookie("__Host-ide-gateway", ROOM)], https=True) == Visitor("w1", "ada")
    assert on_workspace([cookie("ide-gateway", ROOM)], https=True) == Nobody()
    assert on_workspace([cookie("__Host-ide-gateway", ROOM)]) == Nobody()
    assert on_base([cookie("__Host-ide-gateway-home", HOME)], https=True) == Person("ada")
    # A sibling can plant the plain name; under https that says nothing and locks nobody out.
    planted = [cookie("ide-gateway", "x"), cookie("ide-gateway", "y")]
    assert on_workspace([cookie("__Host-ide-gateway", ROOM), *planted], https=True) == Visitor(
        "w1", "ada"
    )


def test_set_cookie_is_host_only() -> None:
    plain = set_cookie(HOME_COOKIE, "v", https=False, max_age=60)
    assert plain == "ide-gateway-home=v; Path=/; Max-Age=60; HttpOnly; SameSite=Lax"
    secure = set_cookie(WORKSPACE_COOKIE, "v", https=True, max_age=60.9)
    assert secure == "__Host-ide-gateway=v; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure"
    operator = set_cookie(OPERATOR_COOKIE, "v", https=False, max_age=60)
    assert operator == "ide-gateway-operator=v; Path=/; Max-Age=60; HttpOnly; SameSite=Strict"
    names = (HOME_COOKIE, WORKSPACE_COOKIE, OPERATOR_COOKIE)
    assert {cookie_name(n, h) for n in names for h in (True, False)} == OWN_COOKIE_NAMES


ORIGIN = "http://w1.localhost:8000"


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "http://w2.localhost:8000",
        "http://localhost:8000",
        "http://w1.localhost:8000.evil.com",
        "http://w1.localhost",
        "http://w1.localhost:80",
        "http://w1.localhost:80000",
        "https://w1.localhost:8000",
        "http://W1.localhost:8000",
        "HTTP://w1.localhost:8000",
        "http://w1.localhost:8000/",
        " http://w1.localhost:8000",
        "http://8080--w1.localhost:8000",
        "http://x.w1.localhost:8000",
        "http://evilw1.localhost:8000",
        "http://w1.localhost.:8000",
        "http://user@w1.localhost:8000",
        "http://w1.localhost:8000, http://w1.localhost:8000",
    ],
)
def test_a_foreign_origin_is_refused_with_and_without_cookie(origin: str) -> None:
    assert not check_origin(origin, ORIGIN, cookie_used=True)
    assert not check_origin(origin, ORIGIN, cookie_used=False)


def test_the_own_origin_and_none() -> None:
    assert check_origin(ORIGIN, ORIGIN, cookie_used=True)
    assert check_origin(ORIGIN, ORIGIN, cookie_used=False)
    assert not check_origin(None, ORIGIN, cookie_used=True)
    assert check_origin(None, ORIGIN, cookie_used=False)


def test_two_origin_headers_are_none_of_ours() -> None:
    one = (b"origin", ORIGIN.encode())
    assert origin_header([one]) == ORIGIN
    assert origin_header([]) is None
    assert not check_origin(origin_header([one, one]), ORIGIN, cookie_used=True)


@pytest.mark.parametrize(
    ("headers", "may_read"),
    [
        ({}, True),
        ({"origin": ORIGIN}, True),
        ({"origin": "http://w2.localhost:8000"}, False),
        ({"origin": "http://8080--w1.localhost:8000"}, False),
        ({"origin": "null"}, False),
        ({"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}, True),
        ({"sec-fetch-site": "none", "sec-fetch-mode": "no-cors"}, True),
        ({"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"}, False),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, False),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-site", "sec-fetch-mode": "navigate"}, True),
        ({"sec-fetch-site": "same-origin", "origin": "http://w2.localhost:8000"}, False),
    ],
)
def test_a_siblings_page_reads_nothing(headers: dict[str, str], may_read: bool) -> None:
    """Under one domain all workspaces are one site: SameSite cookies do not keep them apart."""
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    assert check_reader(pairs, ORIGIN) is may_read


def test_only_cookies_can_be_ridden() -> None:
    assert Person("a").by_cookie
    assert Visitor("w", "a").by_cookie
    assert not Admin().by_cookie
    assert not TokenBearer("w", "a").by_cookie


@pytest.mark.parametrize("person", [Person("ada"), Visitor("w1", "ada"), TokenBearer("w1", "ada")])
def test_people_may_touch_only_what_is_theirs(person: Principal) -> None:
    assert may(person, "ada")
    for other in ("bob", "", "Ada", "ada ", "adaa"):
        assert not may(person, other)


def test_admins_may_everything_and_nobody_nothing() -> None:
    assert may(Admin(), "ada")
    assert not may(Nobody(), "ada")
    assert not may(Nobody(), "")


def test_keys_do_not_show() -> None:
    assert "signing" not in repr(KEYS)
    assert "the-api" not in str(KEYS)
