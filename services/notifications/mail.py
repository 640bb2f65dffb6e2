"""E-mail over SMTP, step by step, so that what was certainly not taken is told from what may have been.

SMTP does not deduplicate: a message whose last answer was lost is never sent again. Before the message itself has
been handed over, any failure means that it was not taken.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from html import escape

import aiosmtplib

from services.notifications.model.delivery import Accepted, Rejected
from services.notifications.templates import Wording
from shared.kit.decisions import Refused, Unanswered


@dataclass(frozen=True, slots=True)
class Mail:
    """A way to a mail server. ``start_tls`` None upgrades where the server offers it, True insists."""

    host: str
    port: int
    sender: str
    start_tls: bool | None = None
    user: str | None = None
    password: str | None = None
    timeout: float = 15.0

    def compose(self, to: str, key: str, reference: str, wording: Wording, language: str, at: datetime) -> EmailMessage:
        """A message in plain text and HTML. ``key`` makes its Message-ID, by which a server may know it again."""
        message = EmailMessage()
        message["From"] = self.sender
        message["To"] = to
        message["Subject"] = wording.subject
        message["Date"] = format_datetime(at)
        message["Message-ID"] = f"<{key}@{self.sender.rpartition('@')[2].rstrip('>')}>"
        message["X-Reference"] = reference
        message["Content-Language"] = language
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office answers
        message.set_content(wording.body)
        paragraphs = "".join(
            f"<p>{escape(part).replace(chr(10), '<br>')}</p>" for part in wording.body.strip().split("\n\n")
        )
        message.add_alternative(f'<!doctype html><html lang="{language}"><body>{paragraphs}</body></html>', "html")
        return message

    async def send(self, to: str, message: EmailMessage) -> Accepted | Rejected | Refused | Unanswered:
        """Hand a message over. Answers of 4xx are Refused, of 5xx Rejected, a lost last answer is Unanswered."""
        client = aiosmtplib.SMTP(
            hostname=self.host,
            port=self.port,
            timeout=self.timeout,
            start_tls=self.start_tls,
            username=self.user,
            password=self.password,
        )
        try:
            outcome = await self._hand_over(client, to, message)
            with contextlib.suppress(aiosmtplib.SMTPException, OSError):
                await client.quit()
            return outcome
        finally:
            client.close()

    async def _hand_over(
        self, client: aiosmtplib.SMTP, to: str, message: EmailMessage
    ) -> Accepted | Rejected | Refused | Unanswered:
        try:
            await client.connect()
            await client.mail(self.sender.rpartition("<")[2].rstrip(">"))
        except aiosmtplib.SMTPResponseException as error:
            return Refused(f"smtp-{error.code}")  # ours or the server's fault, to be put right: not this message's
        except (aiosmtplib.SMTPException, OSError) as error:
            return Refused(type(error).__name__)
        try:
            await client.rcpt(to)
        except aiosmtplib.SMTPResponseException as error:
            return _answered(error)
        except (aiosmtplib.SMTPException, OSError) as error:
            return Refused(type(error).__name__)
        try:
            await client.data(message.as_bytes(policy=SMTP))
        except aiosmtplib.SMTPResponseException as error:
            return _answered(error)
        except (aiosmtplib.SMTPException, OSError) as error:
            return Unanswered(type(error).__name__)
        return Accepted(str(message["Message-ID"]))


def _answered(error: aiosmtplib.SMTPResponseException) -> Rejected | Refused:
    """RFC 5321 4.2.1: 5yz is for good, 4yz for now."""
    return Rejected(f"smtp-{error.code}") if error.code >= 500 else Refused(f"smtp-{error.code}")
