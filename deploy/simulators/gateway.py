"""The message gateway, as notifications meets it: SMS and voice over HTTP, e-mail over SMTP, letters as PDF.

It accepts, reports what became of a message, and forwards what people send back. What a reply means is not its
affair. See README.md for the wire.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default as email_policy
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import httpx
from aiosmtpd.smtp import SMTP
from fastapi import APIRouter, FastAPI, Request, Response
from pydantic import AnyHttpUrl, BaseModel, ConfigDict, Field

from deploy.simulators.ledger import (
    GatewayLedger,
    InboundReply,
    Journal,
    Message,
    MessageChannel,
    MessageStatus,
    RefusedMessage,
    Sent,
    earliest,
    stamp,
)
from deploy.simulators.outbound import Outbound, Parcel, TokenSource, taken
from deploy.simulators.wire import Order, answer, due_answer, read_body, read_order
from shared.kit.document import derived_id
from shared.kit.errors import DomainError, Flaw, Invalid, TooLarge

MAX_MESSAGE_BYTES = 64 * 1024
MAX_LETTER_BYTES = 5 * 1024 * 1024
E164 = re.compile(r"\+[1-9]\d{6,14}")
"""ITU-T E.164: a plus, a country code, at most 15 digits."""

DELIVERY_TIME = {
    MessageChannel.SMS: timedelta(seconds=2),
    MessageChannel.VOICE: timedelta(seconds=30),
    MessageChannel.LETTER: timedelta(hours=48),
}

Sleep = Callable[[float], Awaitable[None]]
Note = Callable[[datetime, int | None], None]


class Fate(StrEnum):
    """What a request meets."""

    DELIVERED = "delivered"
    INVALID = "invalid"
    UNDELIVERED = "undelivered"
    FAILED = "failed"
    BUSY = "busy"
    ERROR = "error"
    LOST = "lost"
    SLOW = "slow"
    SILENT = "silent"


STRIKES = {Fate.BUSY: 2, Fate.ERROR: 2, Fate.LOST: 1, Fate.SLOW: 1}
"""How often a sandbox address meets a passing fate before it is delivered."""

_SANDBOX_NUMBER = re.compile(r"\+1500555(\d)\d{3}")
_BY_DIGIT = {
    "1": Fate.INVALID,
    "2": Fate.UNDELIVERED,
    "3": Fate.FAILED,
    "4": Fate.BUSY,
    "5": Fate.ERROR,
    "6": Fate.LOST,
    "7": Fate.SLOW,
    "8": Fate.SILENT,
}
_BY_WORD = (Fate.INVALID, Fate.BUSY, Fate.ERROR, Fate.LOST, Fate.SLOW)

_REPORTS = {
    Fate.UNDELIVERED: (MessageStatus.UNDELIVERED, "unreachable"),
    Fate.FAILED: (MessageStatus.FAILED, "carrier-rejected"),
}


def sandbox_fate(to: str) -> Fate:
    """What a sandbox number or mail address stands for; all others are delivered."""
    number = _SANDBOX_NUMBER.fullmatch(to)
    if number is not None:
        return _BY_DIGIT.get(number[1], Fate.DELIVERED)
    if "@" in to:
        return next((fate for fate in _BY_WORD if to.startswith(fate)), Fate.DELIVERED)
    return Fate.DELIVERED


class Refusal(Exception):
    """A request that is not answered with success. ``code`` says why, for machines."""

    def __init__(self, status: int, code: str, retry_after: int | None = None) -> None:
        super().__init__(code)
        self.status, self.code, self.retry_after = status, code, retry_after


class KeyReused(Refusal):
    """The key came before with another message."""

    def __init__(self) -> None:
        super().__init__(422, "idempotency-key-reused")


class OutgoingMessage(BaseModel):
    """The body of POST /sms and /voice. As gateways do, it ignores fields that it does not know."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    to: str
    sender: str = Field(alias="from", min_length=1, max_length=64)
    body: str = Field(min_length=1, max_length=1600)
    reference: str = Field(min_length=1, max_length=200)
    language: str = Field("en", pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$")
    callback_url: AnyHttpUrl | None = None


class ScriptOrder(Order):
    """POST /control/script: the next ``count`` requests to ``to`` (to anybody where None) meet ``fate``."""

    to: str | None = None
    fate: Fate
    count: int = Field(1, ge=1)
    channel: MessageChannel | None = None
    retry_after: int = Field(2, ge=0)


class ReplyOrder(Order):
    """POST /control/reply: a person answers. ``to`` is by default who last wrote to them."""

    sender: str = Field(alias="from", min_length=1)
    body: str
    channel: MessageChannel = MessageChannel.SMS
    to: str | None = None
    copies: int = Field(1, ge=1, le=10)


@dataclass(slots=True)
class Met:
    """The fate that one request meets; ``retry_after`` in seconds."""

    fate: Fate
    retry_after: int = 2


@dataclass(slots=True)
class Report:
    """What is to become of an accepted message, and whom to tell."""

    due: datetime
    message: Message
    status: MessageStatus
    code: str | None
    callback_url: str | None


@dataclass(frozen=True, slots=True)
class Draft:
    """A message about to be accepted; equal to another one under the same key, or the key was reused."""

    channel: MessageChannel
    to: str
    sender: str
    body: str
    reference: str | None
    subject: str | None = None
    language: str = "en"

    @property
    def address(self) -> str:
        """What scripts find it by: a letter's address is inside its PDF, so its reference."""
        return self.reference or "" if self.channel is MessageChannel.LETTER else self.to


class Gateway:
    """All doors of the gateway. ``now`` is domain time; ``http`` carries callbacks and replies, with a ``token``.

    ``deduplicate`` off makes it accept the same key twice, as gateways without idempotency do. ``inbound_url`` is where
    replies go, ``{channel}`` in it replaced. ``sleep`` is awaited before a late answer, see ``Payer``. ``data`` gets
    the letters and the journal; without it letters are hashed and dropped.
    """

    def __init__(
        self,
        *,
        now: Callable[[], datetime],
        http: httpx.AsyncClient,
        inbound_url: str | None = None,
        token: TokenSource | None = None,
        deduplicate: bool = True,
        sleep: Sleep = asyncio.sleep,
        slow_seconds: float = 20.0,
        data: Path | None = None,
    ) -> None:
        self._now = now
        self._inbound_url = inbound_url
        self._deduplicate = deduplicate
        self._sleep = sleep
        self._slow_seconds = slow_seconds
        self._data = data
        self._journal = Journal(data / "gateway.jsonl" if data is not None else None)
        self._outbound = Outbound(now, http, token)
        self._accepted: dict[str, tuple[Draft, Message]] = {}
        self._reports: list[Report] = []
        self._scripts: list[ScriptOrder] = []
        self._strikes: dict[str, int] = {}
        self.ledger = GatewayLedger()
        self.mail = MailHandler(self)
        self.app = self._make_app()

    # -- time -------------------------------------------------------------------------------------------------------

    def next_due(self) -> datetime | None:
        """When ``tick`` will next have something to do."""
        return earliest([self._outbound.next_due(), *(report.due for report in self._reports)])

    async def tick(self) -> int:
        """Settle and send what is due; returns how much there was."""
        now = self._now()
        due = sorted((report for report in self._reports if report.due <= now), key=lambda report: report.due)
        self._reports = [report for report in self._reports if report.due > now]
        for report in due:
            self._settle(report)
        return len(due) + await self._outbound.tick()

    def _settle(self, report: Report) -> None:
        message = report.message
        message.status = report.status
        self._journal.write(report.due, "status", {"id": message.id, "status": report.status})
        if report.callback_url is None:
            return

        def note(at: datetime, status: int | None) -> None:
            message.callbacks.append(Sent(at=at, status=status))
            self._journal.write(at, "callback", {"id": message.id, "status": status})

        body = {"id": message.id, "reference": message.reference, "status": report.status, "code": report.code}
        self._post(f"{message.id}-{report.status}", report.callback_url, body, report.due, note)

    def _post(self, key: str, url: str, body: object, due: datetime, note: Note) -> None:
        self._outbound.add(Parcel(key, url, json.dumps(body).encode(), "application/json", due, note))

    # -- fates ------------------------------------------------------------------------------------------------------

    def script(self, order: ScriptOrder) -> None:
        """Let the next requests meet a fate."""
        self._scripts.append(order)

    def _scripted(self, channel: MessageChannel, to: str) -> ScriptOrder | None:
        fitting = (s for s in self._scripts if s.count > 0 and s.to in (None, to) and s.channel in (None, channel))
        return next(fitting, None)

    def _awaits(self, channel: MessageChannel, to: str) -> Fate:
        """The fate that the next request would meet."""
        scripted = self._scripted(channel, to)
        return scripted.fate if scripted is not None else sandbox_fate(to)

    def _meet(self, channel: MessageChannel, to: str) -> Met:
        """The fate that this request meets."""
        scripted = self._scripted(channel, to)
        if scripted is not None:
            scripted.count -= 1
            return Met(scripted.fate, scripted.retry_after)
        fate = sandbox_fate(to)
        if fate not in STRIKES:
            return Met(fate)
        struck = self._strikes.get(to, 0)
        self._strikes[to] = struck + 1
        return Met(fate if struck < STRIKES[fate] else Fate.DELIVERED)

    # -- accepting --------------------------------------------------------------------------------------------------

    def known(self, key: str, draft: Draft) -> Message | None:
        """The message accepted before under this key, where the gateway deduplicates. Raises KeyReused."""
        earlier = self._accepted.get(key) if self._deduplicate else None
        if earlier is None:
            return None
        accepted, message = earlier
        if accepted != draft:
            raise KeyReused
        message.repeats.append(self._now())
        self._journal.write(self._now(), "repeat", {"id": message.id, "key": key})
        return message

    def accept(self, key: str, draft: Draft, fate: Fate, callback_url: str | None) -> Message:
        """Take a message: write it down, and arrange what becomes of it."""
        now = self._now()
        message = Message(
            id=derived_id("gateway-message", key, str(self.ledger.keys[key] + 1)),
            channel=draft.channel,
            to=draft.to,
            sender=draft.sender,
            subject=draft.subject,
            body=draft.body,
            reference=draft.reference,
            language=draft.language,
            key=key,
            accepted_at=now,
        )
        self.ledger.messages.append(message)
        self._accepted[key] = (draft, message)
        if draft.channel is MessageChannel.EMAIL:
            message.status = MessageStatus.DELIVERED
        elif fate is not Fate.SILENT:
            status, code = _REPORTS.get(fate, (MessageStatus.DELIVERED, None))
            self._reports.append(Report(now + DELIVERY_TIME[draft.channel], message, status, code, callback_url))
        self._journal.write(now, "message", message)
        return message

    async def take(self, key: str, draft: Draft, callback_url: str | None) -> tuple[Message, bool]:
        """What a request over HTTP comes to: the message, and whether it was known. Raises Refusal."""
        known = self.known(key, draft)
        if known is not None:
            return known, True
        met = self._meet(draft.channel, draft.address)
        if met.fate is Fate.INVALID:
            raise Refusal(400, "invalid-number")
        if met.fate is Fate.BUSY:
            raise Refusal(429, "busy", met.retry_after)
        if met.fate is Fate.ERROR:
            raise Refusal(500, "error")
        message = self.accept(key, draft, met.fate, callback_url)
        if met.fate is Fate.LOST:
            raise Refusal(500, "error")
        if met.fate is Fate.SLOW:
            await self._sleep(self._slow_seconds)
        return message, False

    def refused(self, channel: MessageChannel, key: str | None, status: int) -> None:
        """Write a refusal down."""
        entry = RefusedMessage(channel=channel, key=key, at=self._now(), status=status)
        self.ledger.refused.append(entry)
        self._journal.write(entry.at, "refused", entry)

    # -- mail -------------------------------------------------------------------------------------------------------

    def refuse_recipient(self, address: str) -> str | None:
        """The SMTP reply to RCPT TO where the mailbox is not there."""
        if self._awaits(MessageChannel.EMAIL, address) is not Fate.INVALID:
            return None
        self._meet(MessageChannel.EMAIL, address)
        self.refused(MessageChannel.EMAIL, None, 550)
        return "550 5.1.1 No such mailbox"

    async def receive_mail(self, sender: str, recipients: list[str], content: bytes) -> str:
        """The SMTP reply to DATA. Raises ConnectionResetError where the mail was taken and the reply is to be lost."""
        mail = message_from_bytes(content, _class=EmailMessage, policy=email_policy)
        key = str(mail["Message-ID"] or "").strip()
        if not key:
            self.refused(MessageChannel.EMAIL, None, 550)
            return "550 5.6.0 A Message-ID is wanted"
        reference = mail["X-Reference"]
        draft = Draft(
            channel=MessageChannel.EMAIL,
            to=", ".join(recipients),
            sender=sender,
            subject=str(mail["Subject"] or ""),
            body=_text_of(mail),
            reference=str(reference).strip() if reference else None,
            language=str(mail["Content-Language"] or "en").strip(),
        )
        reply = await self._mail_reply(key, draft)
        if not reply.startswith("250"):
            self.refused(MessageChannel.EMAIL, key, int(reply[:3]))
        return reply

    async def _mail_reply(self, key: str, draft: Draft) -> str:
        try:
            if self.known(key, draft) is not None:
                return "250 2.0.0 Taken before"
        except KeyReused:
            return "550 5.6.0 This Message-ID was used for another mail"
        met = self._meet(MessageChannel.EMAIL, draft.to)
        if met.fate is Fate.INVALID:
            return "550 5.1.1 No such mailbox"
        if met.fate is Fate.BUSY:
            return "451 4.3.2 Too busy, try again later"
        if met.fate is Fate.ERROR:
            return "451 4.3.0 Try again later"
        self.accept(key, draft, met.fate, None)
        if met.fate is Fate.LOST:
            # A reply of any kind would say what became of it (RFC 5321 4.2.1): 4yz that it was not taken.
            self.refused(MessageChannel.EMAIL, key, 0)
            raise ConnectionResetError
        if met.fate is Fate.SLOW:
            await self._sleep(self._slow_seconds)
        return "250 2.0.0 Taken"

    # -- replies ----------------------------------------------------------------------------------------------------

    def reply(self, order: ReplyOrder) -> InboundReply:
        """Let a person answer; it is handed over at the next tick."""
        now = self._now()
        written = [m.sender for m in self.ledger.messages if m.to == order.sender and m.channel is order.channel]
        entry = InboundReply(
            id=derived_id("gateway-reply", order.sender, stamp(now), str(len(self.ledger.replies) + 1)),
            channel=order.channel,
            sender=order.sender,
            to=order.to or (written[-1] if written else "unknown"),
            body=order.body,
            received_at=now,
        )
        self.ledger.replies.append(entry)
        self._journal.write(now, "reply", entry)
        if self._inbound_url is not None:
            self._forward(entry, order.copies)
        return entry

    def _forward(self, entry: InboundReply, copies: int) -> None:
        def note(at: datetime, status: int | None) -> None:
            entry.sent.append(Sent(at=at, status=status))
            entry.accepted = entry.accepted or taken(status)
            self._journal.write(at, "reply-sent", {"id": entry.id, "status": status})

        body = entry.model_dump(mode="json", by_alias=True, include={"id", "sender", "to", "body", "received_at"})
        url = self._inbound_url or ""
        url = url.replace("{channel}", entry.channel) if "{channel}" in url else f"{url.rstrip('/')}/{entry.channel}"
        for copy in range(copies):
            # A copy has a key of its own: whoever deduplicates by the key alone is found out.
            self._post(f"{entry.id}-{copy + 1}", url, body, entry.received_at, note)

    # -- letters ----------------------------------------------------------------------------------------------------

    def letter_path(self, message: Message) -> Path | None:
        """Where a letter's PDF is kept."""
        return self._data / "letters" / f"{message.id}.pdf" if self._data is not None else None

    def _keep_letter(self, message: Message, pdf: bytes) -> None:
        path = self.letter_path(message)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(pdf)

    # -- HTTP -------------------------------------------------------------------------------------------------------

    def _make_app(self) -> FastAPI:
        app = FastAPI(title="Message gateway simulator", openapi_url=None)
        app.state.gateway = self
        app.include_router(self._message_routes())
        app.include_router(self._control_routes())

        @app.exception_handler(Refusal)
        async def refused(request: Request, refusal: Refusal) -> Response:
            self._note_refusal(request, refusal.status)
            body = {"code": refusal.code}
            if refusal.retry_after is None:
                return answer(body, refusal.status)
            return answer(body, refusal.status, Retry_After=str(refusal.retry_after))

        @app.exception_handler(DomainError)
        async def invalid(request: Request, refusal: DomainError) -> Response:
            # To a gateway whatever cannot be read is a bad request, but for its size.
            status = 413 if isinstance(refusal, TooLarge) else 400
            self._note_refusal(request, status)
            flaws = [{"path": flaw.path, "reason": flaw.reason} for flaw in refusal.flaws]
            return answer({"code": "too-large" if status == 413 else "invalid-request", "flaws": flaws}, status)

        return app

    def _note_refusal(self, request: Request, status: int) -> None:
        door = {"/letters": MessageChannel.LETTER, "/sms": MessageChannel.SMS, "/voice": MessageChannel.VOICE}
        channel = door.get(request.url.path)
        if channel is not None:
            self.refused(channel, request.headers.get("Idempotency-Key"), status)

    def _message_routes(self) -> APIRouter:
        routes = APIRouter()

        @routes.post("/sms")
        async def sms(request: Request) -> Response:
            return await self._send(MessageChannel.SMS, request)

        @routes.post("/voice")
        async def voice(request: Request) -> Response:
            return await self._send(MessageChannel.VOICE, request)

        @routes.post("/letters")
        async def letters(request: Request) -> Response:
            return await self._send_letter(request)

        return routes

    async def _send(self, channel: MessageChannel, request: Request) -> Response:
        order = read_order(OutgoingMessage, await read_body(request, MAX_MESSAGE_BYTES))
        key = _key_of(request)
        if not E164.fullmatch(order.to):
            raise Refusal(400, "invalid-number")
        draft = Draft(channel, order.to, order.sender, order.body, order.reference, language=order.language)
        url = str(order.callback_url) if order.callback_url is not None else None
        return _taken(*await self.take(key, draft, url))

    async def _send_letter(self, request: Request) -> Response:
        if request.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/pdf":
            raise Refusal(415, "unsupported-media-type")
        pdf = await read_body(request, MAX_LETTER_BYTES)
        key, reference = _key_of(request), request.headers.get("X-Reference")
        if not reference:
            raise Invalid(flaws=[Flaw("X-Reference", "missing")])
        if not pdf.startswith(b"%PDF-") or b"%%EOF" not in pdf[-1024:]:
            raise Refusal(400, "invalid-pdf")
        draft = Draft(MessageChannel.LETTER, "postal", "postal", hashlib.sha256(pdf).hexdigest(), reference)
        fresh = self.ledger.keys[key]
        try:
            return _taken(*await self.take(key, draft, request.headers.get("X-Callback-Url")))
        finally:
            # Also where the answer is to be lost: the letter was taken all the same.
            if self.ledger.keys[key] > fresh:
                self._keep_letter(self.ledger.messages[-1], pdf)

    def _control_routes(self) -> APIRouter:
        routes = APIRouter()

        @routes.get("/health")
        async def health() -> dict[str, str]:
            return {"status": "ok"}

        @routes.get("/ledger")
        async def ledger() -> Response:
            plain = self.ledger.model_dump(mode="json", by_alias=True)
            return answer({**plain, "keys": dict(self.ledger.keys), "references": dict(self.ledger.references)})

        @routes.get("/next-due")
        async def next_due() -> Response:
            return due_answer(self.next_due)

        @routes.post("/control/script")
        async def script(request: Request) -> Response:
            self.script(read_order(ScriptOrder, await read_body(request, MAX_MESSAGE_BYTES)))
            return Response(status_code=204)

        @routes.post("/control/reply")
        async def reply(request: Request) -> Response:
            entry = self.reply(read_order(ReplyOrder, await read_body(request, MAX_MESSAGE_BYTES)))
            return answer({"id": entry.id}, 202)

        return routes


class Envelope(Protocol):
    """What aiosmtpd knows of a mail."""

    mail_from: str | None
    rcpt_tos: list[str]
    rcpt_options: list[str]
    content: bytes | None


class MailHandler:
    """The gateway's SMTP door: hooks for ``aiosmtpd.smtp.SMTP``."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def handle_RCPT(
        self, server: object, session: object, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """RCPT TO."""
        refusal = self._gateway.refuse_recipient(address)
        if refusal is not None:
            return refusal
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, session: object, envelope: Envelope) -> str:
        """The end of DATA."""
        content = envelope.content or b""
        try:
            return await self._gateway.receive_mail(envelope.mail_from or "", list(envelope.rcpt_tos), content)
        except ConnectionResetError:
            if isinstance(server.transport, asyncio.WriteTransport):
                server.transport.abort()
            raise


def _key_of(request: Request) -> str:
    key = request.headers.get("Idempotency-Key")
    if not key:
        raise Refusal(400, "missing-idempotency-key")
    return key


def _taken(message: Message, known: bool) -> Response:
    if known:
        return answer({"id": message.id}, 202, Idempotent_Replayed="true")
    return answer({"id": message.id}, 202)


def _text_of(mail: EmailMessage) -> str:
    part = mail.get_body(preferencelist=("plain", "html"))
    return str(part.get_content()).strip() if part is not None else ""


def app(
    now: Callable[[], datetime],
    http: httpx.AsyncClient,
    *,
    inbound_url: str | None = None,
    token: TokenSource | None = None,
    deduplicate: bool = True,
    sleep: Sleep = asyncio.sleep,
    slow_seconds: float = 20.0,
    data: Path | None = None,
) -> FastAPI:
    """The gateway's FastAPI app; the ``Gateway`` behind it is ``app.state.gateway``, which explains the arguments."""
    gateway = Gateway(
        now=now,
        http=http,
        inbound_url=inbound_url,
        token=token,
        deduplicate=deduplicate,
        sleep=sleep,
        slow_seconds=slow_seconds,
        data=data,
    )
    return gateway.app
