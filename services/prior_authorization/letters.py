"""Letters about a denial, from templates: ids and codes alone, the member's name only for whoever reads them.

Nothing of a letter is stored. Written in short sentences and plain words, for patients read them too.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from string import Template

from services.prior_authorization.model.authorization import Authorization
from services.prior_authorization.model.denials import Correction, Denial
from services.prior_authorization.model.member import Member, MemberState
from shared.kit.errors import Conflict

NAME, MEMBER_ID = "[member name]", "[member id]"
"""What stands in a letter where the member is not known any more."""


class LetterKind(StrEnum):
    """What a letter is for."""

    APPEAL = "appeal"
    CORRECTION = "correct-and-resubmit"
    TALK = "peer-to-peer"


_HEAD = """Date: $today
To: $payer, Utilization Management
Member: $name
Member ID: $member_id
Request: $claim
Service: $service
Diagnosis: $diagnoses
"""

_APPEAL = Template(
    _HEAD
    + """Subject: $urgency appeal, level $level ($level_name)

We ask you to look again at your decision of $decided.
You denied the service named above. You gave these reasons: $reasons.

We do not agree. The patient's own doctor asked for this service. The care is needed now.
$plea
With this letter we send:
$evidence

We file this by $file_by, the last day to do so.
Please have it read by a doctor who did not make the first decision. That doctor should know this kind of care.
Please tell us who that was. If you deny it again, name the rule you used and send us a copy.
"""
)

_EXPEDITED = "Please decide within 72 hours. To wait longer could harm the patient's health.\n"

_CORRECTION = Template(
    _HEAD
    + """Subject: Corrected request

You sent our request back. Some of its data were missing or wrong.
We have put this right:
$corrections

This is a new request. It takes the place of the one named above. The service asked for is the same.
Please decide on it as a first request. This is not an appeal, and no right to appeal is given up.
"""
)

_TALK = Template(
    _HEAD
    + """Subject: Request for a peer-to-peer talk

You denied the service named above on $decided. You gave these reasons: $reasons.
The patient's doctor would like to talk with the doctor who made that decision.

$times
We ask for this talk before $not_after.
To ask for it does not change the time we have to appeal.
"""
)


def write(kind: LetterKind, document: Authorization, member: Member | None, now: datetime) -> str:
    """The letter as it reads now. Raises Conflict where nothing was denied or rejected that it could be about."""
    denial = document.denial
    if denial is None:
        raise Conflict("nothing was denied that a letter could be about")
    fields = _head(document, denial, member, now)
    if kind is LetterKind.CORRECTION:
        return _corrected(denial, fields)
    return _appeal(denial, fields) if kind is LetterKind.APPEAL else _asked(document, fields)


def _head(document: Authorization, denial: Denial, member: Member | None, now: datetime) -> dict[str, str]:
    known = member if member is not None and member.state is MemberState.KNOWN else None
    name = " ".join((*known.given, known.family or "")).strip() if known else ""
    diagnoses = ", ".join(coding.code for coding in document.diagnoses)
    calendar = document.terms.calendar
    return {
        "today": calendar.day(now).isoformat(),
        "payer": document.payer_id,
        "name": name or NAME,
        "member_id": (known.member_id if known else None) or MEMBER_ID,
        "claim": denial.claim_id,
        "service": ", ".join(item.service.code for item in document.items if not item.dropped),
        "diagnoses": diagnoses or "as sent with the request",
        "decided": calendar.day(denial.since).isoformat(),
        "reasons": ", ".join(denial.reasons) or "none",
    }


def _appeal(denial: Denial, fields: dict[str, str]) -> str:
    if not denial.level:
        raise Conflict("no level of appeal is left")
    more = {
        "urgency": "Expedited" if denial.expedited else "Standard",
        "level": str(denial.level),
        "level_name": denial.level_name or "appeal",
        "plea": _EXPEDITED if denial.expedited else "",
        "evidence": _listed(f"{code}: {denial.attached.get(code, 'to follow')}" for code in denial.evidence),
        "file_by": denial.file_by.isoformat() if denial.file_by else "your own notice's date",
    }
    return _APPEAL.substitute(fields, **more)


def _corrected(denial: Denial, fields: dict[str, str]) -> str:
    if not denial.corrections:
        raise Conflict("nothing was to be corrected")
    return _CORRECTION.substitute(fields, corrections=_listed(_correction(each) for each in denial.corrections))


def _correction(each: Correction) -> str:
    state = "put right" if each.done_at else "still to be put right"
    return f"code {each.code}, {each.path or 'the request'}: {state}"


def _asked(document: Authorization, fields: dict[str, str]) -> str:
    talk = document.talk
    if talk is None:
        raise Conflict("no talk was asked for")
    zone = document.terms.calendar.zone
    if talk.booked is not None:
        times = f"We will call at {talk.booked.start.astimezone(zone):%Y-%m-%d %H:%M %Z}, as you offered.\n"
    else:
        times = "Please offer us times at which that doctor can be reached.\n"
    not_after = talk.not_after.astimezone(zone).date().isoformat()
    return _TALK.substitute(fields, times=times, not_after=not_after)


def _listed(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
