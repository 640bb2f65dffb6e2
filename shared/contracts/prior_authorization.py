"""Events of prior_authorization: whether approval is needed, and what the payer decided."""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from typing import ClassVar

from .base import Coding, Event, Value


class ReviewAction(StrEnum):
    """X12 306, the review action code that alone carries a payer's decision (Da Vinci PAS 2.2.1)."""

    CERTIFIED = "A1"
    PARTIAL = "A2"
    NOT_CERTIFIED = "A3"
    PENDED = "A4"
    MODIFIED = "A6"
    CANCELLED = "C"
    CONTACT_PAYER = "CT"
    NO_ACTION_REQUIRED = "NA"


class AuthorizationEvent(Event):
    """About one authorization; the subject is ``authorization_id``."""

    topic: ClassVar[str] = "prior_authorization.events"
    authorization_id: str
    referral_id: str
    patient_id: str


class AuthorizationNotRequired(AuthorizationEvent):
    """``rule`` names the rule that matched; or the payer answered NA."""

    type: ClassVar[str] = "authorization.not-required.v1"
    rule: str


class ServiceItem(Value):
    """One item of a request with several: its number, its service, and the payer's decision on it, where it has one."""

    sequence: int
    service: Coding
    kind: str | None = None
    action: ReviewAction | None = None


class AuthorizationSubmitted(AuthorizationEvent):
    """The request was received by the payer; ``received_at`` by the payer's own date, where that can be.

    ``service`` and ``kind`` are the first item's; ``items`` are all of them, where there are several.
    """

    type: ClassVar[str] = "authorization.submitted.v1"
    payer_id: str
    claim_id: str | None = None
    received_at: datetime | None = None
    service: Coding | None = None
    kind: str | None = None
    expedited: bool | None = None
    line_of_business: str | None = None
    items: tuple[ServiceItem, ...] = ()


class AuthorizationPended(AuthorizationEvent):
    """The payer will decide later (A4), as it said at ``pended_at``."""

    type: ClassVar[str] = "authorization.pended.v1"
    payer_id: str
    claim_id: str | None = None
    pended_at: datetime | None = None


class InformationAsked(Value):
    """One thing that a payer asks for: LOINC or X12 755 codes (none: it could not be read), of an item or of the whole
    request, until when. ``modifiers`` are LOINC codes of which of it."""

    item: int | None = None
    codes: tuple[Coding, ...] = ()
    modifiers: tuple[str, ...] = ()
    until: datetime | None = None


class AuthorizationInformationRequested(AuthorizationEvent):
    """The payer asks for more before it decides on a claim. Each thing is told once."""

    type: ClassVar[str] = "authorization.information-requested.v1"
    payer_id: str
    claim_id: str
    asked: tuple[InformationAsked, ...]


class AuthorizationRuled(AuthorizationEvent):
    """The payer decided on one claim, by its own dates. Told once for each word it has not said of that claim before.

    ``purpose`` says why the claim was sent (initial, appeal, ...), ``level`` which appeal it is (0: none), and
    ``prior_claim_id`` the claim it is related to. ``standing``: this is what the payer says of the claim now; false for
    an older word that arrived late. ``extended``: decided later than the payer's time for it. ``kind`` is the kind of
    service; ``human_reviewed`` is None where the payer does not say. ``service`` and ``kind`` are the first item's;
    ``items`` are all of them, where there are several.
    """

    type: ClassVar[str] = "authorization.ruled.v1"
    payer_id: str
    line_of_business: str
    service: Coding
    kind: str | None = None
    expedited: bool
    claim_id: str
    prior_claim_id: str | None = None
    purpose: str
    level: int
    received_at: datetime
    decided_at: datetime
    action: ReviewAction
    standing: bool
    extended: bool
    human_reviewed: bool | None = None
    items: tuple[ServiceItem, ...] = ()


class ItemDifference(Value):
    """An item that was not granted as it was asked for. ``granted`` are services granted in its place, where the payer
    grants others; ``reasons`` are X12 886 codes."""

    sequence: int
    action: ReviewAction
    service: Coding
    units_requested: int
    units_granted: int
    granted: tuple[Coding, ...] = ()
    reasons: tuple[str, ...] = ()


class AuthorizationApproved(AuthorizationEvent):
    """Approved in full (A1), in part (A2) or with changes (A6). Dates inclusive; units as granted, of all items.

    ``differences`` are the items that were not granted as they were asked for. ``units_used`` are those that visits
    have used already; ``replaces`` is the authorization in whose place this one was opened, where there is one.
    """

    type: ClassVar[str] = "authorization.approved.v1"
    action: ReviewAction
    number: str
    valid_from: date | None = None
    valid_to: date | None = None
    units_requested: int
    units_granted: int
    differences: tuple[ItemDifference, ...] = ()
    units_used: int | None = None
    replaces: str | None = None


