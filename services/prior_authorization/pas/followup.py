"""What a payer asks for before it decides: the CommunicationRequests that a ClaimResponse refers to, and PAS Tasks.

Reads tolerantly: what is asked for in a form that cannot be read is still an ask, of something unknown, for a person to
look into; it never keeps a decision from being read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from services.prior_authorization.model.answers import AskAnswer
from services.prior_authorization.pas import codes
from services.prior_authorization.pas.entries import Entries, leads_to
from shared.contracts.base import Coding
from shared.kit.errors import Invalid
from shared.kit.fhir import Element

_OVER = frozenset({"completed", "cancelled", "rejected", "failed", "entered-in-error", "revoked"})
"""Tasks and CommunicationRequests that ask for nothing any more (FHIR R4)."""

_QUESTIONNAIRES = ("questionnaire-context", "questionnaires-needed")
"""Inputs that name a questionnaire: by DTR's context since PAS 2.1, before that the questionnaire itself."""


def asked_for(response: Element, around: Entries = ()) -> tuple[AskAnswer, ...]:
    """What the payer asks for with a ClaimResponse, in the resources that came with it or are contained; each once."""
    alone = sum(1 for _, resource in around if resource.type == "ClaimResponse") <= 1
    found: list[AskAnswer] = []
    listed = list(around)
    try:
        listed += [(f"#{inner.id}", inner) for inner in response.all("contained") if inner.id is not None]
        named = tuple(_literals(response.all("communicationRequest")))
        request = response.one("request")
        claim = request.text("reference") if request is not None else None
    except Invalid:
        return (AskAnswer(),)
    for reference in named:
        if not any(leads_to(reference, url, each) for url, each in listed if each.type == "CommunicationRequest"):
            found.append(AskAnswer())
    for url, resource in listed:
        if resource.type == "CommunicationRequest":
            ours = alone or any(leads_to(reference, url, resource) for reference in named)
        else:
            ours = resource.type == "Task" and (alone or _is_about(resource, claim))
        if ours:
            found += _read(resource)
    return tuple(dict.fromkeys(found))


def _literals(references: Iterable[Element]) -> Iterator[str]:
    for reference in references:
        literal = reference.text("reference")
        if literal is not None:
            yield literal


def _is_about(task: Element, claim: str | None) -> bool:
    try:
        reason = task.one("reasonReference")
        return claim is not None and reason is not None and reason.text("reference") == claim
    except Invalid:
        return False


def _read(resource: Element) -> Sequence[AskAnswer]:
    try:
        if resource.text("status") in _OVER:
            return ()
        found = _of_task(resource) if resource.type == "Task" else _of_communication(resource)
    except Invalid:
        return (AskAnswer(),)
    return found or (AskAnswer(),)


def _of_communication(asked: Element) -> tuple[AskAnswer, ...]:
    """A PAS CommunicationRequest: X12 755 in its category, LOINC in its payload, one service line."""
    wanted = tuple(coding for coding in asked.concepts("category") if coding.system == codes.X12_REPORT_TYPE)
    modifiers: list[str] = []
    for payload in asked.all("payload"):
        text = payload.text("contentString")
        wanted = (*wanted, Coding(system=codes.LOINC, code=text)) if text is not None else wanted
        modifiers += _loinc(payload.extensions(codes.CONTENT_MODIFIER))
    period = asked.one("occurrencePeriod")
    until = period.moment("end") if period is not None else asked.moment("occurrenceDateTime")
    control = next((value for _, value in asked.identifiers()), None)
    ask = AskAnswer(codes=wanted, item=_line(asked), modifiers=tuple(modifiers), control=control, until=until)
    return (ask,) if wanted else ()


def _of_task(task: Element) -> tuple[AskAnswer, ...]:
    """A PAS Task: each input that names an attachment or a questionnaire is an ask."""
    period = (restriction := task.one("restriction")) and restriction.one("period")
    until = period.moment("end") if period else None
    control = next((value for _, value in task.identifiers()), None)
    url: str | None = None
    found: list[AskAnswer] = []
    for given in task.all("input"):
        said = {coding.code for coding in given.concept("type")}
        if "payer-url" in said:
            url = given.text("valueUrl")
        elif "attachments-needed" in said:
            wanted = given.concept("valueCodeableConcept")
            modifiers = tuple(_loinc(given.extensions(codes.CONTENT_MODIFIER)))
            found.append(_ask(given, control, until, codes=wanted, modifiers=modifiers))
        elif said.intersection(_QUESTIONNAIRES):
            form = (Coding(system=codes.LOINC, code=codes.QUESTIONNAIRE_FORM),)
            found.append(replace(_ask(given, control, until, codes=form), questionnaire=_questionnaire(given)))
    return tuple(replace(ask, url=url) for ask in found)


def _ask(
    given: Element,
    control: str | None,
    until: datetime | None,
    *,
    codes: tuple[Coding, ...],
    modifiers: tuple[str, ...] = (),
) -> AskAnswer:
    return AskAnswer(codes=codes, item=_line(given), modifiers=modifiers, control=control, until=until)


def _questionnaire(given: Element) -> str | None:
    identifier = given.one("valueIdentifier")
    named = identifier.text("value") if identifier is not None else None
    return given.text("valueString") or given.text("valueCanonical") or named


def _line(holder: Element) -> int | None:
    """The number of the item it is about; None for the claim as a whole."""
    for url in (codes.SERVICE_LINE, codes.SERVICE_LINE_BEFORE):
        extension = holder.extension(url)
        if extension is not None:
            return extension.whole("valuePositiveInt") or extension.whole("valueInteger")
    return None


def _loinc(modifiers: Iterable[Element]) -> Iterator[str]:
    for modifier in modifiers:
        for coding in modifier.concept("valueCodeableConcept"):
            if coding.system == codes.LOINC:
                yield coding.code
