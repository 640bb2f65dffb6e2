"""Sends one message by its channel, and says honestly what came of it.

What the other side deduplicates on is the message and its channel, not the attempt: a message whose answer was lost,
or that was held back and tried again hours later, is still the same message.
"""

from __future__ import annotations

from dataclasses import dataclass

import httpx

from services.notifications.letters import Unprintable, letter
from services.notifications.mail import Mail
from services.notifications.model.delivery import Accepted, Delivery, Rejected
from services.notifications.model.language import Language, language_of
from services.notifications.model.recipient import Recipient, being_answered, mailbox
from services.notifications.model.visit import Visit
from services.notifications.templates import Occasion, Sender, Wording, word
from shared.contracts.intake import Channel
from shared.contracts.notifications import DeliveryKind, ReplyIntent
from shared.kit.decisions import Facts, Refused, Unanswered
from shared.kit.document import Attempt, derived_id
from shared.kit.outside import ask

Outcome = Accepted | Rejected | Refused | Unanswered


@dataclass(frozen=True, slots=True)
class Outside:
    """The message gateway and the mail server, who we are to them, and where they report."""

    http: httpx.AsyncClient
    gateway_url: str
    callback_url: str
    number: str
    speaker: Sender
    mail: Mail

    async def send(self, delivery: Delivery, attempt: Attempt, facts: Facts) -> Outcome:
        """Send a delivery to its recipient by the channel that was chosen."""
        person = facts.get(Recipient, delivery.patient_id)
        visit = facts.get(Visit, delivery.appointment_id)
        channel = delivery.channel
        if person is None or visit is None or channel is None:
            return Refused("not-addressed")
        language, _ = language_of(person.language)
        zones = (visit.timezone, person.timezone)
        wording = word(language, occasion_of(delivery), channel, self.speaker, visit.start, *zones)
        key = delivery.key(channel)
        if channel is Channel.SMS:
            return await self._ring("sms", person.number_for_texts, key, delivery.id, wording, language, report=True)
        if channel is Channel.VOICE:
            return await self._ring("voice", person.number_for_calls, key, delivery.id, wording, language, report=True)
        if channel is Channel.EMAIL:
            to = mailbox(person.email)
            if to is None:
                return Rejected("no-mailbox")
            message = self.mail.compose(to, key, delivery.id, wording, language, attempt.since)
            return await self.mail.send(to, message)
        return await self._post(person, key, delivery, wording, language)

    async def answer(self, recipient: Recipient, attempt: Attempt, facts: Facts) -> Outcome:
        """Send the text that a STOP or a HELP is owed."""
        owed = being_answered(recipient)
        if owed is None:
            return Rejected("not-owed")
        language, _ = language_of(recipient.language)
        occasion = Occasion.STOPPED if owed.to is ReplyIntent.STOP else Occasion.HELP
        wording = word(language, occasion, Channel.SMS, self.speaker, None)
        key = derived_id("answer", recipient.id, owed.id)
        return await self._ring("sms", recipient.number_for_texts, key, key, wording, language, report=False)

    async def _ring(
        self, door: str, to: str | None, key: str, reference: str, wording: Wording, language: Language, *, report: bool
    ) -> Outcome:
        if to is None:
            return Rejected("no-number")
        body = {"to": to, "from": self.number, "body": wording.body, "reference": reference, "language": language.value}
        if report:
            body["callback_url"] = self.callback_url
        return _understood(await ask(self.http, "POST", f"{self.gateway_url}/{door}", attempt=key, json=body))

    async def _post(
        self, person: Recipient, key: str, delivery: Delivery, wording: Wording, language: Language
    ) -> Outcome:
        made_at = delivery.planned_for  # the same at every try, so that the letter's bytes are too
        try:
            pdf = letter(person, wording, self.speaker, language, made_at)
        except Unprintable:
            return Rejected("unprintable-address")
        headers = {
            "Content-Type": "application/pdf",
            "X-Reference": delivery.id,
            "X-Callback-Url": self.callback_url,
        }
        url = f"{self.gateway_url}/letters"
        return _understood(await ask(self.http, "POST", url, attempt=key, content=pdf, headers=headers))


def occasion_of(delivery: Delivery) -> Occasion:
    """What a delivery is about, in a template's terms."""
    if delivery.kind is DeliveryKind.REMINDER:
        return Occasion.REMINDER
    if delivery.kind is DeliveryKind.CANCELLATION:
        return Occasion.CANCELLED
    return Occasion.BOOKED if delivery.occurrence == 1 else Occasion.MOVED


_OUR_FAULT = frozenset({401, 403, 404, 405, 407, 408, 425})
"""Answers that say nothing about the message: the gateway is set up wrongly, and it is tried again later."""


_TAKEN_BEFORE = "idempotency-key-reused"


def _understood(answer: httpx.Response | Refused | Unanswered) -> Outcome:
    """A gateway's answer: 2xx took it; other than that it will never take this message, and its code says why."""
    if isinstance(answer, Refused | Unanswered):
        return answer
    if answer.is_success:
        return Accepted(_text(answer, "id"))
    if answer.status_code in _OUR_FAULT or answer.is_redirect:
        return Refused(f"status-{answer.status_code}")
    code = _text(answer, "code") or ""
    if code == _TAKEN_BEFORE:
        return Accepted()  # under this key, which is this message's alone; its words have changed since that try
    return Rejected(code if code.replace("-", "").isalnum() and len(code) <= 64 else f"status-{answer.status_code}")


def _text(answer: httpx.Response, name: str) -> str | None:
    """A text of a JSON answer, or None where there is none: a 2xx counts even if its body does not parse."""
    try:
        body = answer.json()
    except ValueError:
        return None
    value = body.get(name) if isinstance(body, dict) else None
    return value if isinstance(value, str) else None
