"""An authorization as FHIR R4 for readers at the edge: what was asked (Claim), what the payer said (ClaimResponse), and
who owes the next step (Task). One of each, all under the authorization's id: ids and codes, nothing of the person."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from typing import NamedTuple

from services.prior_authorization.model import Authorization, State
from services.prior_authorization.model.answers import Grant
from services.prior_authorization.model.items import Item
from services.prior_authorization.model.wanted import Wanted
from services.prior_authorization.pas import codes
from services.prior_authorization.pas.fhir import Resource, concept, concept_of
from shared.contracts.prior_authorization import ReviewAction
from shared.kit.shown import instant

PAS_CODES = "http://hl7.org/fhir/us/davinci-pas/CodeSystem/PASTempCodes"
STEP = "urn:carerelay:authorization-step"
"""Codes of the steps that a wait is for: the reason of the wait."""

STATE = "urn:carerelay:authorization-state"
OWNER = "urn:carerelay:role"

_PENDING = frozenset({State.PENDED, State.APPEALING, State.CONTACT_PAYER})
_CALLED_OFF = frozenset({State.WITHDRAWN, State.CANCELLED, State.CANCELLING})


class Word(NamedTuple):
    """What the payer says of one item."""

    action: ReviewAction | None
    number: str | None = None
    starts: date | None = None
    ends: date | None = None
    units: int | None = None
    reasons: tuple[str, ...] = ()
    granted: tuple[Grant, ...] = ()


# -- what was asked -------------------------------------------------------------------------------------------------


def claim(document: Authorization, npi: str) -> Resource:
    """What is asked of the payer, as it stands; ``draft`` before it was sent. ``npi`` is who asks."""
    newest = document.newest
    status = "cancelled" if document.state in _CALLED_OFF else "draft" if newest is None else "active"
    asked: Resource = {
        "resourceType": "Claim",
        "id": document.id,
        "meta": _meta(document),
        "status": status,
        "type": concept(codes.THO + "claim-type", "professional"),
        "use": "preauthorization",
        "patient": _patient(document),
        "created": instant(newest.opened_at if newest else document.requested_at),
        "insurer": _insurer(document),
        "provider": {"type": "Organization", "identifier": {"system": codes.NPI, "value": npi}},
        "priority": concept(codes.THO + "processpriority", "stat" if document.expedited else "normal"),
        "insurance": [{"sequence": 1, "focal": True, "coverage": {"reference": f"Coverage/{document.coverage_id}"}}],
        "item": [_asked(item) for item in document.items],
    }
    if document.submissions:
        asked["identifier"] = [_identifier(sent.id) for sent in reversed(document.submissions)]
    if newest is not None and newest.prior is not None:
        asked["related"] = [{"claim": {"type": "Claim", "identifier": _identifier(newest.prior)}}]
    if document.diagnoses:
        asked["diagnosis"] = [
            {"sequence": number, "diagnosisCodeableConcept": concept_of(coding)}
            for number, coding in enumerate(document.diagnoses, 1)
        ]
    return asked


def _asked(item: Item) -> Resource:
    asked: Resource = {
        "sequence": item.sequence,
        "productOrService": concept_of(item.service),
        "quantity": {"value": item.quantity},
    }
    if item.modifiers:
        asked["modifier"] = [concept_of(modifier) for modifier in item.modifiers]
    if item.place is not None:
        asked["locationCodeableConcept"] = concept(codes.PLACE_OF_SERVICE, item.place)
    if period := _period(item.starts, item.ends):
        asked["servicedPeriod"] = period
    if item.diagnoses:
        asked["diagnosisSequence"] = list(item.diagnoses)
    if item.dropped:
        asked["modifierExtension"] = [{"url": codes.INFO_CANCELLED, "valueBoolean": True}]
    return asked


# -- what the payer said --------------------------------------------------------------------------------------------


def claim_response(document: Authorization) -> Resource:
    """What the payer said last, as PAS says it, item by item; ``queued`` where it said nothing yet."""
    ruling = document.current
    newest = document.newest
    response: Resource = {
        "resourceType": "ClaimResponse",
        "id": document.id,
        "meta": _meta(document),
        "status": "cancelled" if document.state is State.WITHDRAWN else "active",
        "type": concept(codes.THO + "claim-type", "professional"),
        "use": "preauthorization",
        "patient": _patient(document),
        "created": instant(ruling.decided_at if ruling else document.requested_at),
        "insurer": _insurer(document),
        "outcome": "complete" if ruling or document.state in _PENDING else "queued",
        "item": [_answered(document, item) for item in document.items],
        "request": {"reference": f"Claim/{document.id}"},
    }
    if added := [each for item in document.items for each in _added(item, word_of(document, item))]:
        response["addItem"] = added
    if newest is not None:
        response["identifier"] = [_identifier(newest.id)]
        response["request"] = {"reference": f"Claim/{document.id}", "identifier": _identifier(newest.id)}
    if ruling is not None and ruling.number is not None:
        response["preAuthRef"] = ruling.number
        if period := _period(ruling.valid_from, ruling.valid_to):
            response["preAuthPeriod"] = period
    return response


def _answered(document: Authorization, item: Item) -> Resource:
    word, ruling = word_of(document, item), document.current
    extensions: list[Resource] = []
    if ruling is not None and ruling.issued is not None:
        extensions.append({"url": codes.ITEM_ISSUE_DATE, "valueDate": ruling.issued.isoformat()})
    if period := _period(word.starts, word.ends):
        extensions.append({"url": codes.ITEM_PERIOD, "valuePeriod": period})
    if word.units is not None:
        quantity: Resource = {"url": "quantity", "valueQuantity": {"value": word.units}}
        extensions.append({"url": codes.ITEM_DETAIL, "extension": [quantity]})
    answered: Resource = {"extension": extensions} if extensions else {}
    return {**answered, "itemSequence": item.sequence, "adjudication": [_adjudication(word)]}


def word_of(document: Authorization, item: Item) -> Word:
    """What holds of an item: the payer's word on it, or what the state says while it has given none."""
    ruling = document.current
    if ruling is None:
        return Word(_unruled(document))
    said = next((each for each in ruling.items if each.sequence == item.sequence), None)
    if said is not None:
        return Word(said.action, said.number, said.valid_from, said.valid_to, said.units, said.reasons, said.granted)
    if ruling.items:
        return Word(None)  # The payer did not speak of this item.
    units = ruling.units if len(document.items) == 1 else None
    return Word(ruling.action, ruling.number, ruling.valid_from, ruling.valid_to, units, ruling.reasons)


