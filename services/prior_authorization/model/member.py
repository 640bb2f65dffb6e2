"""What a payer needs to recognise a patient: kept from intake's people topic, forgotten when intake says so."""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from typing import ClassVar

from services.prior_authorization.model.requirement import CoverageAnswer, TakeCoverage, with_answer
from shared.contracts.intake import PersonChanged
from shared.contracts.prior_authorization import MemberKnown
from shared.kit.decisions import Facts
from shared.kit.document import Document
from shared.kit.errors import Conflict


class MemberState(StrEnum):
    """Whether the person may still be kept."""

    KNOWN = "known"
    FORGOTTEN = "forgotten"


class Member(Document):
    """A patient as a payer's member; the id is ``patient_id``. Holds personal data; never published."""

    collection = "member"
    transitions: ClassVar = {MemberState.KNOWN: frozenset({MemberState.FORGOTTEN}), MemberState.FORGOTTEN: frozenset()}
    terminal: ClassVar = frozenset({MemberState.FORGOTTEN})

    state: MemberState = MemberState.KNOWN
    payer_id: str | None = None
    coverage_id: str | None = None
    member_id: str | None = None
    plan: str | None = None
    family: str | None = None
    given: tuple[str, ...] = ()
    birth_date: date | None = None
    gender: str | None = None
    answers: tuple[CoverageAnswer, ...] = ()
    """What payers said of this member's coverage of a service (CRD), the latest last."""


class Lack(StrEnum):
    """Why a member cannot be named to a payer yet."""

    UNKNOWN = "member-unknown"
    FORGOTTEN = "member-forgotten"
    OTHER_PAYER = "member-of-another-payer"
    NO_MEMBER_ID = "member-id-missing"


def lack(member: Member | None, payer_id: str) -> Lack | None:
    """What keeps a payer from recognising the member; None where nothing does."""
    if member is None:
        return Lack.UNKNOWN
    if member.state is MemberState.FORGOTTEN:
        return Lack.FORGOTTEN
    if member.payer_id != payer_id:
        return Lack.OTHER_PAYER
    return None if member.member_id else Lack.NO_MEMBER_ID


def learn(document: Member | None, event: PersonChanged, facts: Facts, now: datetime) -> Member:
    """Keep what a payer needs of a person, or forget all of it; announces itself where that changed anything."""
    member = document or Member(id=event.patient_id)
    if member.state is MemberState.FORGOTTEN:
        return member
    before = member.model_dump()
    if event.erased:
        _blank(member)
        member.move(MemberState.FORGOTTEN)
    else:
        _keep(member, event)
    if document is None or member.model_dump() != before:
        member.record(MemberKnown(patient_id=member.id))
    return member


def take_coverage(document: Member | None, command: TakeCoverage, facts: Facts, now: datetime) -> Member:
    """Keep what a payer said of a member and a service; the member may not be known yet.

    Raises Conflict where the member is forgotten.
    """
    member = document or Member(id=facts.id)
    if member.state is MemberState.FORGOTTEN:
        raise Conflict("the member is forgotten")
    for answer in command.answers:
        member.answers = with_answer(member.answers, answer)
    member.record(MemberKnown(patient_id=member.id))
    return member


def _keep(member: Member, event: PersonChanged) -> None:
    coverage = event.coverage
    member.payer_id = coverage.payer_id if coverage else None
    member.coverage_id = coverage.coverage_id if coverage else None
    member.member_id = coverage.member_id if coverage else None
    member.plan = coverage.plan if coverage else None
    member.family = event.family
    member.given = event.given
    member.birth_date = event.birth_date
    member.gender = event.gender


def _blank(member: Member) -> None:
    member.payer_id = member.coverage_id = member.member_id = member.plan = None
    member.family = member.birth_date = member.gender = None
    member.given = ()
    member.answers = ()
