"""What a machine's user data holds, and what it never does."""

from __future__ import annotations

from lifecycle.joining import Joining
from lifecycle.pools.bootstrap import Bootstrap


def test_user_data_holds_an_address_and_a_code_and_no_token() -> None:
    joining = Joining("the signing key")
    bootstrap = Bootstrap("https://ide.example.com", 7070, joining.code)
    url, code = bootstrap.user_data(7, 3).splitlines()
    assert url == "IDE_GATEWAY_URL=https://ide.example.com"
    assert code == f"IDE_GATEWAY_JOIN={joining.code(7, 3)}"
    assert bootstrap.environment(7, 3) == {
        "IDE_GATEWAY_URL": "https://ide.example.com",
        "IDE_GATEWAY_JOIN": joining.code(7, 3),
    }
    tokens = [joining.token(f"m-{number}") for number in (7, 8, 9)]
    assert not any(token in url + code for token in [*tokens, "the signing key"])
    assert joining.code(7, 3) not in repr(bootstrap)
