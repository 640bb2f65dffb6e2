"""One message to one person: when it goes, by which channel, what became of it.

Four parts that run apart. Planning (``plan``, ``readdress``) sets the time. Choosing (``judge``, and ``prepare`` on it)
reads visit, recipient and the person's other messages when that time has come, and decides: by this channel, later,
or not at all; ``tell`` has the channel's sender do it. Sending (``services.notifications.sender``) asks once more
(``check``). The outcome (``settle``, ``late``, ``report``) is folded in whenever it comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import TypedDict
from zoneinfo import ZoneInfo

from pydantic import BaseModel

from services.notifications.model import window
from services.notifications.model.language import Language, language_of
from services.notifications.model.policy import Policy
from services.notifications.model.recipient import Recipient
from services.notifications.model.visit import DropReason, Standing, Visit
from shared.contracts.intake import Channel
from shared.contracts.notifications import (
    CallDue,
    DeliveriesWithdrawn,
    DeliveryAccepted,
    DeliveryDelivered,
    DeliveryDropped,
    DeliveryDue,
    DeliveryEscalated,
    DeliveryFailed,
    DeliveryKind,
    DeliveryPlanned,
    DeliveryUnaddressed,
    DeliveryUnknown,
    LetterDue,
    MailDue,
    RecipientKnown,
    TextDue,
)
from shared.kit.decisions import Due, Facts, Ref, Refused, Unanswered, Want, Where
from shared.kit.document import Attempt, Document, derived_id
from shared.kit.errors import IllegalTransition

SEND = "send"
"""The timer, and the outside call, that sends."""

RUNG = frozenset({Channel.SMS, Channel.VOICE})
"""The channels that ring in somebody's pocket: they alone have hours and limits."""

COORDINATOR = "coordinator"
INTAKE = "intake"

_SHORT_NOTICE = timedelta(days=1)
"""A reminder less than this before the visit goes rather earlier than later where its hour is not permitted."""

_AT_ONCE = timedelta(minutes=2)
"""A message on its way for longer than this is counted as sent, and no longer waited for."""


class DeliveryState(StrEnum):
    """How far a message has come."""

    PLANNED = "planned"
    AWAITING_RECIPIENT = "awaiting-recipient"
    SENDING = "sending"
    ACCEPTED = "accepted"
    DELIVERED = "delivered"
    FAILED = "failed"
    DROPPED = "dropped"
    UNKNOWN = "unknown"


S = DeliveryState

DUE: Mapping[Channel, type[DeliveryDue]] = {
    Channel.SMS: TextDue,
    Channel.VOICE: CallDue,
    Channel.EMAIL: MailDue,
    Channel.LETTER: LetterDue,
}
"""How each channel's senders are told."""

OPEN = frozenset({S.PLANNED, S.AWAITING_RECIPIENT, S.SENDING})
"""Nothing has gone out yet, as far as is known."""


class Delivery(Document):
    """One message about one date of one appointment.

    ``messaged`` is the patient's id from the intention to send on, unless the message certainly did not go: so the
    person's other deliveries find it when they count. ``lost`` says that an answer was lost and the message may be
    out. ``unusable`` are channels that refused it for good. ``withdrawn`` is why it is no longer wanted, noted while
    it may be on its way. ``fallback`` says that there is no wording in the person's language.
    """

    collection = "delivery"
    indexes = ("appointment_id", "patient_id", "messaged", "state")
    transitions = {
        S.PLANNED: frozenset({S.AWAITING_RECIPIENT, S.SENDING, S.ACCEPTED, S.FAILED, S.DROPPED, S.UNKNOWN}),
        S.AWAITING_RECIPIENT: frozenset({S.PLANNED, S.DROPPED}),
        S.SENDING: frozenset({S.PLANNED, S.ACCEPTED, S.UNKNOWN}),
        S.ACCEPTED: frozenset({S.DELIVERED, S.FAILED}),
        S.UNKNOWN: frozenset({S.ACCEPTED, S.DELIVERED, S.FAILED}),
        S.DELIVERED: frozenset(),
        S.FAILED: frozenset(),
        S.DROPPED: frozenset(),
    }
    terminal = frozenset({S.DELIVERED, S.FAILED, S.DROPPED})

    state: DeliveryState = DeliveryState.PLANNED
    appointment_id: str
    patient_id: str
    occurrence: int
    kind: DeliveryKind
    ahead_seconds: int | None = None
    planned_for: datetime
    useful_until: datetime
    timezone: str = "UTC"
    channel: Channel | None = None
    language: Language | None = None
    fallback: bool = False
    messaged: str | None = None
    messaged_at: datetime | None = None
    lost: bool = False
    unusable: dict[Channel, str] = {}
    withdrawn: DropReason | None = None
    tries: int = 0
    gateway_id: str | None = None
    reason: str | None = None

    def slot_key(self) -> str:
        """One worker looks after all messages of a person, whose limits they share."""
        return self.patient_id

    def key(self, channel: Channel) -> str:
        """What the other side deduplicates on: this message by this channel, the same however often it is tried."""
        return derived_id("message", self.id, channel)


