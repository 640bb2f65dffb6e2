"""What a change of the member means: wrong data are put right, or another payer is to be asked.

What was sought or granted is sought with the new payer, linked to what there was. The old payer can no longer be told
whom a cancellation is about, for only the member's number now is known: a person calls the old request off. Where a
visit already used the approval, a person decides what is asked of whom.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from services.prior_authorization.model.authorization import Authorization, Owner, State
from services.prior_authorization.model.contesting import mark, send_anew
from services.prior_authorization.model.denials import MEMBERS
from services.prior_authorization.model.lifetime import ask_for_visits, continuity_of, units
from services.prior_authorization.model.member import Member, lack
from services.prior_authorization.model.opening import assess_all, start
from services.prior_authorization.model.rules import RuleBook
from shared.contracts.prior_authorization import AuthorizationEscalated, MemberKnown, TransferWanted
from shared.kit.decisions import Facts
from shared.kit.document import derived_id

CALL_OFF = timedelta(days=2)

SOUGHT = frozenset({State.SUBMITTING, State.PENDED, State.CONTACT_PAYER, State.APPROVED})
"""Where there is something that the new payer does not know of."""


def member_changed(document: Authorization, event: MemberKnown, facts: Facts, now: datetime) -> Authorization:
    """What is known of the member changed: errors in that are put right, and the request is sent where none is left."""
    denial, wait = document.denial, document.wait
    correcting = wait is not None and wait.reason == "correct-and-resubmit"
    known = facts.get(Member, document.patient_id)
    payer_changed(document, known, now)
    if denial is None or not correcting or lack(known, document.payer_id) is not None:
        return document
    if not any(each.code in MEMBERS for each in denial.outstanding):
        return document
    mark(document, denial, set(MEMBERS), now)
    if not denial.outstanding:
        send_anew(document, denial, now)
    return document


def payer_changed(document: Authorization, member: Member | None, now: datetime) -> None:
    """Have it sought with the payer that covers the patient now, once for each coverage; a person hears of it."""
    if member is None or member.payer_id in (None, document.payer_id) or document.state not in SOUGHT:
        return
    if member.coverage_id is None or lack(member, member.payer_id or "") is not None or not document.submissions:
        return
    id = derived_id("authorization-transfer", document.id, member.coverage_id)
    if document.transferred_to == id:
        return
    document.transferred_to = id
    _, used, _ = units(document)
    if not used:
        document.record(TransferWanted(authorization_id=document.id, patient_id=document.patient_id, opens=id))
    document.record(
        AuthorizationEscalated(
            **document.announces(),
            state=document.state,
            since=now,
            deadline=now + CALL_OFF,
            owner=Owner.COORDINATOR,
            reason="coverage-changed-in-use" if used else "coverage-changed",
        )
    )


def open_transfer(
    rules: RuleBook, document: Authorization | None, event: TransferWanted, facts: Facts, now: datetime
) -> Authorization | None:
    """Open the request with the new payer, with what the old one granted as evidence of continuity."""
    before, member = facts.get(Authorization, event.authorization_id), facts.get(Member, event.patient_id)
    if document is not None or before is None or member is None:
        return document
    if member.payer_id is None or member.coverage_id is None:
        return document
    items = tuple(item for item in before.items if not item.dropped)
    opened = Authorization(
        id=event.opens,
        referral_id=before.announces()["referral_id"],
        patient_id=before.patient_id,
        coverage_id=member.coverage_id,
        payer_id=member.payer_id,
        items=items,
        diagnoses=before.diagnoses,
        providers=before.providers,
        expedited=before.expedited,
        specialist_id=before.specialist_id,
        replaces=before.id,
        continuity=continuity_of(before),
        opened_for=member.payer_id,
        share=rules.share_of(member.payer_id, event.opens),
        requested_at=now,
        terms=assess_all(rules, member.payer_id, member.plan, items, now.date(), expedited=before.expedited),
    )
    ask_for_visits(opened, opened.referral_id, used_too=False)
    return start(opened, now)