def _added(item: Item, word: Word) -> list[Resource]:
    """What is granted in an item's place, where that is something else."""
    return [
        {
            "itemSequence": [item.sequence],
            "productOrService": concept_of(grant.service or item.service),
            **({} if grant.units is None else {"quantity": {"value": grant.units}}),
            "adjudication": [_adjudication(word)],
        }
        for grant in word.granted
    ]


def _adjudication(word: Word) -> Resource:
    adjudication: Resource = {"category": concept(codes.THO + "adjudication", "submitted")}
    if word.action is None:
        return adjudication
    parts: list[Resource] = []
    if word.number is not None:
        parts.append({"url": "number", "valueString": word.number})
    for reason in word.reasons:
        parts.append({"url": "reasonCode", "valueCodeableConcept": concept(codes.X12_REASON, reason)})
    action = concept(codes.X12_REVIEW_ACTION, word.action)
    parts.append({"url": codes.REVIEW_ACTION_CODE, "valueCodeableConcept": action})
    return {**adjudication, "extension": [{"url": codes.REVIEW_ACTION, "extension": parts}]}


def _unruled(document: Authorization) -> ReviewAction | None:
    """The action that holds while nothing is decided: pended, or none required by the rules."""
    if document.state is State.NOT_REQUIRED:
        return ReviewAction.NO_ACTION_REQUIRED
    return ReviewAction.PENDED if document.state in _PENDING else None


# -- who owes the next step -----------------------------------------------------------------------------------------


class Asker(NamedTuple):
    """Who asks payers: the organization's NPI, and where payers are (``{payer_url}/{payer_id}/fhir``)."""

    npi: str
    payer_url: str

    def endpoint(self, payer_id: str) -> str:
        """A payer's FHIR base."""
        return f"{self.payer_url.rstrip('/')}/{payer_id}/fhir"


def task(document: Authorization, asker: Asker) -> Resource:
    """The step that is waited for: whose it is, since when and until when; completed where none is.

    Where the payer asks for more, or evidence that its rules want is missing, it is PAS's request for attachments
    (profile-task): what is wanted, of which item, and where the payer takes it.
    """
    wait = document.wait
    inputs = _inputs(document)
    step: Resource = {
        "resourceType": "Task",
        "id": document.id,
        "meta": _meta(document),
        "identifier": [{"system": "urn:carerelay:authorization", "value": document.id}, *_tracking(document)],
        "status": _task_status(document),
        "businessStatus": concept(STATE, document.state),
        "intent": "order",
        "priority": "stat" if document.expedited else "routine",
        "code": concept(STEP, wait.reason if wait else "none"),
        "focus": {"reference": f"Claim/{document.id}"},
        "for": _patient(document),
        "authoredOn": instant(wait.since if wait else document.requested_at),
        "reasonCode": concept(PAS_CODES, "priorAuthorization"),
        "reasonReference": {"reference": f"Claim/{document.id}"},
    }
    if wait is not None:
        payers = wait.owner == "payer"
        step["owner"] = _insurer(document) if payers else {"identifier": {"system": OWNER, "value": wait.owner}}
        step["restriction"] = {"period": {"end": instant(wait.deadline)}}
    if inputs:
        forms = all(_input_type(each) == "questionnaire-context" for each in inputs)
        url = next((each.url for each in document.asked_of_us if each.url), asker.endpoint(document.payer_id))
        step |= {
            "meta": {**_meta(document), "profile": [codes.TASK]},
            "code": concept(PAS_CODES, "attachment-request-questionnaire" if forms else "attachment-request-code"),
            "requester": _insurer(document),
            "owner": {"identifier": {"system": codes.NPI, "value": asker.npi}},
            "input": [{"type": concept(PAS_CODES, "payer-url"), "valueUrl": url}, *inputs],
        }
    return step