# -- what choosing comes to ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """Now, by this channel."""

    channel: Channel


@dataclass(frozen=True, slots=True)
class Later:
    """Not before this time."""

    at: datetime


@dataclass(frozen=True, slots=True)
class Drop:
    """Not at all."""

    reason: DropReason


@dataclass(frozen=True, slots=True)
class Fail:
    """Not at all: every channel has refused it for good, the last with this code."""

    code: str


@dataclass(frozen=True, slots=True)
class Unaddressed:
    """We have not heard of this person yet."""


Verdict = Send | Later | Drop | Fail | Unaddressed


# -- what sending comes to ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Accepted:
    """The gateway took it, under this id of its own."""

    gateway_id: str | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """The gateway will never take it; the code says why."""

    code: str


class Fate(StrEnum):
    """What a gateway says in the end."""

    DELIVERED = "delivered"
    UNDELIVERED = "undelivered"
    FAILED = "failed"


class Report(BaseModel):
    """A gateway's status callback, or what a coordinator found out about a message whose answer was lost."""

    fate: Fate
    gateway_id: str | None = None
    code: str | None = None


# -- planning -----------------------------------------------------------------------------------------------------


def wants_recipient(message: DeliveryPlanned | object, delivery: Delivery | None) -> Iterable[Want]:
    """The person, for planning."""
    if delivery is not None:
        return (Ref(Recipient, delivery.patient_id),)
    return (Ref(Recipient, message.patient_id),) if isinstance(message, DeliveryPlanned) else ()


def plan(policy: Policy, delivery: Delivery | None, event: DeliveryPlanned, facts: Facts, now: datetime) -> Delivery:
    """Make the delivery that a visit wants. A reminder whose time had passed when it was planned is dropped at once."""
    if delivery is not None:
        return delivery
    delivery = Delivery(
        id=event.delivery_id,
        appointment_id=event.appointment_id,
        patient_id=event.patient_id,
        occurrence=event.occurrence,
        kind=event.kind,
        ahead_seconds=event.ahead_seconds,
        planned_for=event.planned_for,
        useful_until=event.useful_until,
        timezone=event.timezone,
    )
    if event.kind is DeliveryKind.REMINDER and event.planned_for <= event.planned_at:
        return _drop(delivery, DropReason.PAST_USEFULNESS)
    person = facts.get(Recipient, event.patient_id)
    if person is None:
        # The person's own announcement may come before this delivery is there to hear it: ask again once it is.
        delivery.record(DeliveryUnaddressed(delivery_id=delivery.id))
    delivery.wake(SEND, send_time(policy, delivery, person, now))
    return delivery


def readdress(
    policy: Policy, delivery: Delivery, event: RecipientKnown | DeliveryUnaddressed, facts: Facts, now: datetime
) -> Delivery:
    """The person became known or changed: a delivery that waited goes on, others take the time that suits them now."""
    person = facts.get(Recipient, delivery.patient_id)
    if person is None:
        return delivery
    if delivery.state is S.AWAITING_RECIPIENT:
        delivery.met()
        delivery.move(S.PLANNED)
    no_way = not _candidates(policy, delivery, person, now)
    if no_way and delivery.lost:
        delivery.wake(SEND, now)
    elif no_way and _only_consent_lacks(person):
        return _drop(delivery, DropReason.REVOKED)
    elif delivery.tries == 0:
        delivery.wake(SEND, send_time(policy, delivery, person, now))
    return delivery