class AuthorizationUnitsUsed(AuthorizationEvent):
    """A visit that took place used a unit of an approval, or did not after all: what is used of what is granted now."""

    type: ClassVar[str] = "authorization.units-used.v1"
    number: str
    units_granted: int
    units_used: int


class AuthorizationFinancialNotice(AuthorizationEvent):
    """The number under which a visit is approved, for whoever bills it: told before the visit, again where it changes.

    Dates inclusive; ``units_used`` by visits before this one.
    """

    type: ClassVar[str] = "authorization.financial-notice.v1"
    payer_id: str
    appointment_id: str
    visit_start: datetime
    number: str
    valid_from: date | None = None
    valid_to: date | None = None
    units_granted: int
    units_used: int


class AuthorizationDenied(AuthorizationEvent):
    """Not certified (A3). ``reasons`` are X12 886 codes; ``final`` when no appeal is open or possible.

    ``differences`` are the items, where there are several: each with its own reasons.
    """

    type: ClassVar[str] = "authorization.denied.v1"
    reasons: tuple[str, ...] = ()
    final: bool
    differences: tuple[ItemDifference, ...] = ()


class AuthorizationAppealed(AuthorizationEvent):
    """An appeal of a denial went to the payer; levels count from 1."""

    type: ClassVar[str] = "authorization.appealed.v1"
    level: int
    claim_id: str | None = None
    prior_claim_id: str | None = None
    received_at: datetime | None = None


class AuthorizationCancelled(AuthorizationEvent):
    """Withdrawn, by us or by the payer (C)."""

    type: ClassVar[str] = "authorization.cancelled.v1"
    reason: str


class TalkWindow(Value):
    """From when until when a payer's physician can be reached."""

    start: datetime
    end: datetime


class AuthorizationPeerToPeerOffered(AuthorizationEvent):
    """A talk between a clinician and the payer's physician about a denial is wanted: at any time within ``offers``, or
    at ``chosen`` where a person has picked one. Told again when either changes."""

    type: ClassVar[str] = "authorization.peer-to-peer-offered.v1"
    talk_id: str
    clinician_id: str
    offers: tuple[TalkWindow, ...]
    chosen: TalkWindow | None = None
    not_after: datetime


class AuthorizationPeerToPeerClosed(AuthorizationEvent):
    """The talk is over, or not wanted any more. ``outcome``: overturned, upheld, or not-held."""

    type: ClassVar[str] = "authorization.peer-to-peer-closed.v1"
    talk_id: str
    outcome: str


class Breach(Value):
    """What shows that a payer is late: the limit, where it is laid down and since when, and what was done meanwhile.

    ``inquiries`` is how often it was asked in all; ``last_word`` its last review action.
    """

    payer_id: str
    line_of_business: str
    expedited: bool
    limit: str
    basis: str
    in_force_from: date
    received_at: datetime
    deadline: datetime
    extended_days: int = 0
    inquiries: int = 0
    inquired_at: datetime | None = None
    last_word: ReviewAction | None = None
    last_word_at: datetime | None = None


class AuthorizationEscalated(AuthorizationEvent):
    """A waiting state outlived its deadline, or the payer wants a person (CT): once per wait.

    ``reason`` is a code. ``breach`` is there where the payer's time to decide ran out: once for each deadline.
    """

    type: ClassVar[str] = "authorization.escalated.v1"
    state: str
    since: datetime
    deadline: datetime
    owner: str
    reason: str | None = None
    breach: Breach | None = None


class MemberWanted(Event):
    """Private: an authorization was written and now looks for its member (subject: the authorization)."""

    type: ClassVar[str] = "authorization.member-wanted.v1"
    topic: ClassVar[str] = "prior_authorization.work"
    authorization_id: str
    patient_id: str


class TransferWanted(Event):
    """Private: another payer covers the patient, with whom ``opens`` is to be opened (subject: the old one)."""

    type: ClassVar[str] = "authorization.transfer-wanted.v1"
    topic: ClassVar[str] = "prior_authorization.work"
    authorization_id: str
    patient_id: str
    opens: str


class VisitsWanted(Event):
    """Private: an authorization was written that is to answer for a referral's visits (subject: the authorization).

    ``instead_of`` is the one it was opened in place of; ``used_too``: it answers for those that took place as well.
    """

    type: ClassVar[str] = "authorization.visits-wanted.v1"
    topic: ClassVar[str] = "prior_authorization.work"
    authorization_id: str
    referral_id: str
    instead_of: str | None = None
    used_too: bool = False


class VisitsTold(Event):
    """Private: a referral's visits, or who answers for them, changed (subject: the referral's visits).

    ``authorization_id`` is whom it concerns, who reads them again.
    """

    type: ClassVar[str] = "visits.told.v1"
    topic: ClassVar[str] = "prior_authorization.work"
    referral_id: str
    authorization_id: str


class MemberKnown(Event):
    """Private: what is known of a member was written (subject: the member, whose id is ``patient_id``)."""

    type: ClassVar[str] = "member.known.v1"
    topic: ClassVar[str] = "prior_authorization.work"
    patient_id: str
