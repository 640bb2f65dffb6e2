"""What a denial means: whether data were wrong, medicine was weighed, or the plan does not pay, and what can be done.

X12 886 gives the reasons of a decision, X12 901 the errors of a request, X12 889 what may be done about an error. Only
the codes are used; what is said of them here is ours. Payers still send 901 codes as reasons, as X12 278 did before.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Self

from pydantic import model_validator

from services.prior_authorization.model.answers import Rejection
from services.prior_authorization.model.clocks import LineOfBusiness
from shared.kit.document import Part


class Track(StrEnum):
    """Which way out of a denial there is."""

    ADMINISTRATIVE = "administrative"
    """Data were missing or wrong: correct them and send a new claim."""
    CLINICAL = "clinical"
    """Medicine was weighed: talk to the payer's physician, or appeal."""
    BENEFIT = "benefit"
    """The plan does not pay for it, or not there: appeal, or accept."""


def _codes(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


_CLINICAL = _codes("0F 0G 0T 0V 10 16 19 82 83 98")
"""Necessity, level of care, experimental, needs medical review, pattern of delivery, facility, cosmetic."""

_BENEFIT = _codes("09 0A 0B 0H 0J 0K 0L 0M 0S 11 12 13 14 15 20 21 27 28 29 35 84 85 86 87 88 96")
"""Out of network, not covered, over a maximum, somebody else's to decide or to give, premium unpaid."""

_ADMINISTRATIVE = _codes("07 0C 0D 0E 0N 0P 0Q 0R 0U 0X 0Y 0Z 17 22 23 24 25 26") | _codes(
    "33 41 43 44 45 46 47 48 49 51 52 53 54 55 56 57 58 60 61 62 63 64 65 66 67 68 69 70 71 72 73 74 75 76 77 78 79 81 "
    "89 90 91 92 95 97 AA AE AF AG AH AI AJ AK AL AM AN AO AP AQ AR AS E8 T5"
)
"""Not authorized by the PCP, information or approval missing, duplicate, inconsistent, and all of 901 about data."""

_NEVER = _codes("N S Y")
"""X12 889: resubmission not allowed, do not resubmit. All others let it be sent again: C corrected, P as it was, R."""

_PATHS = {
    "0D": "Claim.careTeam",
    "0N": "Claim.preAuthRef",
    "0P": "Claim.supportingInfo",
    "0R": "Claim.diagnosis",
    "0U": "Claim.supportingInfo",
    "0X": "Claim.careTeam",
    "0Y": "Claim.item.productOrService",
    "0Z": "Claim.item.productOrService",
    "26": "Claim.careTeam.role",
    "43": "Claim.provider.identifier",
    "51": "Claim.provider.identifier",
    "57": "Claim.item.serviced",
    "58": "Patient.birthDate",
    "64": "Patient.identifier",
    "65": "Patient.name",
    "67": "Patient.identifier",
    "71": "Patient.birthDate",
    "72": "Coverage.subscriberId",
    "73": "Patient.name",
    "75": "Coverage.subscriberId",
    "78": "Coverage.subscriberId",
    "90": "Claim.supportingInfo",
    "92": "Claim.diagnosis",
    "AF": "Claim.diagnosis",
    "AG": "Claim.item.productOrService",
}
"""Where in the request a code points to, where the payer did not say."""

MEMBERS = frozenset(["58", "64", "65", "66", "67", "71", "72", "73", "74", "75", "78"])
"""Errors in what identifies the member, put right as soon as the member's data change."""

RESUBMISSIONS = 2
"""So often a request is corrected; what is still refused then is for an appeal, or for a person to accept."""


class Correction(Part):
    """One thing to put right: the payer's code, where it is, X12 889, the item, and when it was done."""

    code: str
    path: str | None = None
    follow_up: str | None = None
    item: int | None = None
    done_at: datetime | None = None


class Denial(Part):
    """A denial, or a rejection, that stands: ``level`` is the appeal that would come next, 0 where none is left.

    ``file_by`` is the last day to file it, ``expedited`` whether it is to be decided at once. ``evidence`` are codes of
    what the appeal must carry, ``attached`` what there is of it, by code.
    """

    claim_id: str
    track: Track
    reasons: tuple[str, ...] = ()
    since: datetime
    rejected: bool = False
    corrections: tuple[Correction, ...] = ()
    expedited: bool = False
    level: int = 0
    level_name: str | None = None
    file_by: date | None = None
    evidence: tuple[str, ...] = ()
    attached: dict[str, str] = {}

    @property
    def outstanding(self) -> tuple[Correction, ...]:
        """What is still to be put right."""
        return tuple(each for each in self.corrections if each.done_at is None)

    @property
    def lacking(self) -> tuple[str, ...]:
        """What an appeal must carry and there is not yet."""
        return tuple(code for code in self.evidence if code not in self.attached)


class TalkOutcome(StrEnum):
    """How a peer-to-peer ended."""

    OVERTURNED = "overturned"
    UPHELD = "upheld"
    NOT_HELD = "not-held"


class Offer(Part):
    """A time at which the payer's physician can be reached."""

    start: datetime
    end: datetime

    @model_validator(mode="after")
    def _lasts(self) -> Self:
        if self.end <= self.start:
            raise ValueError("ends before it begins")
        return self


class PeerToPeer(Part):
    """A talk between the ordering physician and the payer's: asked for, offered, booked, held.

    ``id`` and ``clinician_id`` are known where it has a place in a clinician's calendar, or looks for one; ``chosen``
    is the offer that a person took.
    """

    id: str | None = None
    clinician_id: str | None = None
    chosen: Offer | None = None

    claim_id: str
    requested_at: datetime
    not_after: datetime
    offers: tuple[Offer, ...] = ()
    booked: Offer | None = None
    outcome: TalkOutcome | None = None
    held_at: datetime | None = None


# -- classification -------------------------------------------------------------------------------------------------


def track_of(reasons: Iterable[str], errors: Iterable[Correction] = ()) -> Track:
    """Which way out a denial has. Medicine before benefit before data: correcting data does not overturn the former.

    A denial whose reasons say nothing is taken for a clinical one, so that a person looks at it.
    """
    codes, wrong = set(reasons), tuple(errors)
    if codes & _CLINICAL:
        return Track.CLINICAL
    if codes & _BENEFIT:
        return Track.BENEFIT
    if any(each.follow_up in _NEVER for each in wrong):
        return Track.BENEFIT
    if codes & _ADMINISTRATIVE or wrong:
        return Track.ADMINISTRATIVE
    return Track.CLINICAL


def corrections_for(reasons: Iterable[str], errors: Iterable[Rejection] = ()) -> tuple[Correction, ...]:
    """What is to be put right: each error by code, path and item, then each administrative reason."""
    found = [
        Correction(
            code=error.code or "unknown",
            path=error.path or _PATHS.get(error.code or ""),
            follow_up=error.follow_up,
            item=error.item,
        )
        for error in errors
    ]
    named = {each.code for each in found}
    plain = [code for code in dict.fromkeys(reasons) if code in _ADMINISTRATIVE and code not in named]
    return (*found, *(Correction(code=code, path=_PATHS.get(code)) for code in plain))


def correctable(corrections: Iterable[Correction]) -> bool:
    """Whether the payer lets what it refused be sent again, put right."""
    listed = tuple(corrections)
    return bool(listed) and all(each.follow_up not in _NEVER for each in listed)


# -- appeals --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Level:
    """One level of appeal: who decides it, and within how many days after the decision before it is filed.

    ``file_days`` None: the payer forwards it by itself. The first level's days are the clock's (``appeal_within``).

    Read in copies of the CFR on 2026-11-28: 431.221(d) and 457.1260. All other days and paragraphs stand here from
    memory and are to be checked before they are relied on. Of 423.600(a) older texts say 60 days; it may say 65 since
    2025, and the shorter time is kept, so that nobody files late.
    """

    name: str
    file_days: int | None
    basis: str


_MEDICARE = (
    Level("plan-reconsideration", 65, "42 CFR 422.582(b)"),
    Level("independent-review-entity", None, "42 CFR 422.590(h), 422.592"),
    Level("administrative-law-judge", 60, "42 CFR 422.602(b)"),
    Level("medicare-appeals-council", 60, "42 CFR 422.608, 405.1102(a)"),
    Level("federal-district-court", 60, "42 CFR 422.612, 405.1130"),
)
_PART_D = (
    Level("plan-redetermination", 65, "42 CFR 423.582(b)"),
    Level("independent-review-entity", 60, "42 CFR 423.600(a)"),
    *_MEDICARE[2:],
)
_MEDICAID = (
    Level("plan-appeal", 60, "42 CFR 438.402(c)(2)(ii)"),
    Level("state-fair-hearing", 120, "42 CFR 438.408(f)(2)"),
)
_STATE = (Level("state-fair-hearing", 90, "42 CFR 431.221(d)"),)
_CHIP_MANAGED_CARE = (
    Level("plan-appeal", 60, "42 CFR 457.1260, as 438.402(c)(2)(ii)"),
    Level("state-review", 120, "42 CFR 457.1260 (fair hearings read as reviews), as 438.408(f)(2)"),
)
_CHIP = (Level("state-review", 90, "42 CFR 457.1130(b): days are the state's; as Medicaid's where it names none"),)
_COMMERCIAL = (
    Level("internal-appeal", 180, "29 CFR 2560.503-1(h)(3)(i), 45 CFR 147.136(b)"),
    Level("external-review", 120, "45 CFR 147.136(d)(2)(i): four months"),
)

_LEVELS = {
    LineOfBusiness.MEDICARE_ADVANTAGE: _MEDICARE,
    LineOfBusiness.MEDICARE_PART_D: _PART_D,
    LineOfBusiness.MEDICAID_MANAGED_CARE: _MEDICAID,
    LineOfBusiness.CHIP_MANAGED_CARE: _CHIP_MANAGED_CARE,
    LineOfBusiness.MEDICAID_FFS: _STATE,
    LineOfBusiness.CHIP_FFS: _CHIP,
}


def levels_of(line_of_business: str) -> tuple[Level, ...]:
    """The levels of appeal of a line of business, first to last; commercial ones where it has none of its own."""
    return next((levels for line, levels in _LEVELS.items() if line == line_of_business), _COMMERCIAL)


def file_by(level: Level, denied_on: date) -> date | None:
    """The last day to file an appeal of that level of a decision of that day; None where nobody files it."""
    return None if level.file_days is None else denied_on + timedelta(days=level.file_days)


def evidence_for(track: Track, reasons: Iterable[str], level: int) -> tuple[str, ...]:
    """What an appeal must carry, by code: always the notice that it is about, then what answers the reason given."""
    needed = ["denial-notice"]
    if level > 1:
        needed.append("decision-on-the-appeal-before")
    if track is Track.CLINICAL:
        needed += ["clinical-notes", "statement-of-necessity"]
    if track is Track.BENEFIT:
        needed.append("plan-provision")
    codes = set(reasons)
    if codes & {"0T", "98"}:
        needed.append("published-evidence")
    if codes & {"0G", "83", "16"}:
        needed.append("level-of-care-criteria")
    if codes & {"09", "35"}:
        needed.append("network-inadequacy")
    return tuple(needed)
