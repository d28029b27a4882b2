"""An SMTP server as a process: prints its ports, then every mail it took as one line of JSON.

python mail_server.py [USER:PASSWORD [CERTIFICATE]] — with the first, it takes mail only from who signs in; a password
that comes in clear is printed. With a certificate (PEM, its key too) it has three ports: without TLS, with STARTTLS,
for smtps. Addresses that begin with
"no@" are refused for good, "later@" for now; "lost@" takes the mail and never says so.
"""

from __future__ import annotations

import asyncio
import base64
import email
import email.policy
import json
import ssl
import sys
import warnings

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

warnings.simplefilter("ignore")


class Handler:
    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith("no@"):
            return "550 5.1.1 nobody of that name"
        if address.startswith("later@"):
            return "451 4.7.1 come back later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        raw = envelope.content if isinstance(envelope.content, bytes) else b""
        mail = email.message_from_bytes(raw, policy=email.policy.default)
        row = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "headers": [[name, str(value)] for name, value in mail.items()],
            "text": mail.get_content(),
            "signedIn": bool(session.authenticated),
            "tls": over_tls(server),
            "raw": base64.b64encode(raw).decode(),
        }
        print(json.dumps(row), flush=True)
        if envelope.rcpt_tos[0].startswith("lost@"):
            await asyncio.Event().wait()
        return "250 2.0.0 taken"


def over_tls(server: SMTP) -> bool:
    assert server.transport is not None
    return server.transport.get_extra_info("sslcontext") is not None


async def main(wanted: str, certificate: str) -> None:
    def authenticate(server: SMTP, session: Session, envelope: Envelope, how: str, data: object) -> AuthResult:  # fmt: skip
        assert isinstance(data, LoginPassword)
        given = f"{data.login.decode()}:{data.password.decode()}"
        if not over_tls(server):
            print(json.dumps({"inClear": given}), flush=True)
        return AuthResult(success=given == wanted, handled=False)

    def factory(tls: ssl.SSLContext | None = None) -> SMTP:
        return SMTP(
            Handler(),
            hostname="mail.example",
            authenticator=authenticate if wanted else None,
            auth_required=bool(wanted),
            auth_require_tls=False,
            tls_context=tls,
        )

    loop, servers = asyncio.get_running_loop(), []
    servers.append(await loop.create_server(factory, "127.0.0.1", 0))
    if certificate:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate)
        servers.append(await loop.create_server(lambda: factory(tls), "127.0.0.1", 0))
        servers.append(await loop.create_server(factory, "127.0.0.1", 0, ssl=tls))
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*[*sys.argv[1:], "", ""][:2]))