def send_time(policy: Policy, delivery: Delivery, person: Recipient | None, now: datetime) -> datetime:
    """When to send: the planned time, at a permitted hour of the person's own where the channel has hours.

    A reminder on the day itself goes earlier rather than later, and never after its planned time while that is ahead.
    """
    planned = delivery.planned_for
    channel = next(iter(_candidates(policy, delivery, person, now)), None) if person is not None else None
    if channel is not None and channel not in RUNG:
        return max(planned, now)
    zone = window.zone_of(person.timezone if person is not None else None, delivery.timezone)
    if delivery.ahead_seconds is None:
        return planned if window.allowed(policy, now, zone) else window.place_after(policy, now, zone, delivery.id)
    if delivery.ahead_seconds < _SHORT_NOTICE.total_seconds():
        return max(window.place_before(policy, planned, zone, delivery.id), now)
    return max(window.place_after(policy, planned, zone, delivery.id), now)


def withdraw(delivery: Delivery, event: DeliveriesWithdrawn, facts: Facts, now: datetime) -> Delivery:
    """The visit does not want it any more. What may be on its way at this moment is only noted."""
    reason = DropReason(event.reason)
    if delivery.state is not S.SENDING and not delivery.lost:
        return _drop(delivery, reason)
    delivery.withdrawn = reason
    if delivery.state is not S.SENDING:
        delivery.wake(SEND, now)  # its answer was lost: look at once, to show it as one that may have gone out
    return delivery


# -- choosing -----------------------------------------------------------------------------------------------------


def wants_all(message: object, delivery: Delivery) -> Iterable[Want]:
    """What choosing and sending read: the visit, the person, and the person's messages so far."""
    return (
        Ref(Visit, delivery.appointment_id),
        Ref(Recipient, delivery.patient_id),
        Where(Delivery, "messaged", delivery.patient_id),
    )


def judge(policy: Policy, delivery: Delivery, facts: Facts, now: datetime) -> Verdict:
    """What is to be done with this message at this moment."""
    person = facts.get(Recipient, delivery.patient_id)
    if reason := _unwanted(delivery, facts.get(Visit, delivery.appointment_id)):
        return Drop(reason)
    if now >= delivery.useful_until:
        return Drop(DropReason.PAST_USEFULNESS if person is not None else DropReason.NO_CHANNEL)
    if person is None:
        return Unaddressed()
    candidates = _candidates(policy, delivery, person, now)
    if not candidates:
        return _why_none(policy, delivery, person, now)
    others = [other for other in facts.where(Delivery, "messaged", delivery.patient_id) if other.id != delivery.id]
    return _choose(policy, delivery, candidates, person, others, now)


def _unwanted(delivery: Delivery, visit: Visit | None) -> DropReason | None:
    """Why the visit, as it stands, does not want this message."""
    if delivery.withdrawn is not None:
        return delivery.withdrawn
    if visit is None:
        return DropReason.CANCELLED
    if visit.occurrence != delivery.occurrence:
        return DropReason.MOVED
    if delivery.kind is DeliveryKind.CANCELLATION:
        return None if visit.state is Standing.CANCELLED else DropReason.MOVED
    if visit.state is Standing.BOOKED:
        return None
    return DropReason.PAST_USEFULNESS if visit.state in (Standing.ARRIVED, Standing.FULFILLED) else DropReason.CANCELLED


def _candidates(policy: Policy, delivery: Delivery, person: Recipient, now: datetime) -> tuple[Channel, ...]:
    """The channels that may carry it, best first. What may be out by one channel goes by no other."""
    allowed = (
        channel
        for channel in person.preference
        if channel not in person.barred and channel not in delivery.unusable and person.reachable_by(channel)
    )
    if delivery.lost:
        return tuple(channel for channel in allowed if channel is delivery.channel)
    return tuple(channel for channel in allowed if channel is not Channel.LETTER or _in_time(policy, delivery, now))


