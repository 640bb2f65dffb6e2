"""The HTTP side of requirements: what a service needs before anything is ordered, and what payers said of it."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from services.prior_authorization.model import Member, RuleBook, Terms
from services.prior_authorization.model.items import ServiceKind
from services.prior_authorization.model.member import take_coverage
from services.prior_authorization.model.requirement import CoverageAnswer, TakeCoverage, standing_answer
from services.prior_authorization.model.rows import age_on
from services.prior_authorization.pas.coverage import read_coverage
from shared.contracts.base import Coding
from shared.kit.api import Call, CallContext, DocumentId, Reply, Routes
from shared.kit.auth import Role

ASKERS = frozenset({Role.COORDINATOR, Role.CLINICIAN, Role.SCHEDULER, Role.SERVICE})
TELLERS = frozenset({Role.COORDINATOR, Role.CLINICIAN, Role.SERVICE})

PayerId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.-]{1,64}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Place = Annotated[str, StringConstraints(pattern=r"^\d\d$")]


class Asked(BaseModel):
    """A prospective order. What is known of the patient here (plan, age, the payer's own word) is used where named."""

    model_config = ConfigDict(extra="forbid")

    payer_id: PayerId
    system: Text
    code: Text
    plan: Text | None = None
    age: Annotated[int, Field(ge=0, le=130)] | None = None
    place: Place | None = None
    kind: ServiceKind | None = None
    on: date | None = None
    expedited: bool = False
    patient_id: DocumentId | None = None
    coverage_id: DocumentId | None = None


class AnswerBody(BaseModel):
    """An order with a payer's coverage-information, or a CDS Hooks response that carries some."""

    model_config = ConfigDict(extra="forbid")

    payer_id: PayerId
    patient_id: DocumentId
    resource: dict[str, Any]


def routes(rules: RuleBook) -> Routes:
    """What is required, under these rules."""
    found = Routes(prefix="/requirements", tags=("requirements",))

    @found.get("", roles=ASKERS)
    async def ask(
        call: Call,
        payer_id: Annotated[str, Query(pattern=r"^[A-Za-z0-9.-]{1,64}$")],
        system: Annotated[str, Query(min_length=1, max_length=200)],
        code: Annotated[str, Query(min_length=1, max_length=200)],
        plan: Annotated[str | None, Query(max_length=200)] = None,
        place: Annotated[str | None, Query(pattern=r"^\d\d$")] = None,
        kind: ServiceKind | None = None,
        on: date | None = None,
        expedited: bool = False,
        patient_id: DocumentId | None = None,
        coverage_id: DocumentId | None = None,
    ) -> Reply:
        """Whether a service is covered and needs approval. An age is named by POST alone, or is the patient's."""
        return await answer(
            call,
            Asked(
                payer_id=payer_id,
                system=system,
                code=code,
                plan=plan,
                place=place,
                kind=kind,
                on=on,
                expedited=expedited,
                patient_id=patient_id,
                coverage_id=coverage_id,
            ),
        )

    @found.post("", roles=ASKERS)
    async def ask_in_full(body: Asked, call: Call) -> Reply:
        """The same question in a body."""
        return await answer(call, body)

    @found.post("/answers", roles=TELLERS)
    async def told(body: AnswerBody, call: Call) -> Reply:
        """What a payer answered (CRD). It prevails over the rules, until it expires, for what is not sent yet.

        422 with the places where it cannot be used; nothing is kept then.
        """
        read = read_coverage(body.resource, call.now.date())
        answers = tuple(
            CoverageAnswer(
                payer_id=body.payer_id,
                coverage_id=each.coverage_id,
                services=each.services,
                told=each.information,
                taken_at=call.now,
            )
            for each in read
        )
        return await call.put(
            Member, body.patient_id, TakeCoverage(answers=answers), take_coverage, answer=lambda _: {"taken": len(read)}
        )

    async def answer(call: CallContext, asked: Asked) -> Reply:
        on = asked.on or call.now.date()
        service = Coding(system=asked.system, code=asked.code)
        member = await _member(call, asked)
        age = asked.age if asked.age is not None else age_on(member.birth_date if member else None, on)
        plan = asked.plan or (member.plan if member is not None and member.payer_id == asked.payer_id else None)
        terms = rules.assess(
            asked.payer_id,
            plan,
            service,
            on=on,
            expedited=asked.expedited,
            kind=asked.kind,
            place=asked.place,
            age=age,
        )
        said = member.answers if member is not None else ()
        told = standing_answer(said, asked.payer_id, asked.coverage_id, service, on)
        return Reply(200, shown(terms if told is None else terms.with_answer(told)))

    return found


async def _member(call: CallContext, asked: Asked) -> Member | None:
    if asked.patient_id is None:
        return None
    found = await call.page(Member, {"_id": asked.patient_id}, limit=1)
    return found[0] if found else None


def shown(terms: Terms) -> dict[str, Any]:
    """What is required, by the names of CRD's coverage-information, and what follows."""
    told = terms.told
    which, _ = terms.course
    return {
        "covered": told.covered,
        "pa-needed": told.pa_needed,
        "doc-needed": list(told.doc_needed),
        "doc-purpose": list(told.doc_purpose),
        "info-needed": list(told.info_needed),
        "questionnaire": list(told.questionnaires),
        "reason": list(told.reasons),
        "satisfied-pa-id": told.satisfied_pa_id,
        "date": told.asserted_on.isoformat() if told.asserted_on else None,
        "expiry-date": told.expires_on.isoformat() if told.expires_on else None,
        "source": told.source,
        "why": terms.why,
        "course": which,
        "evidence": [need.model_dump(mode="json") for need in terms.needs],
        "limits": [
            {"from": clock.since.isoformat(), "decision": clock.limit, "appeal": clock.appeal, "basis": clock.basis}
            for clock in terms.clocks
        ],
    }
