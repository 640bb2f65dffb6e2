"""What the reaction path is given: the same events for all sides, and the members that they are about.

Every referral asks for an authorization. That creates an Authorization, whose write carries the event MemberWanted;
read back, it finds the member and moves the Authorization to *submitting*. So each referral is two events taken in, two
conditional writes (a create and a change), one read of a second document, one event published and taken out of the
outbox.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import UTC, datetime
from uuid import UUID

from services.prior_authorization.model import Member
from shared.contracts.base import Coding
from shared.contracts.referrals import AuthorizationRequested
from shared.kit.bus.envelope import message_of
from shared.kit.bus.port import Message
from shared.kit.store.repository import Entry

MEMBERS = 1000
PAYERS = 12
PARTITIONS = 12

REQUESTS = "referrals.events"
WISHES = "prior_authorization.work"
"""The topics of the real service; the other sides have their own, with a prefix."""

_SERVICES = (
    Coding(system="http://www.ama-assn.org/go/cpt", code="72148"),
    Coding(system="http://www.ama-assn.org/go/cpt", code="29881"),
    Coding(system="https://codesystem.x12.org/005010/1365", code="3"),
)
_DIAGNOSES = (
    Coding(system="http://hl7.org/fhir/sid/icd-10-cm", code="M54.50"),
    Coding(system="http://hl7.org/fhir/sid/icd-10-cm", code="M23.221"),
)


def members() -> Iterable[Member]:
    """The patients as their payers' members; synthetic."""
    chance = random.Random(1)
    for number in range(MEMBERS):
        yield Member(
            id=_id(chance),
            payer_id=f"payer-{number % PAYERS}",
            coverage_id=_id(chance),
            member_id=f"M{number:08}",
            plan="standard",
            family="Example",
            given=("Patient",),
            gender="unknown",
        )


def requests(count: int, seed: int, sampled: float) -> list[Message]:
    """``count`` events AuthorizationRequested of as many referrals, of which the share ``sampled`` is traced."""
    chance = random.Random(seed)
    known = list(members())
    now = datetime.now(UTC)
    return [
        message_of("referrals", *_request(chance, known[number % MEMBERS], now, sampled)) for number in range(count)
    ]


def _request(chance: random.Random, member: Member, now: datetime, sampled: float) -> tuple[str, Entry]:
    referral_id = _id(chance)
    event = AuthorizationRequested(
        referral_id=referral_id,
        patient_id=member.id,
        coverage_id=member.coverage_id or "",
        payer_id=member.payer_id or "",
        service=chance.choice(_SERVICES),
        diagnoses=_DIAGNOSES,
        quantity=1,
        specialist_id=_id(chance),
    )
    # As the SDK samples: by the trace id, so that every service decides alike.
    trace = chance.getrandbits(128) | 1
    flags = 1 if trace & (2**64 - 1) < int(sampled * 2**64) else 0
    traceparent = f"00-{trace:032x}-{chance.getrandbits(64) | 1:016x}-{flags:02x}"
    data = event.model_dump_json(exclude_none=True)
    return referral_id, Entry(3, _id(chance), event.type, event.topic, now, data, traceparent)


def _id(chance: random.Random) -> str:
    return str(UUID(int=chance.getrandbits(128), version=4))