def _in_time(policy: Policy, delivery: Delivery, now: datetime) -> bool:
    """Whether a letter posted when this one is to go comes before the visit."""
    visit_start = delivery.planned_for + timedelta(seconds=delivery.ahead_seconds or 0)
    start = visit_start if delivery.ahead_seconds is not None else delivery.useful_until
    return max(now, delivery.planned_for) + policy.letter_takes <= start


def _only_consent_lacks(person: Recipient) -> bool:
    """Whether there is a way to the person that they themselves have closed."""
    return any(person.reachable_by(channel) for channel in person.preference if channel in person.barred)


def _why_none(policy: Policy, delivery: Delivery, person: Recipient, now: datetime) -> Verdict:
    if delivery.unusable:
        return Fail(next(reversed(delivery.unusable.values())))
    if _only_consent_lacks(person):
        return Drop(DropReason.REVOKED)
    if Channel.LETTER in person.preference and person.reachable_by(Channel.LETTER):
        return Drop(DropReason.PAST_USEFULNESS)
    return Drop(DropReason.NO_CHANNEL)


def _choose(
    policy: Policy,
    delivery: Delivery,
    candidates: tuple[Channel, ...],
    person: Recipient,
    others: list[Delivery],
    now: datetime,
) -> Verdict:
    """The first channel that is permitted in time. One that only has to wait for morning is waited for; one that has
    no room left today gives way to the next, and is waited for where there is none."""
    zone = window.zone_of(person.timezone, delivery.timezone)
    limited: datetime | None = None
    for channel in candidates:
        if channel not in RUNG:
            return Send(channel)
        room = _room(policy, delivery, others, zone, now)
        if room is None:
            return Later(_in_a_moment(delivery, now))
        if room > window.day_of(now, zone):
            limited = window.place_on(policy, room, zone, delivery.id)
            continue
        if window.allowed(policy, now, zone):
            return Send(channel)
        morning = window.place_after(policy, now, zone, delivery.id)
        if morning < delivery.useful_until:
            return Later(morning)
    if limited is None:
        return Drop(DropReason.PAST_USEFULNESS)
    return Later(limited) if limited < delivery.useful_until else Drop(DropReason.LIMIT)


def _room(policy: Policy, delivery: Delivery, others: list[Delivery], zone: ZoneInfo, now: datetime) -> date | None:
    """The first day that bears this call or text; None where that hangs on one whose outcome will be known at once.

    Counting is safe against two messages that set out at the same moment: each has written its intention before it
    counts, so at least one of them sees the other, and whoever sees another on its way steps back.
    """
    today = window.day_of(now, zone)
    settled: list[date] = []
    on_their_way: list[date] = []
    for other in others:
        if other.channel in RUNG and other.messaged_at is not None:
            soon = other.state is S.SENDING and now - other.messaged_at < _AT_ONCE
            (on_their_way if soon else settled).append(window.day_of(other.messaged_at, zone))
    without = window.day_with_room(policy, today, settled)
    room = window.day_with_room(policy, today, settled + on_their_way)
    return None if without == today < room else room


def _in_a_moment(delivery: Delivery, now: datetime) -> datetime:
    """A few seconds from now, other for each message and each look, so that two that step back do not meet again."""
    look = f"{delivery.id}{delivery.attempted.get(SEND, 0)}{now.isoformat()}"
    return now + timedelta(seconds=2 + int(18 * window.fraction(look)))


