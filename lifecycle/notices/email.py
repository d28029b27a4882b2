"""Notices by e-mail, over SMTP: smtp://[USER:PASSWORD@]HOST[:PORT] with STARTTLS where it is offered, smtps://….

A password travels over TLS or not at all: a server that offers none might be somebody in between. What certificates
are trusted is what this host trusts; OpenSSL's SSL_CERT_FILE names others.
Whoever gets a mail twice cannot tell, so that one which may have gone out is not sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP as WIRE
from email.utils import format_datetime, parseaddr
from urllib.parse import unquote, urlsplit

import aiosmtplib
from aiosmtplib.errors import (
    SMTPException,
    SMTPResponseException,
)

from lifecycle.notices import words
from lifecycle.notices.deliveries import Answer, Delivery, Outcome, printable

TIMEOUT = 20.0  # seconds for all of it
ADDRESS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@[A-Za-z0-9.-]{1,190}")


class Email:
    name = "email"
    repeatable = False

    def __init__(self, url: str, sender: str, home: str, timeout: float = TIMEOUT) -> None:
        """sender: an address, or NAME <ADDRESS>. home: the gateway's home page."""
        parts = urlsplit(url)
        self._tls = parts.scheme == "smtps"
        self._user, self._password = unquote(parts.username or ""), unquote(parts.password or "")
        usual = 465 if self._tls else 587 if self._user else 25
        self._host, self._port = parts.hostname or "localhost", parts.port or usual
        self._sender, self._home, self._timeout = sender, home, timeout
        self._called = urlsplit(
            home
        ).hostname  # without a name, the library asks DNS for this host's

    async def send(self, delivery: Delivery) -> Answer:
        if not ADDRESS.fullmatch(delivery.to):
            return Answer(Outcome.REFUSED, "the address is none that mail can be sent to")
        written = message(delivery, self._sender, self._home).as_bytes(policy=WIRE)
        smtp = aiosmtplib.SMTP(
            hostname=self._host,
            port=self._port,
            use_tls=self._tls,
            local_hostname=self._called,
            timeout=self._timeout,
        )
        handed_over = False
        try:
            async with asyncio.timeout(self._timeout):
                await smtp.connect()  # with STARTTLS, where that is offered
                if self._user and smtp.get_transport_info("sslcontext") is None:
                    return Answer(Outcome.FAILED, self._in_clear())
                if self._user:
                    await smtp.login(self._user, self._password)
                await smtp.mail(parseaddr(self._sender)[1])
                await smtp.rcpt(delivery.to)
                handed_over = True
                answer = await smtp.data(written)
            return Answer(Outcome.SENT, printable(answer.message), answer.code)
        except SMTPResponseException as error:  # the server said no: it did not take it
            return Answer(_refused(error), printable(str(error.message)), error.code)
        except (SMTPException, OSError, ValueError) as error:
            outcome = Outcome.UNKNOWN if handed_over else Outcome.FAILED
            return Answer(outcome, printable(self._why(error)))
        finally:
            await _part(smtp)

    async def close(self) -> None:
        """Every mail has a connection of its own."""

    def _in_clear(self) -> str:
        return (
            f"{self._host}:{self._port} offers no TLS, and a password is sent over nothing else."
            " Use smtps:// in --smtp-url, or a server with STARTTLS"
        )

    def _why(self, error: Exception) -> str:
        """Why there is no answer of the server's."""
        cause = error if isinstance(error, ssl.SSLError) else error.__cause__
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                f"the certificate of {self._host}:{self._port} is not trusted ({cause.verify_message})."
                " Nothing was sent. Name its authority's file in SSL_CERT_FILE, or correct --smtp-url"
            )
        if isinstance(cause, ssl.SSLError):
            other = "smtp" if self._tls else "smtps"
            said = cause.reason or str(cause)
            return f"no TLS with {self._host}:{self._port} ({said}). Is it a port for {other}://?"
        return str(error) or f"no answer in {self._timeout:g} s"


def message(delivery: Delivery, sender: str, home: str) -> EmailMessage:
    """Headers are made by the library, which refuses a line's end in them."""
    notice = delivery.notice
    host = parseaddr(sender)[1].rpartition("@")[2] or "localhost"
    mail = EmailMessage()
    mail["From"], mail["To"] = sender, delivery.to
    mail["Subject"] = printable(words.subject(notice.type, delivery.name))
    mail["Date"] = format_datetime(datetime.fromtimestamp(notice.at_ms / 1000, UTC))
    mail["Message-ID"] = f"<{delivery.id}@{host}>"
    mail["Auto-Submitted"] = "auto-generated"  # nobody's absence note answers it
    mail["List-Unsubscribe"] = f"<{home}>"
    mail.set_content(
        f"{notice.text}\n\nYour workspaces: {home}\n\n"
        "You get this because your address was set for notices. Which of them come by e-mail is"
        " chosen on that page.\n",
        cte="quoted-printable",  # lines of any length and any letters, through any server
    )
    return mail


def _refused(error: SMTPResponseException) -> Outcome:
    """5xx is for good, but what is about signing in (530 to 538): an operator puts that right."""
    for_good = 500 <= error.code < 600 and not 530 <= error.code <= 538
    return Outcome.REFUSED if for_good else Outcome.FAILED


async def _part(smtp: aiosmtplib.SMTP) -> None:
    if smtp.is_connected:
        with contextlib.suppress(SMTPException, OSError, TimeoutError):
            async with asyncio.timeout(1):
                await smtp.quit()
    smtp.close()