def _task_status(document: Authorization) -> str:
    if document.wait is not None:
        return "in-progress" if document.wait.owner == "payer" else "requested"
    return "cancelled" if document.state in _CALLED_OFF else "completed"


def _tracking(document: Authorization) -> list[Resource]:
    """The numbers under which the payer looks for what it asked for."""
    system = f"{codes.PAYER_SYSTEM}:{document.payer_id}:tracking"
    numbers = dict.fromkeys(each.control for each in document.asked_of_us if each.control is not None)
    return [{"system": system, "value": number} for number in numbers]


def _inputs(document: Authorization) -> list[Resource]:
    """What is wanted: by the payer, else by its rules before anything is sent. What it asked for unreadably is none."""
    first = document.items[0].sequence
    asked = [each for wanted in document.asked_of_us for each in _asked_inputs(wanted, first)]
    if asked or document.state is not State.AWAITING_EVIDENCE:
        return asked
    named = [type for need in document.wanting for type in need.types or (need.name,)]
    return [_input("attachments-needed", first, concept(codes.LOINC, type)) for type in named]


def _asked_inputs(wanted: Wanted, first: int) -> list[Resource]:
    item = wanted.item or first
    if wanted.questionnaire is not None:
        return [_input("questionnaire-context", item, wanted.questionnaire)]
    found = [_input("attachments-needed", item, concept_of(coding)) for coding in wanted.codes]
    modifiers = [
        {"url": codes.CONTENT_MODIFIER, "valueCodeableConcept": concept(codes.LOINC, code)} for code in wanted.modifiers
    ]
    return [{**each, "extension": [_line(item), *modifiers]} for each in found] if modifiers else found


def _input(kind: str, item: int, value: Resource | str) -> Resource:
    given: Resource = {"valueString": value} if isinstance(value, str) else {"valueCodeableConcept": value}
    return {"extension": [_line(item)], "type": concept(PAS_CODES, kind), **given}


def _line(item: int) -> Resource:
    return {"url": codes.SERVICE_LINE, "valuePositiveInt": item}


def _input_type(given: Resource) -> str:
    return "questionnaire-context" if "valueString" in given else "attachments-needed"


# -- bundles --------------------------------------------------------------------------------------------------------


def searchset(path: str, found: Iterable[Resource], links: Mapping[str, str]) -> Resource:
    """A page of a search: what matched, and where it and the next page stand. ``path`` is the server's base."""
    entries = [
        {
            "fullUrl": f"{path}/{resource['resourceType']}/{resource['id']}",
            "resource": resource,
            "search": {"mode": "match"},
        }
        for resource in found
    ]
    bundle: Resource = {
        "resourceType": "Bundle",
        "type": "searchset",
        "link": [{"relation": relation, "url": url} for relation, url in links.items()],
    }
    return {**bundle, "entry": entries} if entries else bundle


def outcome(code: str, expression: str, text: str) -> Resource:
    """An OperationOutcome of one error; ``text`` is ours, never the input's."""
    issue = {"severity": "error", "code": code, "details": {"text": text}, "expression": [expression]}
    return {"resourceType": "OperationOutcome", "issue": [issue]}


def _meta(document: Authorization) -> Resource:
    changed = {"lastUpdated": instant(document.changed_at)} if document.changed_at is not None else {}
    return {"versionId": str(document.version), **changed}


def _patient(document: Authorization) -> Resource:
    return {"reference": f"Patient/{document.patient_id}"}


def _insurer(document: Authorization) -> Resource:
    return {"type": "Organization", "identifier": {"system": codes.PAYER_SYSTEM, "value": document.payer_id}}


def _identifier(id: str) -> Resource:
    return {"system": codes.CLAIM_SYSTEM, "value": id}


def _period(starts: date | None, ends: date | None) -> Resource:
    days = {"start": starts, "end": ends}
    return {name: day.isoformat() for name, day in days.items() if day is not None}
