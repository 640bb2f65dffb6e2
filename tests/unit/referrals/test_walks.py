"""Referrals under whatever may come, in whatever order: thousands of random walks that must keep what is promised."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from itertools import combinations

import pytest

from services.referrals import model
from services.referrals.model import TRANSITIONS, OrderStatus, Person, Referral, Specialist, State
from shared.contracts.base import Event
from shared.contracts.intake import CoverageStatus
from shared.contracts.referrals import (
    AuthorizationRequested,
    Priority,
    ReferralAccepted,
    ReferralCancelled,
    ReferralClosed,
    ReferralEscalated,
    ReferralFailed,
    ReferralRejected,
    ReferralSent,
)
from shared.kit.decisions import NO_FACTS, Due
from shared.kit.document import Document
from shared.kit.errors import DomainError
from tests.unit.referrals import cases
from tests.unit.referrals.cases import NOW, Registration, recorded, tell

WALKS, STEPS = 1500, 25
SECOND_DATE = cases.uid("second appointment")
ENDINGS = (ReferralClosed, ReferralRejected, ReferralCancelled, ReferralFailed)

EVENTS: tuple[Event, ...] = (
    cases.PERSON_KNOWN,
    cases.PERSON_KNOWN,
    cases.PERSON_KNOWN,
    cases.LISTED,
    cases.NOT_REQUIRED,
    cases.NOT_REQUIRED,
    cases.SUBMITTED,
    cases.PENDED,
    cases.DENIED,
    cases.REFUSED,
    cases.APPEALED,
    cases.WITHDRAWN,
    cases.approved(),
    cases.approved(date(2026, 3, 1), date(2026, 3, 14)),
    cases.booked(),
    cases.booked(),
    cases.booked(SECOND_DATE, NOW + timedelta(days=20)),
    cases.moved(NOW + timedelta(days=12)),
    cases.called_off(),
    cases.missed(),
    cases.missed(SECOND_DATE),
    cases.fulfilled(SECOND_DATE),
)
USUAL: tuple[tuple[Callable[..., Referral], object], ...] = (
    (model.activate, model.ActivateOrder()),
    (
        model.add_to_packet,
        model.AddToPacket(items=tuple(cases.item(model.PacketKind(k)) for k in ("reason", "medications", "photo"))),
    ),
    (model.accept, model.Accept()),
    (model.accept, model.Accept()),
)
FINAL: tuple[tuple[Callable[..., Referral], object], ...] = (
    (model.reject, model.Reject(reason="full")),
    (model.close, cases.report()),
    (model.cancel, model.Cancel(reason="patient-request")),
    (model.mark_entered_in_error, model.MarkEnteredInError()),
)


class World:
    """One referral and what is stored beside it, pushed about by a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = NOW
        self.person: Person = cases.known(Registration.INCOMPLETE)
        self.specialists: tuple[Specialist, ...] = ()
        # Half of the walks begin far along, so that late stages are walked through as often as early ones.
        self.referral = self._new() if seed % 2 else cases.in_state(self.random.choice(model.PATH))

    def _new(self) -> Referral:
        return cases.requested(
            priority=self.random.choice(list(Priority)),
            order_status=self.random.choice([OrderStatus.ACTIVE, OrderStatus.ACTIVE, OrderStatus.DRAFT]),
            packet=self.random.choice([(), cases.order().packet]),
        )

    def step(self) -> None:
        chance = self.random.random()
        self.now += timedelta(hours=self.random.choice([0, 1, 30]))
        self.due()
        if chance < 0.6:
            self.hear(self.random.choice(EVENTS))
        elif chance < 0.95:
            self.ask(*self.random.choice(USUAL))
        else:
            self.ask(*self.random.choice(FINAL))

    def hear(self, event: Event) -> None:
        if event is cases.PERSON_KNOWN:
            status = self.random.choice([CoverageStatus.ACTIVE, CoverageStatus.ACTIVE, *CoverageStatus])
            self.person = cases.known(self.random.choice([*Registration, Registration.COMPLETE]), status)
        if event is cases.LISTED:
            self.specialists = (cases.specialist(),)
        tell(self.referral, event, stored=(self.person, *self.specialists), now=self.now)

    def ask(self, decide: Callable[..., Referral], command: object) -> None:
        try:
            decide(self.referral, command, NO_FACTS, self.now)
        except DomainError:
            return
        tell(self.referral, stored=(self.person, *self.specialists), now=self.now)

    def due(self) -> None:
        at = self.referral.timers.get("deadline")
        if at is not None and at <= self.now:
            self.referral.rest("deadline")
            model.escalate(self.referral, Due("deadline", at), NO_FACTS, self.now)


@pytest.fixture
def taken() -> Iterator[set[tuple[State, State]]]:
    """The transitions of referrals that were taken during the test."""
    seen: set[tuple[State, State]] = set()

    def watch(document: str, before: str, after: str) -> None:
        if document == "Referral":
            seen.add((State(before), State(after)))

    Document.watch = watch
    yield seen
    Document.watch = None


def _keeps_its_promises(world: World) -> None:
    referral = world.referral
    if referral.ended:
        assert referral.wait is None
        assert referral.timers == {}
        assert len([e for kind in ENDINGS for e in recorded(referral, kind)]) == 1
    else:
        assert referral.wait is not None
        assert referral.wait.escalated_at is not None or referral.timers == {"deadline": referral.wait.deadline}
        assert [e for kind in ENDINGS for e in recorded(referral, kind)] == []
    assert (referral.seeking is not None) == (referral.state is State.AWAITING_SPECIALIST)
    for once in (AuthorizationRequested, ReferralSent, ReferralAccepted):
        assert len(recorded(referral, once)) <= 1
    told = [(e.since, e.state) for e in recorded(referral, ReferralEscalated) if isinstance(e, ReferralEscalated)]
    assert len(told) == len(set(told))


def test_whatever_comes_a_referral_ends_once_or_waits_with_a_deadline_and_every_way_is_taken(
    taken: set[tuple[State, State]],
) -> None:
    for seed in range(WALKS):
        world = World(seed)
        for _ in range(STEPS):
            world.step()
            try:
                _keeps_its_promises(world)
            except AssertionError as broken:
                raise AssertionError(f"seed {seed}") from broken
    declared = {(before, after) for before, ways in TRANSITIONS.items() for after in ways}
    assert taken == declared


def test_facts_of_different_documents_lead_to_the_same_end_in_whatever_order_they_arrive() -> None:
    """Payer, registry and patient are documents of their own; each keeps its order, they keep none between them."""
    payer: tuple[Event, ...] = (cases.SUBMITTED, cases.PENDED, cases.approved())
    people: tuple[Person, ...] = (
        cases.known(),
        cases.known(status=CoverageStatus.LAPSED),
        cases.known(status=CoverageStatus.ACTIVE),
    )
    ends = set()
    for places in combinations(range(6), 3):
        referral = cases.authorizing()
        specialists: tuple[Specialist, ...] = (cases.specialist(),)
        of_payer, of_people = iter(payer), iter(people)
        person = cases.known()
        for place in range(6):
            if place in places:
                tell(referral, next(of_payer), stored=(person, *specialists))
            else:
                person = next(of_people)
                tell(referral, cases.PERSON_KNOWN, stored=(person, *specialists))
        ends.add((referral.state, referral.specialist_id, referral.packet_hash))
        assert len(recorded(referral, ReferralSent)) == 1
    assert len(ends) == 1
    assert next(iter(ends))[0] is State.AWAITING_ACCEPTANCE
