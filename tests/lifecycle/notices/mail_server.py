"""An SMTP server as a process: prints its port, then every mail it took as one line of JSON.

python mail_server.py [USER:PASSWORD] — with one, it takes mail only from who signs in. Addresses that begin with
"no@" are refused for good, "later@" for now; "lost@" takes the mail and never says so.
"""

from __future__ import annotations

import asyncio
import base64
import email
import email.policy
import json
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
            "raw": base64.b64encode(raw).decode(),
        }
        print(json.dumps(row), flush=True)
        if envelope.rcpt_tos[0].startswith("lost@"):
            await asyncio.Event().wait()
        return "250 2.0.0 taken"


async def main(wanted: str) -> None:
    def authenticate(server: SMTP, session: Session, envelope: Envelope, how: str, data: object) -> AuthResult:  # fmt: skip
        assert isinstance(data, LoginPassword)
        given = f"{data.login.decode()}:{data.password.decode()}"
        return AuthResult(success=given == wanted, handled=False)

    def factory() -> SMTP:
        return SMTP(
            Handler(),
            hostname="mail.example",
            authenticator=authenticate if wanted else None,
            auth_required=bool(wanted),
            auth_require_tls=False,
        )

    server = await asyncio.get_running_loop().create_server(factory, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else ""))
