"""E-mail against a real SMTP server, in a process of its own."""

from __future__ import annotations

import base64
import ipaddress
import socket
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lifecycle.notices import STOPPED, Notice
from lifecycle.notices.deliveries import Answer, Delivery, Outcome
from lifecycle.notices.email import Email, message
from tests.lifecycle.notices.mailing import MailServer, mail_server

NOTICE = Notice(
    1, STOPPED, "demo-abc", "ada", 1_795_564_800_000, "“demo” was stopped: " + "long " * 300
)
DELIVERY = Delivery("msg_1_1", "email", NOTICE, "démo", to="ada@example.org")
SENDER, HOME = "IDE <ide@example.com>", "https://ide.example.com"


async def send(server: MailServer, to: str, timeout: float = 20) -> Answer:
    email = Email(f"smtp://127.0.0.1:{server.port}", SENDER, HOME, timeout)
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


def certificate(path: Path) -> Path:
    """One that vouches for itself, for 127.0.0.1 alone, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail")])
    now = datetime.now(UTC)
    addresses = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(addresses, critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


async def test_a_password_goes_over_tls_to_a_server_that_is_trusted_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, login = certificate(tmp_path / "mail.pem"), "ide:pass%20word%2F1@"
    async with mail_server("ide:pass word/1", str(shown)) as server:
        plain, starttls, smtps = server.ports

        async def sent(url: str) -> Answer:
            return await Email(url, SENDER, HOME).send(DELIVERY)

        # Nobody vouches for it.
        for url in (
            f"smtps://{login}127.0.0.1:{smtps}",
            f"smtp://{login}127.0.0.1:{starttls}",
            f"smtp://127.0.0.1:{starttls}",
        ):
            refused = await sent(url)
            assert refused.outcome is Outcome.FAILED  # an operator mends that
            assert "is not trusted (self-signed certificate). Nothing was sent" in refused.said
            assert "SSL_CERT_FILE" in refused.said

        monkeypatch.setenv("SSL_CERT_FILE", str(shown))
        for url in (f"smtps://{login}127.0.0.1:{smtps}", f"smtp://{login}127.0.0.1:{starttls}"):
            assert (await sent(url)).outcome is Outcome.SENT
            mail = await server.next()
            assert (mail["signedIn"], mail["tls"]) == (True, True)

        other = await sent(f"smtps://{login}localhost:{smtps}")
        assert other.outcome is Outcome.FAILED
        assert f"the certificate of localhost:{smtps} is not trusted" in other.said
        assert "not valid for 'localhost'" in other.said
        wrong = await sent(f"smtp://ide:other@127.0.0.1:{starttls}")
        assert (wrong.outcome, wrong.code) == (Outcome.FAILED, 535)
        nobody = await sent(f"smtp://127.0.0.1:{starttls}")
        assert (nobody.outcome, nobody.code) == (Outcome.FAILED, 530)
        # The server would take it in clear.
        clear = await sent(f"smtp://{login}127.0.0.1:{plain}")
        assert clear.outcome is Outcome.FAILED
        assert clear.said.startswith(f"127.0.0.1:{plain} offers no TLS, and a password is sent")
        mixed = await sent(f"smtps://{login}127.0.0.1:{plain}")
        assert mixed.outcome is Outcome.FAILED
        assert mixed.said.endswith("Is it a port for smtp://?")
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