def prepare(policy: Policy, delivery: Delivery, due: Due, facts: Facts, now: datetime) -> Delivery:
    """Intend to send, or do what else the verdict says."""
    if delivery.state not in OPEN or SEND in delivery.attempts:
        return delivery
    if delivery.state is S.SENDING:
        delivery.move(S.PLANNED)  # the check withdrew the attempt before it was made
    verdict = judge(policy, delivery, facts, now)
    person = facts.get(Recipient, delivery.patient_id)
    if isinstance(verdict, Send) and person is not None:
        return _intend(delivery, person, verdict.channel, now)
    if not delivery.lost:
        delivery.messaged = delivery.messaged_at = None
    if isinstance(verdict, Later):
        return _wait_until(delivery, verdict.at)
    if isinstance(verdict, Unaddressed):
        return _await_recipient(policy, delivery, now)
    if delivery.lost:
        return _leave_unknown(policy, delivery, now)
    if isinstance(verdict, Fail):
        return _fail(delivery, verdict.code)
    return _drop(delivery, verdict.reason) if isinstance(verdict, Drop) else delivery


def tell(delivery: Delivery, attempt: Attempt) -> DeliveryDue:
    """What has the sender of the chosen channel send it."""
    due = DUE[delivery.channel or Channel.SMS]
    return due(delivery_id=delivery.id, attempt_id=attempt.id, patient_id=delivery.patient_id)


def check(policy: Policy, delivery: Delivery, facts: Facts, now: datetime) -> bool:
    """Whether, on a fresh read after the intention was written, it still is to go by the channel that was chosen."""
    if delivery.state is not S.SENDING:
        return False
    verdict = judge(policy, delivery, facts, now)
    return isinstance(verdict, Send) and verdict.channel is delivery.channel


def _intend(delivery: Delivery, person: Recipient, channel: Channel, now: datetime) -> Delivery:
    if delivery.state is S.AWAITING_RECIPIENT:
        delivery.met()
        delivery.move(S.PLANNED)
    delivery.move(S.SENDING)
    delivery.channel = channel
    delivery.language, delivery.fallback = language_of(person.language)
    delivery.messaged = delivery.patient_id
    delivery.messaged_at = now
    delivery.intend(SEND, now)
    return delivery


def _wait_until(delivery: Delivery, at: datetime) -> Delivery:
    if delivery.state is S.AWAITING_RECIPIENT:
        delivery.met()
    if delivery.state is not S.PLANNED:
        delivery.move(S.PLANNED)
    delivery.wake(SEND, at)
    return delivery


def _await_recipient(policy: Policy, delivery: Delivery, now: datetime) -> Delivery:
    delivery.wake(SEND, delivery.useful_until)
    if delivery.state is S.PLANNED:
        delivery.move(S.AWAITING_RECIPIENT)
        delivery.expect(INTAKE, "recipient-unknown", now, min(policy.recipient_within, delivery.useful_until - now))
        delivery.record(DeliveryUnaddressed(delivery_id=delivery.id))
    return delivery


# -- the outcome --------------------------------------------------------------------------------------------------


def settle(policy: Policy, delivery: Delivery, outcome: object, facts: Facts, now: datetime) -> Delivery:
    """Fold in what sending came to. What a status callback has already decided stands."""
    if delivery.state is not S.SENDING:
        return delivery
    if isinstance(outcome, Accepted):
        return _accept(delivery, outcome.gateway_id)
    if isinstance(outcome, Rejected) and delivery.channel is not None:
        delivery.unusable = {**delivery.unusable, delivery.channel: outcome.code}
        return _again(delivery, now, maybe_out=False)
    if isinstance(outcome, Refused):
        delivery.tries += 1
        return _again(delivery, _retry_at(policy, delivery, outcome.retry_after, now), maybe_out=delivery.lost)
    if delivery.channel in policy.deduplicating and isinstance(outcome, Unanswered):
        delivery.tries += 1
        return _again(delivery, _retry_at(policy, delivery, None, now), maybe_out=True)
    return _leave_unknown(policy, delivery, now)


def late(delivery: Delivery, outcome: object, facts: Facts, now: datetime) -> Delivery:
    """An answer to a call that was given up as lost: what the gateway took is known after all."""
    if delivery.state is S.UNKNOWN and isinstance(outcome, Accepted):
        return _accept(delivery, outcome.gateway_id)
    return delivery


