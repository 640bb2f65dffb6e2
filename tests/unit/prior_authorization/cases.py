"""Synthetic authorizations for the tests: built through the real decisions, with facts as the kit would load them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

from services.prior_authorization.model import Authorization, Member, RuleBook, State, calling, opening
from services.prior_authorization.model.answers import Answered, ItemAnswer, PayerAnswer, Source
from services.prior_authorization.model.deciding import Effect, take
from services.prior_authorization.model.payer import Payer, payer_key
from services.prior_authorization.model.requirement import CoverageAnswer, CoverageInformation
from services.prior_authorization.service import SHIPPED_RULES
from shared.contracts.base import Coding, Event
from shared.contracts.intake import PersonChanged, PersonCoverage
from shared.contracts.prior_authorization import MemberKnown, MemberWanted, ReviewAction
from shared.contracts.referrals import AuthorizationRequested
from shared.kit.decisions import Due, Facts, Ref, Want
from shared.kit.document import Document, derived_id

NOW = datetime(2026, 3, 2, 15, tzinfo=UTC)
CPT = "http://www.ama-assn.org/go/cpt"
SNOMED = "http://snomed.info/sct"
CONSULT = Coding(system=CPT, code="99244")
OFFICE_VISIT = Coding(system=CPT, code="99213")
PAYER_ID = "acme-health"


def uid(*parts: str) -> str:
    """A UUID for a thing of these tests."""
    return derived_id("test", *parts)


REFERRAL, PATIENT, COVERAGE = uid("referral"), uid("patient"), uid("coverage")


def shipped() -> RuleBook:
    """The rules that come with the service."""
    return RuleBook.parse(SHIPPED_RULES.read_text(encoding="utf-8"))


def rules(*, appeal: str = "automatic", levels: int = 1) -> RuleBook:
    """Rules under which everything needs approval, on these terms of appeal."""
    return RuleBook.parse(f'[[payers]]\npayer = "*"\nappeal = "{appeal}"\nappeal_levels = {levels}\n')


def asked(**changes: object) -> AuthorizationRequested:
    """A referral's question."""
    fields: dict[str, object] = {
        "referral_id": REFERRAL,
        "patient_id": PATIENT,
        "coverage_id": COVERAGE,
        "payer_id": PAYER_ID,
        "service": CONSULT,
        "quantity": 4,
        **changes,
    }
    return AuthorizationRequested.model_validate(fields)


def person(member_id: str | None = "SBX-APPROVE-1", **changes: object) -> PersonChanged:
    """What intake says of the patient."""
    fields: dict[str, object] = {
        "patient_id": PATIENT,
        "family": "Canaria",
        "given": ("Tess",),
        "birth_date": date(1980, 2, 29),
        "gender": "female",
        "coverage": PersonCoverage(coverage_id=COVERAGE, payer_id=PAYER_ID, member_id=member_id),
        **changes,
    }
    return PersonChanged.model_validate(fields)


def member(**changes: object) -> Member:
    """The patient as the payer's member."""
    fields: dict[str, object] = {
        "id": PATIENT,
        "payer_id": PAYER_ID,
        "coverage_id": COVERAGE,
        "member_id": "SBX-APPROVE-1",
        "family": "Canaria",
        "given": ("Tess",),
        "birth_date": date(1980, 2, 29),
        "gender": "female",
        **changes,
    }
    return Member.model_validate(fields)


def told(pa_needed: str | None = "auth-needed", **changes: object) -> CoverageAnswer:
    """What the payer says it requires for the patient's consultation (CRD)."""
    fields: dict[str, object] = {"pa_needed": pa_needed, "source": "payer", "why": "payer:A-1", **changes}
    if pa_needed == "satisfied":
        fields.setdefault("satisfied_pa_id", "GOLD-1")
    information = CoverageInformation.model_validate(fields)
    return CoverageAnswer(payer_id=PAYER_ID, coverage_id=COVERAGE, services=(CONSULT,), told=information, taken_at=NOW)


NOT_COVERED = told(None, covered="not-covered")
WITH_FORM = told(
    doc_needed=("clinical",), doc_purpose=("withpa",), questionnaires=("http://acme.test/Questionnaire/q",)
)


def knowing(document: Authorization, *answers: CoverageAnswer, book: RuleBook | None = None) -> Authorization:
    """The member is known, with what the payer said."""
    event = MemberKnown(patient_id=PATIENT)
    return opening.consider_member(book or rules(), document, event, facts(member(answers=answers)), NOW)


def facts(*documents: Document) -> Facts:
    """These documents, and the absence of the others that decisions ask for."""
    loaded: dict[Want, list[Document]] = {Ref(Member, PATIENT): [], Ref(Payer, payer_key(PAYER_ID)): []}
    loaded.update({Ref(type(document), document.id): [document] for document in documents})
    return Facts(loaded)


def due(timer: str, at: datetime = NOW) -> Due:
    """A timer that fired."""
    return Due(timer, at)


def events(document: Document) -> list[str]:
    """The types of the events recorded so far."""
    return [event.type for event in document.recorded()]


