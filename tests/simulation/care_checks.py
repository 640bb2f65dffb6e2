"""What must hold of patients' care once a world has come to rest."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import TypeVar

from deploy.simulators.gateway import Gateway
from deploy.simulators.payer import Payer
from services.notifications.model.delivery import Delivery, DeliveryState
from services.prior_authorization.model.authorization import Authorization
from services.referrals.model import Referral
from services.scheduling.model.appointment import Appointment, AppointmentState
from services.scheduling.model.calendar import Calendar
from shared.kit.document import Document
from shared.kit.parking import Parked
from tests.simulation.world import World

D = TypeVar("D", bound=Document)

ACTIVE = frozenset({AppointmentState.BOOKED, AppointmentState.ARRIVED})


async def _all(world: World, service: str, document: type[D]) -> list[D]:
    return await world.live(service)[0].chassis.repository.find(document, {}, limit=100_000)


async def check_care(world: World, payer: Payer, gateway: Gateway, *, deduplicate: bool) -> None:
    """All of them; a world must be calm."""
    await _nothing_is_parked(world)
    await _referrals_end_or_wait(world)
    await _no_two_bookings_overlap(world)
    await _authorizations_equal_the_ledger(world, payer)
    await _messages_go_at_most_once(world, gateway, deduplicate)


async def _nothing_is_parked(world: World) -> None:
    """No fault of the wire or of a process is a reason to park anything."""
    for service in world.declared:
        parked = [p for p in await _all(world, service, Parked) if p.state != "clear"]
        assert not parked, f"{service}: {[(p.group, p.reason or p.entries[0].reason) for p in parked]}"


async def _referrals_end_or_wait(world: World) -> None:
    """Every accepted referral is terminal, or waits with a deadline ahead."""
    now = world.clock.now()
    for referral in await _all(world, "referrals", Referral):
        if referral.ended:
            assert not referral.timers, f"referral {referral.id} has ended, but keeps timers {referral.timers}"
            continue
        assert referral.wait is not None, f"referral {referral.id} waits in {referral.state} for nothing"
        assert referral.wait.deadline > now or referral.wait.escalated_at is not None, f"{referral.id} is overdue"


async def _no_two_bookings_overlap(world: World) -> None:
    """No two active bookings of a resource overlap, and each stands in its calendar."""
    holders: dict[tuple[str, str], str] = {}
    for calendar in await _all(world, "scheduling", Calendar):
        for slot in calendar.slots:
            if slot.holder is not None:
                holders[calendar.id, slot.slot_id] = slot.holder
    by_resource: dict[str, list[Appointment]] = defaultdict(list)
    for appointment in await _all(world, "scheduling", Appointment):
        if appointment.state in ACTIVE:
            assert appointment.slot is not None
            place = (appointment.slot.calendar_id, appointment.slot.slot_id)
            assert holders.get(place) == appointment.id, f"appointment {appointment.id} is not in its calendar"
            by_resource[appointment.resource_id].append(appointment)
    for booked in by_resource.values():
        spans = sorted((a.slot.start, a.slot.end, a.id) for a in booked if a.slot is not None)
        for (_, end, one), (start, _, other) in pairwise(spans):
            assert end <= start, f"appointments {one} and {other} overlap"


async def _authorizations_equal_the_ledger(world: World, payer: Payer) -> None:
    """What we hold of an authorization is what the payer holds: action, number, dates, units; and asked only once."""
    held = {a.claim_id: a for a in await _all(world, "prior_authorization", Authorization) if a.claim_id}
    entries = {entry.id: entry for entry in payer.ledger.authorizations}
    assert set(entries) <= set(held), f"the payer has requests that we do not know: {set(entries) - set(held)}"
    for claim, authorization in held.items():
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
    patients = [(entry.payer_id, entry.member_id) for entry in payer.ledger.authorizations]
    assert len(patients) == len(set(patients)), "a payer was asked twice for one referral"


async def _messages_go_at_most_once(world: World, gateway: Gateway, deduplicate: bool) -> None:
    """Each message is accepted by the gateway at most once; unknown only where it does not deduplicate."""
    deliveries = await _all(world, "notifications", Delivery)
    accepted = gateway.ledger.references
    for delivery in deliveries:
        assert accepted[delivery.id] <= 1, f"delivery {delivery.id} went {accepted[delivery.id]} times"
        if deduplicate:
            assert delivery.state is not DeliveryState.UNKNOWN, f"delivery {delivery.id} is unknown"
        if delivery.state in {DeliveryState.ACCEPTED, DeliveryState.DELIVERED}:
            assert accepted[delivery.id] == 1, f"delivery {delivery.id} says that it went, and the gateway has nothing"
        if delivery.state is DeliveryState.DROPPED and not delivery.lost:
            assert accepted[delivery.id] == 0, f"delivery {delivery.id} was dropped, and went"
