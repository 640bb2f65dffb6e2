"""Who messages go to: how they may be reached, what they have stopped, what they replied, what answer they are owed.

Fed by intake's PersonChanged and by the person's own replies. A STOP holds here from the moment it is read, whatever
intake's next events still say, until intake has been seen to know of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import BaseModel

from services.notifications.model.policy import Policy
from services.notifications.model.window import fraction
from shared.contracts.intake import Channel, PersonAddress, PersonChanged
from shared.contracts.notifications import ChannelRevoked, RecipientKnown, ReplyIntent, ReplyReceived
from shared.kit.decisions import Due, Facts, Refused, Unanswered
from shared.kit.document import Document, Part

ANSWER = "answer"
"""The timer, and the outside call, that answers a STOP or a HELP."""

ANSWER_WITHIN = timedelta(minutes=5)
"""A text that confirms a STOP is presumed consented to if it goes within five minutes (47 CFR 64.1200(a)(12))."""

NO_PREFERENCE = (Channel.SMS, Channel.EMAIL, Channel.VOICE, Channel.LETTER)
"""The order in which a person who named none is reached."""

STOPPED_BY = {
    Channel.SMS: (Channel.SMS, Channel.VOICE),
    Channel.VOICE: (Channel.VOICE, Channel.SMS),
    Channel.EMAIL: (Channel.EMAIL,),
}
"""What a STOP on a channel stops. To an informational text or call it ends both (FCC 24-24, paragraph 31)."""

KEPT_REPLIES = 20
KEPT_HEARD = 50

_MAILBOX = re.compile(r"^[!-?A-~]{1,64}@[A-Za-z0-9.-]{1,253}$")


class RecipientState(StrEnum):
    """Whether we know the person."""

    KNOWN = "known"
    ERASED = "erased"


class Said(Part):
    """One reply, for people to read."""

    at: datetime
    channel: Channel
    intent: ReplyIntent
    text: str
    appointment_id: str | None = None


class Owed(Part):
    """An answer that the person is owed until ``until``; ``to`` is STOP or HELP. ``id`` is the reply's."""

    id: str
    to: ReplyIntent
    until: datetime


class Recipient(Document):
    """One person; the id is the patient's. ``stopped`` are channels the person stopped and intake does not know of."""

    collection = "recipient"
    indexes = ("mobile_hash", "phone_hash", "email_hash")
    transitions = {RecipientState.KNOWN: frozenset({RecipientState.ERASED}), RecipientState.ERASED: frozenset()}
    terminal = frozenset({RecipientState.ERASED})

    state: RecipientState = RecipientState.KNOWN
    family: str | None = None
    given: tuple[str, ...] = ()
    mobile: str | None = None
    phone: str | None = None
    email: str | None = None
    address: PersonAddress | None = None
    language: str = "en"
    timezone: str | None = None
    channels: tuple[Channel, ...] = ()
    revoked: tuple[Channel, ...] = ()
    stopped: tuple[Channel, ...] = ()
    mobile_hash: str | None = None
    phone_hash: str | None = None
    email_hash: str | None = None
    said: list[Said] = []
    heard: list[str] = []
    owed: list[Owed] = []
    answering: str | None = None
    tries: int = 0

    @property
    def preference(self) -> tuple[Channel, ...]:
        """The channels in the order in which the person wants them used."""
        return self.channels or NO_PREFERENCE

    @property
    def barred(self) -> frozenset[Channel]:
        """The channels that must not be used."""
        return frozenset(self.revoked) | frozenset(self.stopped)

    @property
    def number_for_texts(self) -> str | None:
        """Where texts go, as E.164."""
        return e164(self.mobile)

    @property
    def number_for_calls(self) -> str | None:
        """Where calls go, as E.164."""
        return e164(self.phone) or e164(self.mobile)

    def reachable_by(self, channel: Channel) -> bool:
        """Whether we hold what the channel needs; says nothing of consent."""
        if self.state is RecipientState.ERASED:
            return False
        if channel is Channel.SMS:
            return self.number_for_texts is not None
        if channel is Channel.VOICE:
            return self.number_for_calls is not None
        if channel is Channel.EMAIL:
            return mailbox(self.email) is not None
        where = self.address
        return bool(self.family and where and where.lines and where.city and where.state and where.postal_code)


