"""The payers of the polling scenario, their rules file, and pended authorizations in any number, made by the model."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from services.prior_authorization.model import Authorization, Member, RuleBook
from services.prior_authorization.model.answers import Answered, ItemAnswer, PayerAnswer
from services.prior_authorization.model.calling import prepare_submit, settle_submit
from services.prior_authorization.model.opening import consider_member, request
from services.prior_authorization.model.visits import authorization_id
from shared.contracts.base import Coding
from shared.contracts.prior_authorization import MemberKnown, ReviewAction
from shared.contracts.referrals import AuthorizationRequested
from shared.kit.decisions import Due, Facts, Ref
from shared.kit.document import derived_id

PAYERS = 60
GIANT_SHARES = 4
RATES = (0.5, 1.0, 2.0, 3.0, 5.0)
"""Calls a second that payers allow, in turn; the largest payer allows ``GIANT_RATE``."""

GIANT_RATE = 12.0
_CONSULT = Coding(system="http://www.ama-assn.org/go/cpt", code="99244")
_UNTIL_DECIDED = timedelta(days=5)


@dataclass(frozen=True, slots=True)
class Allowed:
    """One payer: how many of the pended requests are with it, and what it allows."""

    payer_id: str
    weight: float
    rate: float
    burst: float
    in_flight: int
    shares: int = 1


def payers(scale: float = 1.0) -> list[Allowed]:
    """Sixty payers of unequal size and budget; ``scale`` multiplies what they allow."""
    found = [Allowed("payer-0", 1.0, GIANT_RATE * scale, 3.0 * GIANT_SHARES, 32, GIANT_SHARES)]
    for rank in range(1, PAYERS):
        rate = RATES[rank % len(RATES)] * scale
        found.append(Allowed(f"payer-{rank}", 1 / (rank + 1) ** 0.7, rate, max(3.0, rate), 8))
    return found


def boundless(limited: Sequence[Allowed]) -> list[Allowed]:
    """The same payers without a limit that could be felt."""
    return [Allowed(each.payer_id, each.weight, 1e6, 1e4, 1024, each.shares) for each in limited]


def rules_text(found: Sequence[Allowed]) -> str:
    """The rules file that tells the service of them."""
    rows = []
    for each in found:
        budget = f"{{ a_second = {each.rate}, burst = {each.burst}, in_flight = {each.in_flight} }}"
        rows.append(f'[[payers]]\npayer = "{each.payer_id}"\nshares = {each.shares}\npoll = {budget}\n')
        rows.append(f"submit = {budget}\n")
    return "".join(rows)


def sizes(found: Sequence[Allowed], count: int) -> list[int]:
    """How many of so many requests are with each."""
    whole = sum(each.weight for each in found)
    return [max(1, round(count * each.weight / whole)) for each in found]


def pended(
    found: Sequence[Allowed], count: int, now: datetime, seed: int = 1
) -> Iterator[tuple[Authorization, Member]]:
    """About so many requests that were pended a day ago and are due to be asked about, the payers' mixed."""
    book = RuleBook.parse(rules_text(found))
    chance = random.Random(seed)
    owners = [each.payer_id for each, size in zip(found, sizes(found, count), strict=True) for _ in range(size)]
    chance.shuffle(owners)
    templates = {each.payer_id: one_pended(book, each.payer_id, now - timedelta(days=1)) for each in found}
    for number, payer_id in enumerate(owners):
        document, member = templates[payer_id]
        referral_id, patient_id, claim = (derived_id(kind, str(seed), str(number)) for kind in ("r", "p", "c"))
        id = authorization_id(referral_id)
        poll = now - timedelta(seconds=chance.uniform(0.0, 3600.0))
        yield (
            document.model_copy(
                update={
                    "id": id,
                    "referral_id": referral_id,
                    "patient_id": patient_id,
                    "share": book.share_of(payer_id, id),
                    "claim_id": claim,
                    "submissions": [document.submissions[0].model_copy(update={"id": claim})],
                    "timers": {"poll": poll, "deadline": now + _UNTIL_DECIDED},
                }
            ),
            member.model_copy(update={"id": patient_id}),
        )


def one_pended(book: RuleBook, payer_id: str, at: datetime) -> tuple[Authorization, Member]:
    """One request that a payer pended, and its member, by the service's own decisions."""
    patient_id = derived_id("patient", payer_id)
    event = AuthorizationRequested(
        referral_id=derived_id("referral", payer_id),
        patient_id=patient_id,
        coverage_id=derived_id("coverage", payer_id),
        payer_id=payer_id,
        service=_CONSULT,
        diagnoses=(Coding(system="http://hl7.org/fhir/sid/icd-10-cm", code="I10"),),
        quantity=4,
    )
    member = Member(
        id=patient_id,
        payer_id=payer_id,
        coverage_id=event.coverage_id,
        member_id="SBX-PEND-POLL-1",
        family="Canaria",
        given=("Tess",),
        birth_date=date(1980, 2, 29),
        gender="female",
    )
    facts = Facts({Ref(Member, patient_id): [member]})
    document = request(book, None, event, Facts(), at)
    document = consider_member(book, document, MemberKnown(patient_id=patient_id), facts, at)
    document = prepare_submit(document, Due("submit", at), facts, at)
    document.abandon("submit")
    document.rest("submit")
    item = ItemAnswer(sequence=1, code=ReviewAction.PENDED.value, action=ReviewAction.PENDED)
    answer = PayerAnswer(claims=(document.claim_id or "",), created=at, outcome="complete", items=(item,))
    document = settle_submit(document, Answered(answer), facts, at)
    document.recorded().clear()
    return document, member