def last(document: Document) -> Event:
    """The event recorded last."""
    return document.recorded()[-1]


def opened(book: RuleBook | None = None, **changes: object) -> Authorization:
    """An authorization that waits for its member."""
    return opening.request(book or rules(), None, asked(**changes), facts(), NOW)


def submitting(book: RuleBook | None = None, **changes: object) -> Authorization:
    """An authorization about to be submitted."""
    document = opened(book, **changes)
    wish = MemberWanted(authorization_id=document.id, patient_id=PATIENT)
    return opening.consider_member(book or rules(), document, wish, facts(member()), NOW)


def sent(book: RuleBook | None = None, at: datetime = NOW, **changes: object) -> Authorization:
    """An authorization whose claim is on its way."""
    return calling.prepare_submit(submitting(book, **changes), due("submit"), facts(member()), at)


def land(document: Authorization, call: str) -> None:
    """End an attempt as the kit does before it asks ``settle``."""
    document.abandon(call)
    document.rest(call)


@dataclass(frozen=True)
class Word:
    """What a payer says, as tests tell it."""

    action: ReviewAction
    number: str | None = None
    units: int | None = None
    reasons: tuple[str, ...] = ()


A1 = Word(ReviewAction.CERTIFIED, "AUTH-1", 4)
A1_OTHER = Word(ReviewAction.CERTIFIED, "AUTH-2", 4)
A2 = Word(ReviewAction.PARTIAL, "AUTH-3", 2)
A3 = Word(ReviewAction.NOT_CERTIFIED, reasons=("82",))
A3_OTHER = Word(ReviewAction.NOT_CERTIFIED, reasons=("0M",))
A3_DATA = Word(ReviewAction.NOT_CERTIFIED, reasons=("0P",))
A4 = Word(ReviewAction.PENDED)
A6 = Word(ReviewAction.MODIFIED, "AUTH-6", 1)
C = Word(ReviewAction.CANCELLED)
CT = Word(ReviewAction.CONTACT_PAYER)
NA = Word(ReviewAction.NO_ACTION_REQUIRED)
WORDS = (A1, A1_OTHER, A2, A3, A3_OTHER, A4, A6, C, CT, NA)


def answer(claim: str | None, word: Word, created: datetime = NOW, **changes: object) -> PayerAnswer:
    """An answer of the payer on a claim."""
    granted = word.number is not None
    item = ItemAnswer(
        sequence=1,
        code=word.action.value,
        action=word.action,
        number=word.number,
        units=word.units,
        reasons=word.reasons,
        valid_from=date(2026, 3, 2) if granted else None,
        valid_to=date(2026, 5, 31) if granted else None,
    )
    base = PayerAnswer(claims=(claim or "",), created=created, outcome="complete", items=(item,))
    return replace(base, **changes)  # type: ignore[arg-type]


def hear(document: Authorization, word: Word, minutes: float = 0, *, claim: str | None = None) -> Effect:
    """The payer notifies us of a word of its own time, ``minutes`` after NOW."""
    at = NOW + timedelta(minutes=minutes)
    return take(document, answer(claim or document.claim_id, word, at), Source.NOTIFICATION, NOW)


def answered(document: Authorization, word: Word, book: RuleBook | None = None) -> Authorization:
    """An authorization whose claim was answered at once."""
    land(document, "submit")
    told = answer(document.claim_id, word, NOW)
    (said,) = told.items
    each = tuple(replace(said, sequence=item.sequence) for item in document.items)
    outcome = Answered(replace(told, items=each))
    return calling.settle_submit(document, outcome, facts(member()), NOW)


def at_state(state: State) -> Authorization:
    """An authorization in a state, come there the shortest way."""
    return _WAYS[state]()


def _spoken(word: Word, book: RuleBook | None = None) -> Authorization:
    return answered(sent(book), word)


def _cancelling() -> Authorization:
    return opening.call_off(_spoken(A1), "test", NOW)


def _withdrawn() -> Authorization:
    return opening.call_off(opened(), "test", NOW)


_WAYS = {
    State.AWAITING_MEMBER: opened,
    State.AWAITING_CHOICE: lambda: knowing(opened(), NOT_COVERED),
    State.AWAITING_EVIDENCE: lambda: knowing(opened(), WITH_FORM),
    State.SUBMITTING: submitting,
    State.PENDED: lambda: _spoken(A4),
    State.CONTACT_PAYER: lambda: _spoken(CT),
    State.APPROVED: lambda: _spoken(A1),
    State.NO_ACTION: lambda: _spoken(NA),
    State.DENIED: lambda: _spoken(A3, rules(appeal="by-person")),
    State.APPEALING: lambda: _spoken(A3),
    State.DENIED_FINAL: lambda: _spoken(A3, rules(appeal="none")),
    State.CANCELLED: lambda: _spoken(C),
    State.CANCELLING: _cancelling,
    State.NOT_REQUIRED: lambda: opened(shipped(), service=OFFICE_VISIT),
    State.WITHDRAWN: _withdrawn,
}