class Hear(BaseModel):
    """Take a reply in. ``message_id`` is the gateway's own; ``answer`` says whether this recipient is to be answered
    (several may share a telephone); ``appointment_id`` is the visit that the last message to them was about."""

    message_id: str
    channel: Channel
    text: str
    intents: tuple[ReplyIntent, ...]
    appointment_id: str | None = None
    answer: bool = True


def e164(number: str | None) -> str | None:
    """A telephone number in E.164, or None where it cannot be one; ten digits are taken for North American."""
    if number is None or re.search(r"[A-Za-z]", number):
        return None
    digits = re.sub(r"\D", "", number)
    if number.strip().startswith("+"):
        return f"+{digits}" if 8 <= len(digits) <= 15 and digits[0] != "0" else None
    if len(digits) == 10 and digits[0] not in "01":
        return f"+1{digits}"
    return f"+{digits}" if len(digits) == 11 and digits[0] == "1" else None


def mailbox(address: str | None) -> str | None:
    """A plain ASCII mailbox in lower case, or None where it is not one."""
    return address.lower() if address is not None and _MAILBOX.match(address) else None


def keep(policy: Policy, recipient: Recipient | None, event: PersonChanged, facts: Facts, now: datetime) -> Recipient:
    """Keep what messages need of a person, and tell the deliveries that wait for it if anything of that changed."""
    if event.erased:
        return _erase(recipient or Recipient(id=event.patient_id))
    known = recipient is not None
    recipient = recipient or Recipient(id=event.patient_id)
    before = _contact(recipient)
    recipient.family, recipient.given = event.family, event.given
    recipient.mobile, recipient.phone, recipient.email = event.mobile, event.phone, event.email
    recipient.address = event.address
    recipient.language, recipient.timezone = event.language, event.timezone
    recipient.channels, recipient.revoked = event.channels, event.revoked
    recipient.stopped = tuple(channel for channel in recipient.stopped if channel not in event.revoked)
    recipient.mobile_hash = _hash(policy, recipient.number_for_texts)
    recipient.phone_hash = _hash(policy, recipient.number_for_calls)
    recipient.email_hash = _hash(policy, mailbox(recipient.email))
    if not known or _contact(recipient) != before:
        recipient.record(RecipientKnown(patient_id=recipient.id))
    return recipient


def _erase(recipient: Recipient) -> Recipient:
    """Forget everything; messages that are still planned find nobody to go to."""
    for name, default in Recipient(id=recipient.id).model_dump(exclude=_KEPT_WHEN_ERASED).items():
        setattr(recipient, name, default)
    recipient.rest(ANSWER)
    recipient.abandon(ANSWER)
    recipient.move(RecipientState.ERASED)
    recipient.record(RecipientKnown(patient_id=recipient.id))
    return recipient


_KEPT_WHEN_ERASED = set(Document.model_fields) | {"state"}
_CONTACT = {
    "family", "given", "mobile", "phone", "email", "address", "language", "timezone", "channels", "revoked", "stopped",
}  # fmt: skip


def _contact(recipient: Recipient) -> dict[str, object]:
    return recipient.model_dump(include=_CONTACT)


def _hash(policy: Policy, address: str | None) -> str | None:
    return None if address is None else policy.hash_of(address)


# -- replies ------------------------------------------------------------------------------------------------------