def report(delivery: Delivery, command: Report, facts: Facts, now: datetime) -> Delivery:
    """Fold in what the gateway reports; it may come before the answer to the call, or in place of one that was lost."""
    if delivery.ended or delivery.state is S.AWAITING_RECIPIENT:
        return delivery
    if delivery.state in (S.PLANNED, S.SENDING):
        _accept(delivery, command.gateway_id)
        delivery.abandon(SEND)
    delivery.met()
    if command.fate is Fate.DELIVERED:
        delivery.move(S.DELIVERED)
        delivery.record(DeliveryDelivered(**_about(delivery)))
        return delivery
    return _fail(delivery, command.code or command.fate)


def find_out(delivery: Delivery, command: Report, facts: Facts, now: datetime) -> Delivery:
    """Fold in what a coordinator found out. Raises IllegalTransition where the outcome is not in doubt."""
    if delivery.state is not S.UNKNOWN:
        raise IllegalTransition("Delivery", delivery.state, command.fate)
    return report(delivery, command, facts, now)


def escalate(delivery: Delivery, due: Due, facts: Facts, now: datetime) -> Delivery:
    """A wait outlived its deadline: say so, once."""
    state, wait = delivery.state, delivery.overdue(now)
    if wait is not None:
        delivery.record(
            DeliveryEscalated(
                **_about(delivery), state=state, since=wait.since, deadline=wait.deadline, owner=wait.owner
            )
        )
    return delivery


def _accept(delivery: Delivery, gateway_id: str | None) -> Delivery:
    delivery.move(S.ACCEPTED)
    delivery.gateway_id = gateway_id or delivery.gateway_id
    delivery.lost = False
    delivery.messaged = delivery.patient_id
    delivery.met()
    delivery.rest(SEND)
    delivery.record(DeliveryAccepted(**_about(delivery)))
    return delivery


def _again(delivery: Delivery, at: datetime, *, maybe_out: bool) -> Delivery:
    delivery.lost = maybe_out
    if not maybe_out:
        delivery.messaged = delivery.messaged_at = None
    delivery.move(S.PLANNED)
    delivery.wake(SEND, min(at, delivery.useful_until))
    return delivery


def _retry_at(policy: Policy, delivery: Delivery, retry_after: float | None, now: datetime) -> datetime:
    """Doubling from ``first_retry`` to ``longest_retry``, up to half as much again by id; or as the gateway says."""
    doubled = policy.first_retry * 2 ** min(delivery.tries - 1, 16)
    seconds = min(doubled, policy.longest_retry).total_seconds()
    seconds *= 1 + window.fraction(f"{delivery.id}{delivery.tries}") / 2
    return now + timedelta(seconds=int(max(seconds, retry_after or 0)) + 1)


def _drop(delivery: Delivery, reason: DropReason) -> Delivery:
    delivery.met()
    delivery.rest(SEND)
    delivery.messaged = delivery.messaged_at = None
    delivery.reason = reason
    delivery.move(S.DROPPED)
    delivery.record(DeliveryDropped(**_about(delivery), reason=reason))
    return delivery


def _fail(delivery: Delivery, code: str) -> Delivery:
    delivery.met()
    delivery.rest(SEND)
    delivery.reason = code
    delivery.move(S.FAILED)
    delivery.record(DeliveryFailed(**_about(delivery), reason=code))
    return delivery


def _leave_unknown(policy: Policy, delivery: Delivery, now: datetime) -> Delivery:
    """It may have gone out: nothing is sent again, a coordinator is asked, and a late report may still tell."""
    delivery.move(S.UNKNOWN)
    delivery.rest(SEND)
    delivery.expect(COORDINATOR, "outcome-unknown", now, policy.unknown_within)
    delivery.record(DeliveryUnknown(**_about(delivery)))
    return delivery


class _About(TypedDict):
    delivery_id: str
    appointment_id: str
    patient_id: str
    kind: DeliveryKind
    channel: Channel | None


def _about(delivery: Delivery) -> _About:
    """What every event of a delivery says."""
    return _About(
        delivery_id=delivery.id,
        appointment_id=delivery.appointment_id,
        patient_id=delivery.patient_id,
        kind=delivery.kind,
        channel=delivery.channel,
    )
