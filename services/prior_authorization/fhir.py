"""An authorization as a FHIR R4 ClaimResponse, for readers at the edge: ids and codes, nothing of the person."""

from __future__ import annotations

from services.prior_authorization.model import Authorization, State
from services.prior_authorization.model.answers import Ruling
from services.prior_authorization.model.authorization import ITEM
from services.prior_authorization.pas import codes
from shared.contracts.prior_authorization import ReviewAction
from shared.kit.shown import instant

Resource = dict[str, object]

_PENDING = frozenset({State.PENDED, State.APPEALING, State.CONTACT_PAYER})


def claim_response(document: Authorization) -> Resource:
    """What the payer said last, as PAS says it; ``queued`` and without items where it said nothing yet."""
    ruling = document.current
    newest = document.newest
    response: Resource = {
        "resourceType": "ClaimResponse",
        "id": document.id,
        "meta": {"versionId": str(document.version)},
        "status": "cancelled" if document.state is State.WITHDRAWN else "active",
        "type": _concept(codes.THO + "claim-type", "professional"),
        "use": "preauthorization",
        "patient": {"reference": f"Patient/{document.patient_id}"},
        "created": instant(ruling.decided_at if ruling else document.requested_at),
        "insurer": {"type": "Organization", "identifier": {"system": codes.PAYER_SYSTEM, "value": document.payer_id}},
        "outcome": "complete" if ruling or document.state in _PENDING else "queued",
        "item": [_item(document)],
    }
    if newest is not None:
        response["identifier"] = [{"system": codes.CLAIM_SYSTEM, "value": newest.id}]
        claim = {"type": "Claim", "identifier": {"system": codes.CLAIM_SYSTEM, "value": newest.id}}
        response["request"] = claim
    if ruling is not None and ruling.number is not None:
        response["preAuthRef"] = ruling.number
        period = _period(ruling)
        if period:
            response["preAuthPeriod"] = period
    return response


def _item(document: Authorization) -> Resource:
    extensions: list[Resource] = []
    ruling = document.current
    if ruling is not None and ruling.issued is not None:
        extensions.append({"url": codes.ITEM_ISSUE_DATE, "valueDate": ruling.issued.isoformat()})
    if ruling is not None and (period := _period(ruling)):
        extensions.append({"url": codes.ITEM_PERIOD, "valuePeriod": period})
    if ruling is not None and ruling.units is not None:
        quantity: Resource = {"url": "quantity", "valueQuantity": {"value": ruling.units}}
        extensions.append({"url": codes.ITEM_DETAIL, "extension": [quantity]})
    item: Resource = {"extension": extensions} if extensions else {}
    return {**item, "itemSequence": ITEM, "adjudication": [_adjudication(document)]}


def _adjudication(document: Authorization) -> Resource:
    adjudication: Resource = {"category": _concept(codes.THO + "adjudication", "submitted")}
    action = document.current.action if document.current else _unruled(document)
    if action is None:
        return adjudication
    parts: list[Resource] = []
    if document.current is not None and document.current.number is not None:
        parts.append({"url": "number", "valueString": document.current.number})
    for reason in document.current.reasons if document.current else ():
        parts.append({"url": "reasonCode", "valueCodeableConcept": _concept(codes.X12_REASON, reason)})
    parts.append({"url": codes.REVIEW_ACTION_CODE, "valueCodeableConcept": _concept(codes.X12_REVIEW_ACTION, action)})
    return {**adjudication, "extension": [{"url": codes.REVIEW_ACTION, "extension": parts}]}


def _unruled(document: Authorization) -> ReviewAction | None:
    """The action that holds while nothing is decided: pended, or none required by the rules."""
    if document.state is State.NOT_REQUIRED:
        return ReviewAction.NO_ACTION_REQUIRED
    return ReviewAction.PENDED if document.state in _PENDING else None


def _period(ruling: Ruling) -> Resource:
    days = {"start": ruling.valid_from, "end": ruling.valid_to}
    return {name: day.isoformat() for name, day in days.items() if day is not None}


def _concept(system: str, code: str) -> Resource:
    return {"coding": [{"system": system, "code": str(code)}]}
