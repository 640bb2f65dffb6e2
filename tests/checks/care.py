"""What must hold of patients' care once everything has come to rest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from deploy.simulators.ledger import GatewayLedger, PayerLedger
from services.notifications.model.delivery import Delivery, DeliveryState
from services.prior_authorization.model.authorization import Authorization
from services.referrals.model import Referral
from services.scheduling.model.appointment import ACTIVE, Appointment, AppointmentState
from services.scheduling.model.calendar import Calendar
from shared.kit.parking import Parked

TAKEN = ACTIVE | {AppointmentState.FULFILLED, AppointmentState.NOSHOW}
"""An appointment in these states has its slot, or had it until the visit was over."""


@dataclass(frozen=True, slots=True)
class Held:
    """What the services hold; ``parked`` by service."""

    parked: Mapping[str, Sequence[Parked]]
    referrals: Sequence[Referral]
    appointments: Sequence[Appointment]
    calendars: Sequence[Calendar]
    authorizations: Sequence[Authorization]
    deliveries: Sequence[Delivery]


def check_care(
    held: Held,
    payer: PayerLedger,
    gateway: GatewayLedger,
    now: datetime,
    *,
    may_be_unknown: Callable[[Delivery], bool],
) -> None:
    """All of them. ``may_be_unknown`` tells for which deliveries an answer may have been lost for good."""
    check_nothing_is_parked(held)
    check_referrals_end_or_wait(held, now)
    check_no_two_bookings_overlap(held)
    check_authorizations_equal_the_ledger(held, payer)
    check_messages_go_at_most_once(held, gateway, may_be_unknown)


def check_nothing_is_parked(held: Held) -> None:
    """No fault of the wire or of a process is a reason to park anything."""
    for service, records in held.parked.items():
        parked = [p for p in records if p.state != "clear"]
        assert not parked, f"{service}: {[(p.group, p.reason or p.entries[0].reason) for p in parked]}"


def check_referrals_end_or_wait(held: Held, now: datetime) -> None:
    """Every accepted referral is terminal, or waits with a deadline ahead."""
    for referral in held.referrals:
        if referral.ended:
            assert not referral.timers, f"referral {referral.id} has ended, but keeps timers {referral.timers}"
            continue
        assert referral.wait is not None, f"referral {referral.id} waits in {referral.state} for nothing"
        assert referral.wait.deadline > now or referral.wait.escalated_at is not None, f"{referral.id} is overdue"


def check_no_two_bookings_overlap(held: Held) -> None:
    """No two bookings of a resource overlap that were not called off, and each active one stands in its calendar."""
    holders = {
        (calendar.id, slot.slot_id): slot.holder
        for calendar in held.calendars
        for slot in calendar.slots
        if slot.holder is not None
    }
    by_resource: dict[str, list[tuple[datetime, datetime, str]]] = defaultdict(list)
    for appointment in (one for one in held.appointments if one.state in TAKEN):
        place = appointment.place
        assert place is not None, f"appointment {appointment.id} is {appointment.state} nowhere"
        holder = holders.get((place.calendar_id, place.slot_id))
        assert appointment.state not in ACTIVE or holder == appointment.id, f"{appointment.id} is not in its calendar"
        by_resource[appointment.resource_id].append((place.start, place.end, appointment.id))
    for booked in by_resource.values():
        for (_, end, one), (start, _, other) in pairwise(sorted(booked)):
            assert end <= start, f"appointments {one} and {other} overlap"


def check_authorizations_equal_the_ledger(held: Held, payer: PayerLedger) -> None:
    """What we hold of an authorization is what the payer holds: action, number, dates, units; and asked only once."""
    ours_by_claim = {a.claim_id: a for a in held.authorizations if a.claim_id}
    entries = {entry.id: entry for entry in payer.authorizations}
    unknown = set(entries) - set(ours_by_claim)
    assert not unknown, f"the payer has requests that we do not know: {unknown}"
    for claim, authorization in ours_by_claim.items():
        entry = entries.get(claim)
        ours = authorization.current
        if entry is None or entry.current is None:
            assert ours is None, f"authorization {authorization.id} has a decision that the payer never made"
            continue
        theirs = entry.current
        assert ours is not None, f"authorization {authorization.id} missed the payer's {theirs.action}"
        pair = (ours.action, ours.number), (theirs.action, theirs.number)
        assert pair[0] == pair[1], f"authorization {authorization.id}: {pair}"
        if theirs.number is not None:
            assert (ours.valid_from, ours.valid_to) == (theirs.valid_from, theirs.valid_to)
            assert ours.units == theirs.units_granted
    patients = [(entry.payer_id, entry.member_id) for entry in payer.authorizations]
    assert len(patients) == len(set(patients)), "a payer was asked twice for one referral"


def check_messages_go_at_most_once(
    held: Held, gateway: GatewayLedger, may_be_unknown: Callable[[Delivery], bool]
) -> None:
    """Each message is accepted by the gateway at most once, and none is unknown that could have been asked about."""
    accepted = gateway.references
    for delivery in held.deliveries:
        assert accepted[delivery.id] <= 1, f"delivery {delivery.id} went {accepted[delivery.id]} times"
        if delivery.state is DeliveryState.UNKNOWN:
            assert may_be_unknown(delivery), f"delivery {delivery.id} is unknown"
        if delivery.state in {DeliveryState.ACCEPTED, DeliveryState.DELIVERED}:
            assert accepted[delivery.id] == 1, f"delivery {delivery.id} says that it went, and the gateway has nothing"
        if delivery.state is DeliveryState.DROPPED and not delivery.lost:
            assert accepted[delivery.id] == 0, f"delivery {delivery.id} was dropped, and went"
