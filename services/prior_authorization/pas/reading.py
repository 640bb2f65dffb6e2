"""Reading what payers send: PAS response Bundles, inquiry answers, subscription notifications.

Reads, and does not judge: what an answer means for an authorization is decided in ``model.answers``. Raises Invalid
with paths, never with values, for what is not a PAS answer at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum

from services.prior_authorization.model.answers import ErrorAnswer, ItemAnswer, PayerAnswer
from services.prior_authorization.pas import codes
from shared.contracts.base import Coding
from shared.contracts.prior_authorization import ReviewAction
from shared.kit.errors import Flaw, Invalid
from shared.kit.fhir import Element, ReferenceForm, element

_CODE = re.compile(r"[A-Za-z0-9.-]{1,20}")
_UUID_URN = "urn:uuid:"


class NotificationKind(StrEnum):
    """R4B backport, SubscriptionStatus.type."""

    HANDSHAKE = "handshake"
    HEARTBEAT = "heartbeat"
    EVENT = "event-notification"
    QUERY_STATUS = "query-status"
    QUERY_EVENT = "query-event"


@dataclass(frozen=True, slots=True)
class Notification:
    """A subscription notification. ``active`` is False where the payer says that it no longer notifies."""

    kind: NotificationKind
    active: bool
    answers: tuple[PayerAnswer, ...]


def read_response(raw: object) -> PayerAnswer:
    """The answer to $submit: a PAS response Bundle with one ClaimResponse. Raises Invalid."""
    answers = _bundle_answers(_object(raw, "Bundle"), "Bundle")
    if len(answers) != 1:
        raise _invalid("Bundle.entry", "must hold exactly one ClaimResponse")
    return answers[0]


def read_inquiry(raw: object) -> tuple[PayerAnswer, ...]:
    """The answer to $inquire: a response Bundle, or Parameters with one Bundle per ``return``. Raises Invalid."""
    resource = _object(raw, "Resource")
    if resource.get("resourceType") == "Parameters":
        return _parameters_answers(resource)
    return _bundle_answers(_object(raw, "Bundle"), "Bundle")


def read_notification(raw: object) -> Notification:
    """A subscription notification Bundle (type history, R4B backport, full resource). Raises Invalid."""
    bundle = _object(raw, "Bundle")
    if bundle.get("resourceType") != "Bundle":
        raise _invalid("Bundle.resourceType", "must be Bundle")
    if bundle.get("type") != "history":
        raise _invalid("Bundle.type", "must be a Bundle of type history")
    resources = _resources(bundle, "Bundle")
    status = resources[0] if resources else None
    if status is None or status.raw.get("resourceType") != "Parameters":
        raise _invalid("Bundle.entry[0].resource", "must be the Parameters of the subscription's status")
    parameters = {item.text("name"): item for item in status.all("parameter")}
    kind = _notification_kind(status, parameters)
    state = parameters["status"].text("valueCode") if "status" in parameters else None
    answers: list[PayerAnswer] = []
    for resource in resources[1:]:
        answers.extend(_focus_answers(resource))
    if kind is NotificationKind.EVENT and not answers:
        raise _invalid("Bundle.entry", "must hold the ClaimResponse that it notifies of")
    return Notification(kind, state in (None, "active", "requested"), tuple(answers))


def read_answers(raw: object) -> tuple[PayerAnswer, ...]:
    """Every answer in a response, inquiry answer, notification or bare ClaimResponse. Raises Invalid."""
    resource = _object(raw, "Resource")
    if resource.get("resourceType") == "ClaimResponse":
        return (read_claim_response(resource, "ClaimResponse"),)
    if resource.get("resourceType") == "Bundle" and resource.get("type") == "history":
        return read_notification(resource).answers
    answers = read_inquiry(resource)
    if not answers:
        raise _invalid("Bundle.entry", "must hold a ClaimResponse")
    return answers


def read_claim_response(raw: Mapping[str, object], at: str) -> PayerAnswer:
    """One ClaimResponse standing at the path ``at``. Raises Invalid where it is not valid FHIR R4."""
    response = element(raw, "ClaimResponse", at=at)
    if response.text("use") != "preauthorization":
        raise response.flaw("use", "must be preauthorization")
    created = response.moment("created")
    if created is None:
        raise response.flaw("created", "is required")
    return PayerAnswer(
        claims=_claims(response),
        created=created,
        outcome=response.text("outcome") or "",
        items=_items(response),
        errors=tuple(_error(item) for item in response.all("error")),
    )


# -- bundles --------------------------------------------------------------------------------------------------------


def _bundle_answers(bundle: Mapping[str, object], at: str) -> tuple[PayerAnswer, ...]:
    if bundle.get("resourceType") != "Bundle":
        raise _invalid(f"{at}.resourceType", "must be Bundle")
    if bundle.get("type") != "collection":
        raise _invalid(f"{at}.type", "must be collection")
    resources = _resources(bundle, at)
    if not resources:
        raise _invalid(f"{at}.entry", "must hold the answer")
    return tuple(
        read_claim_response(resource.raw, resource.path)
        for resource in resources
        if resource.raw.get("resourceType") == "ClaimResponse"
    )


def _parameters_answers(raw: Mapping[str, object]) -> tuple[PayerAnswer, ...]:
    answers: list[PayerAnswer] = []
    for parameter in Element("Parameters", raw).all("parameter"):
        resource = parameter.one("resource")
        if parameter.text("name") == "return" and resource is not None:
            answers.extend(_bundle_answers(resource.raw, resource.path))
    return tuple(answers)


def _focus_answers(resource: Element) -> Iterable[PayerAnswer]:
    type_ = resource.raw.get("resourceType")
    if type_ == "Bundle":
        return _bundle_answers(resource.raw, resource.path)
    return (read_claim_response(resource.raw, resource.path),) if type_ == "ClaimResponse" else ()


def _resources(bundle: Mapping[str, object], at: str) -> tuple[Element, ...]:
    entries = Element(at, bundle).all("entry")
    found = (entry.one("resource") for entry in entries)
    return tuple(Element(resource.path, resource.raw) for resource in found if resource is not None)


def _notification_kind(status: Element, parameters: Mapping[str | None, Element]) -> NotificationKind:
    named = parameters["type"].text("valueCode") if "type" in parameters else None
    try:
        return NotificationKind(named or "")
    except ValueError:
        raise status.flaw("parameter[name=type].valueCode", "must be a type of subscription notification") from None


# -- a ClaimResponse ------------------------------------------------------------------------------------------------


def _claims(response: Element) -> tuple[str, ...]:
    """Every identifier of a claim that the answer names: what it answers first, what it echoes after that."""
    found: list[str] = []
    request = response.one("request")
    if request is not None:
        identifier = request.one("identifier")
        named = identifier.text("value") if identifier is not None else None
        found.extend([named] if named else [])
        if request.has("reference"):
            read = request.reference()
            literal = read.literal or ""
            found.append(read.id or literal.removeprefix(_UUID_URN) if read.form is not ReferenceForm.CONTAINED else "")
    found.extend(value for _, value in response.identifiers())
    return tuple(dict.fromkeys(claim for claim in found if claim))


def _items(response: Element) -> tuple[ItemAnswer, ...]:
    """The items as decided: each of the request, with what ``addItem`` grants in its place, then what was added."""
    whole = _review_action(response)
    items = [_item(item, whole, response) for item in response.all("item")]
    by_sequence = {item.sequence: place for place, item in enumerate(items)}
    for added in response.all("addItem"):
        granted = _added(added, response)
        place = by_sequence.get(granted.sequence)
        if place is None:
            by_sequence[granted.sequence] = len(items)
            items.append(granted)
        else:
            items[place] = _overlaid(items[place], granted)
    return tuple(items)


def _item(item: Element, whole: Element | None, response: Element) -> ItemAnswer:
    sequence = item.whole("itemSequence")
    if sequence is None:
        raise item.flaw("itemSequence", "is required")
    review = _review_action(item) or whole
    start, end = _period(item, response)
    reference = item.extension(codes.ADMINISTRATION_REFERENCE)
    code = _action_code(review)
    return ItemAnswer(
        sequence=sequence,
        code=code,
        action=_action(code),
        number=_number(review, response),
        valid_from=start,
        valid_to=end,
        issued=_issued(item),
        units=_authorized_units(item),
        reasons=_reasons(review),
        reference=reference.text("valueString") if reference is not None else None,
    )


def _added(added: Element, response: Element) -> ItemAnswer:
    sequences = added.raw.get("itemSequence")
    sequence = sequences[0] if isinstance(sequences, list) and sequences else None
    if not isinstance(sequence, int) or isinstance(sequence, bool):
        raise added.flaw("itemSequence", "must name the item in whose place it stands")
    review = _review_action(added)
    code = _action_code(review)
    start, end = _period(added, response)
    return ItemAnswer(
        sequence=sequence,
        code=code,
        action=_action(code),
        number=_number(review, response),
        valid_from=start,
        valid_to=end,
        issued=_issued(added),
        units=_quantity(added, "quantity"),
        reasons=_reasons(review),
        added=True,
    )


def _overlaid(item: ItemAnswer, granted: ItemAnswer) -> ItemAnswer:
    """An item with what was granted in its place; several grants for one item add up."""
    earlier = item.units if item.added else None
    units = granted.units if earlier is None or granted.units is None else earlier + granted.units
    return replace(
        item,
        code=item.code or granted.code,
        action=item.action or granted.action,
        number=item.number or granted.number,
        valid_from=granted.valid_from or item.valid_from,
        valid_to=granted.valid_to or item.valid_to,
        issued=item.issued or granted.issued,
        units=units if units is not None else item.units,
        reasons=item.reasons or granted.reasons,
        added=True,
    )


def _review_action(holder: Element) -> Element | None:
    found = (entry.extension(codes.REVIEW_ACTION) for entry in holder.all("adjudication"))
    return next((review for review in found if review is not None), None)


def _action_code(review: Element | None) -> str | None:
    extension = review.extension(codes.REVIEW_ACTION_CODE) if review is not None else None
    if extension is None:
        return None
    found = extension.concept("valueCodeableConcept")
    exact = [coding for coding in found if coding.system == codes.X12_REVIEW_ACTION]
    return _code(extension, (exact or list(found))[:1])


def _action(code: str | None) -> ReviewAction | None:
    try:
        return ReviewAction(code) if code is not None else None
    except ValueError:
        return None


def _reasons(review: Element | None) -> tuple[str, ...]:
    if review is None:
        return ()
    found = (_code(part, part.concept("valueCodeableConcept")) for part in review.extensions("reasonCode"))
    return tuple(code for code in found if code is not None)


def _code(holder: Element, found: Iterable[Coding]) -> str | None:
    """The first code; anything that does not look like one is refused, for codes travel on."""
    coding = next(iter(found), None)
    if coding is None:
        return None
    if not _CODE.fullmatch(coding.code):
        raise holder.flaw("valueCodeableConcept.coding[0].code", "is not a code")
    return coding.code


def _number(review: Element | None, response: Element) -> str | None:
    part = review.extension("number") if review is not None else None
    own = part.text("valueString") if part is not None else None
    return own or response.text("preAuthRef")


def _period(holder: Element, response: Element) -> tuple[date | None, date | None]:
    extension = holder.extension(codes.ITEM_PERIOD)
    if extension is not None:
        return extension.period("valuePeriod")
    return response.period("preAuthPeriod")


def _issued(holder: Element) -> date | None:
    extension = holder.extension(codes.ITEM_ISSUE_DATE)
    return extension.day("valueDate") if extension is not None else None


def _authorized_units(item: Element) -> int | None:
    detail = item.extension(codes.ITEM_DETAIL)
    part = detail.extension("quantity") if detail is not None else None
    return _quantity(part, "valueQuantity") if part is not None else None


def _quantity(holder: Element, name: str) -> int | None:
    quantity = holder.one(name)
    value = quantity.raw.get("value") if quantity is not None else None
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0 or value != int(value):
        raise holder.flaw(f"{name}.value", "must be a whole number of units")
    return int(value)


def _error(error: Element) -> ErrorAnswer:
    found = error.concept("code")
    path = error.extension(codes.ERROR_PATH)
    follow_up = error.extension(codes.ERROR_FOLLOW_UP)
    return ErrorAnswer(
        code=_code(error, found) or "unknown",
        path=path.text("valueString") if path is not None else None,
        follow_up=_code(follow_up, follow_up.concept("valueCodeableConcept")) if follow_up is not None else None,
        item=error.whole("itemSequence"),
    )


def _object(raw: object, at: str) -> Mapping[str, object]:
    if not isinstance(raw, Mapping):
        raise _invalid(at, "must be a FHIR resource, an object with resourceType")
    return raw


def _invalid(path: str, reason: str) -> Invalid:
    return Invalid("This is not a PAS answer", flaws=[Flaw(path, reason)])
