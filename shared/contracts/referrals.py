"""Events of referrals: from the clinician's request to the consult report; private ones on a work topic."""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from typing import ClassVar

from .base import Coding, Event, Value


class Priority(StrEnum):
    """FHIR R4 request-priority."""

    ROUTINE = "routine"
    URGENT = "urgent"
    ASAP = "asap"
    STAT = "stat"


class PacketEntry(Value):
    """One item of a clinical packet: what it is and the SHA-256 of its content, never the content."""

    kind: str
    sha256: str
    code: Coding | None = None
    reference: str | None = None


class ReferralEvent(Event):
    """About one referral; the subject is ``referral_id``."""

    topic: ClassVar[str] = "referrals.events"
    referral_id: str
    patient_id: str


class ReferralRequested(ReferralEvent):
    """A clinician asked for a referral. ``replaces`` is the rejected referral to which this is the alternative.

    ``authorization_id`` is the authorization that the alternative was handed on and relies on from now on.
    """

    type: ClassVar[str] = "referral.requested.v1"
    specialty: str
    service: Coding
    priority: Priority
    requester_id: str
    authored_on: datetime
    replaces: str | None = None
    authorization_id: str | None = None


class ReferralPacketCompleted(ReferralEvent):
    """Every item on the specialty's checklist is in the packet; ``packet_hash`` is SHA-256 of the snapshot.

    ``packet`` names the documents in it that have a LOINC type and a reference: what a payer may want as evidence.
    """

    type: ClassVar[str] = "referral.packet-completed.v1"
    packet_hash: str
    packet: tuple[PacketEntry, ...] = ()


class AuthorizationRequested(ReferralEvent):
    """prior_authorization is asked to decide whether approval is needed, and to get it.

    ``packet`` names the documents at hand that have a LOINC type and a reference: what a payer may want as evidence.
    """

    type: ClassVar[str] = "referral.authorization-requested.v1"
    coverage_id: str
    payer_id: str
    service: Coding
    diagnoses: tuple[Coding, ...] = ()
    quantity: int = 1
    expedited: bool = False
    specialist_id: str | None = None
    packet: tuple[PacketEntry, ...] = ()


class ReferralSent(ReferralEvent):
    """The packet went to the specialist, who owes an answer."""

    type: ClassVar[str] = "referral.sent.v1"
    specialist_id: str
    authorization_number: str | None = None


class ReferralAccepted(ReferralEvent):
    """The specialist took the referral; scheduling books it between ``earliest`` and ``latest``."""

    type: ClassVar[str] = "referral.accepted.v1"
    specialist_id: str
    priority: Priority
    service: Coding
    earliest: datetime
    latest: datetime | None = None


class ReferralRejected(ReferralEvent):
    """The specialist declined. ``alternative_id`` is the linked referral opened in its place.

    ``authorization_id`` is the authorization that it relied on, where it had one. ``authorization_carried`` says that
    the alternative relies on it from now on: it stays in force.
    """

    type: ClassVar[str] = "referral.rejected.v1"
    specialist_id: str
    reason: str
    alternative_id: str | None = None
    authorization_carried: bool = False
    authorization_id: str | None = None


class ReferralScheduled(ReferralEvent):
    """A visit is booked (BSeR 5.1.1)."""

    type: ClassVar[str] = "referral.scheduled.v1"
    appointment_id: str
    start: datetime


class ReferralUnscheduled(ReferralEvent):
    """The visit fell through; a new date is wanted. ``reason``: ``no-show`` (BSeR 5.1.2) or ``cancelled`` (5.1.3)."""

    type: ClassVar[str] = "referral.unscheduled.v1"
    appointment_id: str
    reason: str


class ReferralAttended(ReferralEvent):
    """The visit took place (BSeR 5.1.4); the consult report is owed."""

    type: ClassVar[str] = "referral.attended.v1"
    appointment_id: str | None = None


class ReferralClosed(ReferralEvent):
    """The report based on this referral came back to the referring clinician (BSeR 7.0)."""

    type: ClassVar[str] = "referral.closed.v1"
    report_id: str


class ReferralCancelled(ReferralEvent):
    """Withdrawn. ``reason`` is a code; ``authorization_id`` the authorization that it relied on, where it had one."""

    type: ClassVar[str] = "referral.cancelled.v1"
    reason: str
    authorization_id: str | None = None


class ReferralFailed(ReferralEvent):
    """Cannot be fulfilled. ``reason`` is a code, such as ``authorization-denied``; ``authorization_id`` as above."""

    type: ClassVar[str] = "referral.failed.v1"
    reason: str
    authorization_id: str | None = None


class ReferralEscalated(ReferralEvent):
    """A waiting state outlived its deadline: once per wait. ``owner`` is the role that owes the next step."""

    type: ClassVar[str] = "referral.escalated.v1"
    state: str
    since: datetime
    deadline: datetime
    owner: str


class PersonKnown(Event):
    """A registration or a coverage changed as referrals wait for (subject: the person). Private to referrals.

    Says only that; who reacts reads the person from the store.
    """

    type: ClassVar[str] = "person.known.v1"
    topic: ClassVar[str] = "referrals.work"
    patient_id: str


class SpecialistListed(Event):
    """A specialist takes referrals of a specialty (subject: the specialist). Private to referrals."""

    type: ClassVar[str] = "specialist.listed.v1"
    topic: ClassVar[str] = "referrals.work"
    specialist_id: str
    specialty: str


class SpecialistAvailable(Event):
    """The same, for referrals that asked for this very specialist (subject: the specialist). Private to referrals."""

    type: ClassVar[str] = "specialist.available.v1"
    topic: ClassVar[str] = "referrals.work"
    specialist_id: str


class SpecialistWanted(Event):
    """A referral is ready to be sent and looks for a specialist (subject: the referral). Private to referrals."""

    type: ClassVar[str] = "referral.specialist-wanted.v1"
    topic: ClassVar[str] = "referrals.work"
    referral_id: str


class CarriedAuthorization(Value):
    """A payer's decision that also holds for the alternative of a rejected referral. Dates inclusive."""

    authorization_id: str
    status: str
    coverage_id: str
    payer_id: str
    rule: str | None = None
    number: str | None = None
    valid_from: date | None = None
    valid_to: date | None = None
    units_requested: int | None = None
    units_granted: int | None = None


class AlternativeWanted(Event):
    """A rejected referral hands on what its alternative needs (subject: the rejected). Private to referrals."""

    type: ClassVar[str] = "referral.alternative-wanted.v1"
    topic: ClassVar[str] = "referrals.work"
    referral_id: str
    alternative_id: str
    patient_id: str
    specialty: str
    service: Coding
    priority: Priority
    requester_id: str
    authored_on: datetime
    tried: tuple[str, ...]
    diagnoses: tuple[Coding, ...] = ()
    quantity: int = 1
    packet: tuple[PacketEntry, ...] = ()
    authorization: CarriedAuthorization | None = None