def hear(recipient: Recipient, command: Hear, facts: Facts, now: datetime) -> Recipient:
    """Take a reply in, once however often the gateway brings it: keep it, say what it asks, obey a STOP at once."""
    if command.message_id in recipient.heard or recipient.state is RecipientState.ERASED:
        return recipient
    recipient.heard = [*recipient.heard, command.message_id][-KEPT_HEARD:]
    for intent in command.intents:
        recipient.record(ReplyReceived(patient_id=recipient.id, appointment_id=command.appointment_id, intent=intent))
    said = Said(
        at=now,
        channel=command.channel,
        intent=command.intents[0],
        text=command.text,
        appointment_id=command.appointment_id,
    )
    recipient.said = [*recipient.said, said][-KEPT_REPLIES:]
    may_text = command.channel is Channel.SMS and Channel.SMS not in recipient.barred and command.answer
    if may_text:
        _owe(recipient, command.message_id, command.intents, now)
    if ReplyIntent.STOP in command.intents:
        stop(recipient, STOPPED_BY[command.channel])
    return recipient


def stop(recipient: Recipient, channels: Iterable[Channel]) -> None:
    """Use these channels no more, from now on; deliveries that wait choose another way, or are dropped."""
    fresh = [channel for channel in channels if channel not in recipient.barred]
    if not fresh:
        return
    recipient.stopped = (*recipient.stopped, *fresh)
    for channel in fresh:
        recipient.record(ChannelRevoked(patient_id=recipient.id, channel=channel))
    recipient.record(RecipientKnown(patient_id=recipient.id))


def _owe(recipient: Recipient, message_id: str, intents: Iterable[ReplyIntent], now: datetime) -> None:
    """A STOP is confirmed once, by the only text that may still go; a HELP is answered. Neither later than allowed."""
    to = next((intent for intent in intents if intent in (ReplyIntent.STOP, ReplyIntent.HELP)), None)
    if to is None:
        return
    others = [] if to is ReplyIntent.STOP else recipient.owed
    recipient.owed = [*others, Owed(id=message_id, to=to, until=now + ANSWER_WITHIN)]
    recipient.wake(ANSWER, now)


# -- the answer that goes out -------------------------------------------------------------------------------------


def prepare_answer(recipient: Recipient, due: Due, facts: Facts, now: datetime) -> Recipient:
    """Intend the oldest answer that may still be given."""
    if ANSWER in recipient.attempts:
        return recipient
    recipient.owed = [owed for owed in recipient.owed if _may_answer(recipient, owed, now)]
    if not recipient.owed:
        recipient.answering, recipient.tries = None, 0
        return recipient
    recipient.answering = recipient.owed[0].id
    recipient.intend(ANSWER, now)
    return recipient


def check_answer(recipient: Recipient, facts: Facts, now: datetime) -> bool:
    """Whether the intended answer is still owed and allowed."""
    owed = being_answered(recipient)
    return owed is not None and _may_answer(recipient, owed, now)


def being_answered(recipient: Recipient) -> Owed | None:
    """The answer that is intended."""
    return next((owed for owed in recipient.owed if owed.id == recipient.answering), None)


def settle_answer(policy: Policy, recipient: Recipient, outcome: object, facts: Facts, now: datetime) -> Recipient:
    """Given, or refused for good: no longer owed. Not taken: soon again. Lost: again only where that cannot double."""
    again = isinstance(outcome, Refused) or (isinstance(outcome, Unanswered) and Channel.SMS in policy.deduplicating)
    if again:
        recipient.tries += 1
        named = outcome.retry_after if isinstance(outcome, Refused) else None
        seconds = named if named is not None else min(5.0 * recipient.tries, 30.0) * (1 + fraction(recipient.id))
        recipient.wake(ANSWER, now + timedelta(seconds=int(seconds) + 1))
        return recipient
    recipient.owed = [owed for owed in recipient.owed if owed.id != recipient.answering]
    recipient.answering, recipient.tries = None, 0
    if recipient.owed:
        recipient.wake(ANSWER, now)
    return recipient


def _may_answer(recipient: Recipient, owed: Owed, now: datetime) -> bool:
    if now >= owed.until or recipient.number_for_texts is None:
        return False
    return owed.to is ReplyIntent.STOP or Channel.SMS not in recipient.barred
