"""E-mail against a real SMTP server, in a process of its own."""

from __future__ import annotations

import base64
import socket
from dataclasses import replace

import pytest

from lifecycle.notices import STOPPED, Notice
from lifecycle.notices.deliveries import Answer, Delivery, Outcome
from lifecycle.notices.email import Email, message
from tests.lifecycle.notices.mailing import MailServer, mail_server

NOTICE = Notice(
    1, STOPPED, "demo-abc", "ada", 1_795_564_800_000, "“demo” was stopped: " + "long " * 300
)
DELIVERY = Delivery("msg_1_1", "email", NOTICE, "démo", to="ada@example.org")
SENDER, HOME = "IDE <ide@example.com>", "https://ide.example.com"


async def send(server: MailServer, to: str, login: str = "", timeout: float = 20) -> Answer:
    email = Email(f"smtp://{login}127.0.0.1:{server.port}", SENDER, HOME, timeout)
    return await email.send(replace(DELIVERY, to=to))


async def test_a_mail_arrives_whole_and_what_is_refused_or_lost_is_told_apart() -> None:
    async with mail_server() as server:
        assert await send(server, "ada@example.org") == Answer(Outcome.SENT, "2.0.0 taken", 250)
        mail = await server.next()
        assert (mail["from"], mail["to"]) == ("ide@example.com", ["ada@example.org"])
        headers = dict(mail["headers"])
        assert headers["Subject"] == "“démo” was stopped"
        assert headers["Message-ID"] == "<msg_1_1@example.com>"
        assert headers["Date"] == "Wed, 25 Nov 2026 00:00:00 +0000"
        assert headers["Auto-Submitted"] == "auto-generated"
        assert headers["List-Unsubscribe"] == f"<{HOME}>"
        assert NOTICE.text.strip() in mail["text"]
        assert HOME in mail["text"]
        assert max(map(len, base64.b64decode(mail["raw"]).split(b"\r\n"))) <= 78

        refused = await send(server, "no@example.org")
        assert (refused.outcome, refused.code) == (Outcome.REFUSED, 550)
        later = await send(server, "later@example.org")
        assert (later.outcome, later.code) == (Outcome.FAILED, 451)
        # Taken, and the answer never came: a second one would be a second mail.
        assert (await send(server, "lost@example.org", timeout=0.5)).outcome is Outcome.UNKNOWN
        injected = await send(server, "a@b.example>\r\nBcc: eve@example.org")
        assert injected.outcome is Outcome.REFUSED
        assert [each["to"] for each in await server.stop()] == [["lost@example.org"]]


async def test_it_signs_in_where_that_is_asked_for() -> None:
    async with mail_server("ide:pass word/1") as server:
        sent = await send(server, "ada@example.org", "ide:pass%20word%2F1@")
        assert sent.outcome is Outcome.SENT
        assert (await server.next())["signedIn"]
        wrong = await send(server, "ada@example.org", "ide:other@")
        assert (wrong.outcome, wrong.code) == (Outcome.FAILED, 535)  # an operator mends that
        nobody = await send(server, "ada@example.org")
        assert (nobody.outcome, nobody.code) == (Outcome.FAILED, 530)
        assert await server.stop() == []


async def test_where_nobody_listens_it_is_tried_again() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    answer = await Email(f"smtp://127.0.0.1:{port}", SENDER, HOME).send(DELIVERY)
    assert answer.outcome is Outcome.FAILED
    assert answer.said


@pytest.mark.parametrize("name", ["a\r\nBcc: eve@example.org", "a\nb", "x" * 500])
def test_no_name_gets_out_of_its_header(name: str) -> None:
    written = message(replace(DELIVERY, name=name), SENDER, HOME).as_bytes()
    head = written.partition(b"\n\n")[0]
    assert not any(line.startswith((b"Bcc", b"b")) for line in head.splitlines())
