"""Reading what payers send: PAS response Bundles, inquiry answers, subscription notifications.

Reads, and does not judge: what an answer means for an authorization is decided in ``model.answers``. Raises Invalid
with paths, never with values, for what is not a PAS answer at all.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum

from services.prior_authorization.model.answers import (
    GRANTED,
    WHOLE,
    ErrorAnswer,
    GrantAnswer,
    ItemAnswer,
    PayerAnswer,
    Units,
)
from services.prior_authorization.pas import codes
from services.prior_authorization.pas.entries import Entries, entries_of, leads_to
from services.prior_authorization.pas.followup import asked_for
from shared.contracts.base import Coding
from shared.contracts.prior_authorization import ReviewAction
from shared.kit.errors import Flaw, Invalid
from shared.kit.fhir import Element, Flaws, ReferenceForm, parse

_TYPE = re.compile(r"[A-Z][A-Za-z]{1,63}")
_ISSUE = re.compile(r"[a-z-]{1,40}")
_EVENT_NUMBER = re.compile(r"[0-9]{1,19}")
_ACTIONS = frozenset(action.value for action in ReviewAction)
_MOST_UNITS = 1e300
"""JSON spells numbers, and sums of them, that no float holds."""
_UUID_URN = "urn:uuid:"
_DETAIL = "This is not a PAS answer"


class NotificationKind(StrEnum):
    """R4B backport, SubscriptionStatus.type."""

    HANDSHAKE = "handshake"
    HEARTBEAT = "heartbeat"
    EVENT = "event-notification"
    QUERY_STATUS = "query-status"
    QUERY_EVENT = "query-event"


@dataclass(frozen=True, slots=True)
class Notification:
    """A subscription notification. ``active`` is False where the payer says that it no longer notifies.

    ``subscription`` is the reference as the payer gives it; ``events`` are the numbers that it gives its events.
    """

    kind: NotificationKind
    active: bool
    answers: tuple[PayerAnswer, ...]
    subscription: str | None = None
    events: tuple[int, ...] = ()


def read_response(raw: object) -> PayerAnswer:
    """The answer to $submit: a PAS response Bundle with one ClaimResponse. Raises Invalid."""
    answers = _bundle_answers(_object(raw, "Bundle"), "Bundle")
    if len(answers) != 1:
        raise _invalid("Bundle.entry", "must hold exactly one ClaimResponse")
    return answers[0]


def read_inquiry(raw: object) -> tuple[PayerAnswer, ...]:
    """The answer to $inquire: a response Bundle, or Parameters with one Bundle per result. Raises Invalid."""
    resource = _object(raw, "Resource")
    if resource.get("resourceType") == "Parameters":
        return _parameters_answers(resource)
    return _bundle_answers(resource, "Bundle", may_be_none=True)


def read_notification(raw: object) -> Notification:
    """A subscription notification Bundle (type history, backport to R4 or R4B, full resource). Raises Invalid."""
    bundle = _object(raw, "Bundle")
    if bundle.get("resourceType") != "Bundle":
        raise _invalid("Bundle.resourceType", "must be Bundle")
    if bundle.get("type") != "history":
        raise _invalid("Bundle.type", "must be a Bundle of type history")
    entries = entries_of(bundle, "Bundle")
    status = _status(entries)
    answers: list[PayerAnswer] = []
    flaws = Flaws()
    for url, resource in entries[1:]:
        if _in_any(status.context, url, resource) and not _in_any(status.focus, url, resource):
            continue
        with flaws.gather():
            answers.extend(_focus_answers(resource, entries[1:]))
    flaws.refuse(_DETAIL)
    if status.kind is NotificationKind.EVENT and not answers:
        raise _invalid(
            "Bundle.entry",
            "must hold the ClaimResponse that it notifies of (full-resource): an id alone decides nothing",
        )
    # A payer may send the answer both by itself and in its Bundle.
    said = tuple(answer for place, answer in enumerate(answers) if answer not in answers[:place])
    return Notification(status.kind, status.active, said, status.subscription, status.events)


def read_answers(raw: object) -> tuple[PayerAnswer, ...]:
    """Every answer in a response, inquiry answer, notification or bare ClaimResponse. Raises Invalid for all else.

    None at all in an inquiry answer that found nothing, and in a handshake or heartbeat.
    """
    resource = _object(raw, "Resource")
    type_ = resource.get("resourceType")
    if type_ == "ClaimResponse":
        return (read_claim_response(resource, "ClaimResponse"),)
    if type_ == "Bundle" and resource.get("type") == "history":
        return read_notification(resource).answers
    if type_ == "Bundle":
        return _bundle_answers(resource, "Bundle", may_be_none=_is_inquirys(resource))
    if type_ == "Parameters":
        return _parameters_answers(resource)
    raise _no_answer(resource)


def read_claim_response(raw: Mapping[str, object], at: str, around: Entries = ()) -> PayerAnswer:
    """One ClaimResponse standing at the path ``at``. Raises Invalid where it is not valid FHIR R4, or not PAS.

    PAS fixes ``status`` to active and ``use`` to preauthorization: what is cancelled, a draft or entered in error, and
    what answers a bill, decides nothing. ``around`` are the resources that came with it: what the payer asks for may
    stand there.
    """
    response = Element(at, raw)
    flaws = Flaws()
    with flaws.gather():
        parse(raw, "ClaimResponse", at=at)
    for name, fixed in (("status", "active"), ("use", "preauthorization")):
        with flaws.gather():
            if response.text(name) != fixed:
                flaws.add(f"{at}.{name}", f"must be {fixed}")
    created = None
    with flaws.gather():
        created = response.moment("created")
        if created is None:
            flaws.add(f"{at}.created", "is required")
    flaws.refuse(_DETAIL)
    if created is None:
        raise response.flaw("created", "is required")
    reviewer = response.extension(codes.REVIEWER)
    flag = reviewer.extension("wasHumanReviewedFlag") if reviewer is not None else None
    return PayerAnswer(
        claims=_claims(response),
        created=created,
        outcome=response.text("outcome") or "",
        items=_items(response),
        errors=tuple(_error(item) for item in response.all("error")),
        whole=_whole(response),
        human_reviewed=flag.flag("valueBoolean") if flag is not None else None,
        asks=asked_for(response, around),
    )


# -- bundles --------------------------------------------------------------------------------------------------------


def _bundle_answers(bundle: Mapping[str, object], at: str, *, may_be_none: bool = False) -> tuple[PayerAnswer, ...]:
    """The answers in a response Bundle, whose first resource is one (PAS: ClaimResponseFirst).

    That first resource tells an answer from a request, which may carry an earlier ClaimResponse along. A refusal in
    place of an answer (OperationOutcome) is none, and not "nothing was found" either.
    """
    if bundle.get("resourceType") == "OperationOutcome":
        raise _no_answer(bundle)
    if bundle.get("resourceType") != "Bundle":
        raise _invalid(f"{at}.resourceType", "must be Bundle")
    flaws = Flaws()
    profiles = _profiles(bundle)
    if any("request-bundle" in profile for profile in profiles):
        flaws.add(f"{at}.meta.profile", "names a PAS request, not an answer")
    if bundle.get("type") != "collection":
        flaws.add(f"{at}.type", "must be collection")
    entries = entries_of(bundle, at)
    resources = [resource for _, resource in entries]
    found = [resource for resource in resources if resource.type == "ClaimResponse"]
    if not resources and not (may_be_none and "entry" not in bundle):
        flaws.add(f"{at}.entry", "must hold the answer, a ClaimResponse")
    elif resources and resources[0].type == "Claim":
        flaws.add(resources[0].path, "is a Claim: this is a request, not an answer")
    elif resources and not found and not may_be_none:
        flaws.add(f"{at}.entry", "must hold the answer, a ClaimResponse")
    elif found and resources[0] is not found[0]:
        flaws.add(resources[0].path, "must be the ClaimResponse: it comes first in an answer")
    elif len(found) > 1 and any(profile.startswith(codes.RESPONSE_BUNDLE) for profile in profiles):
        flaws.add(found[1].path, "is a second ClaimResponse: the answer to a request has one")
    for resource in resources if not found else ():
        if resource.type == "OperationOutcome":
            flaws.found.extend(_refusal(resource))
    answers: list[PayerAnswer] = []
    for resource in found:
        with flaws.gather():
            answers.append(read_claim_response(resource.raw, resource.path, entries))
    flaws.refuse(_DETAIL)
    return tuple(answers)


def _is_inquirys(bundle: Mapping[str, object]) -> bool:
    return any(profile.startswith(codes.INQUIRY_RESPONSE_BUNDLE) for profile in _profiles(bundle))


def _parameters_answers(raw: Mapping[str, object]) -> tuple[PayerAnswer, ...]:
    """The Bundles of an inquiry's answer; empty Parameters, and empty Bundles, say that nothing was found.

    PAS calls the parameter ``return``, its own example ``responseBundle``.
    """
    parameters = Element("Parameters", raw).all("parameter")
    if "subscription" in {parameter.text("name") for parameter in parameters}:
        raise _invalid("Parameters", "is a subscription's status alone: a notification is a Bundle of type history")
    if parameters and not any(parameter.has("resource") for parameter in parameters):
        raise _invalid("Parameters.parameter", "must hold a response Bundle with a ClaimResponse")
    answers: list[PayerAnswer] = []
    flaws = Flaws()
    for parameter in parameters:
        with flaws.gather():
            resource = parameter.one("resource")
            if resource is None:
                continue
            if resource.type == "Bundle":
                answers.extend(_bundle_answers(resource.raw, resource.path, may_be_none=True))
            elif resource.type == "ClaimResponse":
                answers.append(read_claim_response(resource.raw, resource.path))
            else:
                flaws.add(resource.path, "must be a response Bundle")
                flaws.found.extend(_refusal(resource) if resource.type == "OperationOutcome" else ())
    flaws.refuse(_DETAIL)
    return tuple(answers)


def _focus_answers(resource: Element, around: Entries) -> Iterable[PayerAnswer]:
    if resource.type == "Bundle":
        return _bundle_answers(resource.raw, resource.path)
    return (read_claim_response(resource.raw, resource.path, around),) if resource.type == "ClaimResponse" else ()


def _profiles(resource: Mapping[str, object]) -> tuple[str, ...]:
    meta = resource.get("meta")
    named = meta.get("profile") if isinstance(meta, Mapping) else None
    return tuple(profile for profile in named if isinstance(profile, str)) if isinstance(named, list) else ()


# -- a subscription's status ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Status:
    """What stands first in a notification. ``focus`` and ``context`` are references to what else is in it."""

    kind: NotificationKind
    active: bool
    subscription: str | None
    events: tuple[int, ...]
    focus: tuple[str, ...]
    context: tuple[str, ...]


def _status(entries: Entries) -> _Status:
    status = entries[0][1] if entries else None
    if status is not None and status.type == "Parameters":
        return _status_of_parameters(status)
    if status is not None and status.type == "SubscriptionStatus":
        return _status_of_resource(status)
    raise _invalid("Bundle.entry[0].resource", "must be the Parameters (or SubscriptionStatus) of the subscription")


def _status_of_parameters(status: Element) -> _Status:
    """The backport to R4, which has no SubscriptionStatus: Parameters."""
    parameters = {item.text("name"): item for item in status.all("parameter")}
    kind = parameters["type"].text("valueCode") if "type" in parameters else None
    state = parameters["status"].text("valueCode") if "status" in parameters else None
    parts = [
        part
        for item in status.all("parameter")
        if item.text("name") == "notification-event"
        for part in item.all("part")
    ]
    return _Status(
        _notification_kind(status, "parameter[name=type].valueCode", kind),
        state in (None, "active", "requested"),
        _reference(parameters.get("subscription"), "valueReference"),
        _numbers(part.text("valueString") for part in parts if part.text("name") == "event-number"),
        _references((part for part in parts if part.text("name") == "focus"), "valueReference"),
        _references((part for part in parts if part.text("name") == "additional-context"), "valueReference"),
    )


def _status_of_resource(status: Element) -> _Status:
    """R4B has it as a resource."""
    events = status.all("notificationEvent")
    return _Status(
        _notification_kind(status, "type", status.text("type")),
        status.text("status") in (None, "active", "requested"),
        _reference(status, "subscription"),
        _numbers(event.text("eventNumber") for event in events),
        _references(events, "focus"),
        tuple(
            reference
            for event in events
            for context in event.all("additionalContext")
            for reference in [context.text("reference")]
            if reference is not None
        ),
    )


def _notification_kind(status: Element, name: str, named: str | None) -> NotificationKind:
    try:
        return NotificationKind(named or "")
    except ValueError:
        raise status.flaw(name, "must be a type of subscription notification") from None


def _reference(holder: Element | None, name: str) -> str | None:
    named = holder.one(name) if holder is not None else None
    return named.text("reference") if named is not None else None


def _references(holders: Iterable[Element], name: str) -> tuple[str, ...]:
    return tuple(found for holder in holders for found in [_reference(holder, name)] if found is not None)


def _in_any(references: Iterable[str], url: str | None, resource: Element) -> bool:
    return any(leads_to(reference, url, resource) for reference in references)


def _numbers(texts: Iterable[str | None]) -> tuple[int, ...]:
    """The numbers of the events notified; FHIR R4 carries them as strings, for it has no 64-bit integer."""
    return tuple(int(number) for number in texts if number and _EVENT_NUMBER.fullmatch(number))


# -- a ClaimResponse ------------------------------------------------------------------------------------------------


def _claims(response: Element) -> tuple[str, ...]:
    """Every identifier of a claim that the answer names: what it answers first, what it echoes after that."""
    found: list[str] = []
    request = response.one("request")
    if request is not None:
        identifier = request.one("identifier")
        named = identifier.text("value") if identifier is not None else None
        found.extend([named] if named else [])
        found.append(_referred(request))
    found.extend(value for _, value in response.identifiers())
    return tuple(dict.fromkeys(claim for claim in found if claim))


def _referred(request: Element) -> str:
    """The id of the Claim referred to. What a payer refers to in a form of its own names no claim of ours."""
    try:
        read = request.reference() if request.has("reference") else None
    except Invalid:
        return ""
    if read is None or read.form is ReferenceForm.CONTAINED:
        return ""
    return read.id or (read.literal or "").removeprefix(_UUID_URN)


def _items(response: Element) -> tuple[ItemAnswer, ...]:
    """The items as decided: each of the request, with what ``addItem`` grants in its place, then what was added."""
    whole = _reviews(response)
    items = [_item(item, whole) for item in response.all("item")]
    places = {item.sequence: place for place, item in reversed(list(enumerate(items)))}
    additions: dict[int, list[ItemAnswer]] = {}
    for added in response.all("addItem"):
        for addition in _added(added):
            additions.setdefault(addition.sequence, []).append(addition)
    for sequence, found in additions.items():
        place = places.get(sequence)
        if place is not None:
            items[place] = _overlaid(items[place], found)
            continue
        alone = ItemAnswer(sequence, added=True)
        spoken = any(addition.told for addition in found)
        items.append(_overlaid(alone if spoken else _decided(alone, whole), found))
    return tuple(_with_header(item, response) for item in items)


def _whole(response: Element) -> ItemAnswer | None:
    """The decision on the claim as a whole, where there is one: it holds for every item that has none of its own."""
    reviews = _reviews(response)
    return _with_header(_decided(ItemAnswer(WHOLE), reviews), response) if reviews else None


def _item(item: Element, whole: Sequence[Element]) -> ItemAnswer:
    sequence = item.whole("itemSequence")
    if sequence is None:
        raise item.flaw("itemSequence", "is required")
    start, end = _period(item)
    answer = ItemAnswer(
        sequence=sequence,
        valid_from=start,
        valid_to=end,
        issued=_issued(item),
        units=_authorized_units(item),
        reference=_extension_text(item, codes.ADMINISTRATION_REFERENCE),
        authorized=_extension_text(item, codes.AUTHORIZATION_NUMBER),
        service=_authorized_service(item),
    )
    own, deeper = _reviews(item), _reviews_below(item)
    return _decided(answer, own if _told((*own, *deeper)) else (*whole, *own), deeper)


def _added(added: Element) -> tuple[ItemAnswer, ...]:
    """What the payer offers in place of an item of the request. PAS has it name one; WHOLE where it names none."""
    sequences = added.raw.get("itemSequence") or [WHOLE]
    if not isinstance(sequences, list) or not all(type(sequence) is int for sequence in sequences):
        raise added.flaw("itemSequence", "must name the item in whose place it stands")
    start, end = _period(added)
    units = _quantity(added, "quantity")
    service = next(iter(added.concept("productOrService")), None)
    decided = _decided(
        ItemAnswer(
            sequence=WHOLE,
            valid_from=start,
            valid_to=end,
            issued=_issued(added),
            units=units,
            reference=_extension_text(added, codes.ADMINISTRATION_REFERENCE),
            authorized=_extension_text(added, codes.AUTHORIZATION_NUMBER),
            granted=(GrantAnswer(service, units, shared=len(sequences) > 1),),
        ),
        _reviews(added),
        _reviews_below(added),
    )
    return tuple(replace(decided, sequence=sequence) for sequence in dict.fromkeys(sequences))


def _overlaid(item: ItemAnswer, additions: Sequence[ItemAnswer]) -> ItemAnswer:
    """An item with what was added in its place, in whatever order: what is granted of it adds up.

    An addition grants where it says so, or says nothing where the item is granted. One that is denied or pended is no
    grant; where the item has no word of its own, it is that word.
    """
    action = _overlaid_action(item, additions)
    told = [addition for addition in additions if addition.told]
    if action in GRANTED:
        heard = [addition for addition in additions if not addition.told or addition.action in GRANTED]
    else:
        heard = told if action is not None and not item.told else []
    grants = heard if action in GRANTED else []
    return replace(
        item,
        code=item.code if item.told else next((addition.code for addition in told if addition.code), None),
        action=action,
        told=item.told or bool(told),
        number=item.number or _agreed(addition.number for addition in heard),
        valid_from=max((each.valid_from for each in grants if each.valid_from), default=item.valid_from),
        valid_to=min((each.valid_to for each in grants if each.valid_to), default=item.valid_to),
        issued=item.issued or max((each.issued for each in grants if each.issued), default=None),
        units=_added_up(item, grants),
        reasons=item.reasons or tuple(dict.fromkeys(reason for each in heard for reason in each.reasons)),
        reference=item.reference or _agreed(each.reference for each in heard),
        authorized=item.authorized or _agreed(each.authorized for each in grants),
        added=item.added or bool(grants),
        granted=tuple(grant for each in grants for grant in each.granted),
    )


def _overlaid_action(item: ItemAnswer, additions: Sequence[ItemAnswer]) -> ReviewAction | None:
    """What is decided of an item with additions: None where one of them is undecided, or two of its words differ."""
    said = {addition.action for addition in additions if addition.told}
    if not item.told:
        return next(iter(said)) if len(said) == 1 else None
    contradicted = item.action not in GRANTED and not said.isdisjoint(GRANTED)
    return None if None in said or contradicted else item.action


def _added_up(item: ItemAnswer, grants: Sequence[ItemAnswer]) -> Units | None:
    """The units of all that is granted in place of an item; where none of it has a number of them, the item's own."""
    found = [grant.units for grant in grants]
    counted = [units for units in found if units is not None]
    if not counted:
        return item.units
    total = sum(counted)
    return None if len(counted) < len(found) else int(total) if total == int(total) else total


def _agreed(texts: Iterable[str | None]) -> str | None:
    """The one text among them; None where two differ, for which of them holds nobody can tell."""
    found = {text for text in texts if text}
    return found.pop() if len(found) == 1 else None


def _with_header(item: ItemAnswer, response: Element) -> ItemAnswer:
    """An item with what the claim says as a whole where it has none of its own: the payer's reference, and of a grant
    number and dates. The number of an earlier authorization of the item (PAS: previousAuthorizationNumber) comes last.
    """
    reference = item.reference or _extension_text(response, codes.ADMINISTRATION_REFERENCE)
    item = replace(item, reference=reference)
    if item.action not in GRANTED:
        return item
    start, end = _span(response.one("preAuthPeriod"))
    dated = item.valid_from is not None or item.valid_to is not None
    return replace(
        item,
        number=item.number or response.text("preAuthRef") or item.authorized,
        valid_from=item.valid_from if dated else start,
        valid_to=item.valid_to if dated else end,
    )


# -- decisions ------------------------------------------------------------------------------------------------------


def _reviews(holder: Element) -> tuple[Element, ...]:
    """The review actions of an item or of the claim: in its adjudications, before PAS 2.0 on the item itself."""
    found = [review for entry in holder.all("adjudication") for review in entry.extensions(codes.REVIEW_ACTION)]
    return (*found, *holder.extensions(codes.REVIEW_ACTION))


def _reviews_below(item: Element) -> tuple[Element, ...]:
    """The review actions of an item's details, of which PAS says nothing."""
    return tuple(
        review
        for detail in item.all("detail")
        for part in (detail, *detail.all("subDetail"))
        for review in _reviews(part)
    )


def _told(reviews: Sequence[Element]) -> tuple[Element, ...]:
    return tuple(review for review in reviews if review.extension(codes.REVIEW_ACTION_CODE) is not None)


def _decided(item: ItemAnswer, reviews: Sequence[Element], below: Sequence[Element] = ()) -> ItemAnswer:
    """The item with its decision. One that is given two of them that differ, also by its details, is not decided."""
    spoken = _told(reviews)
    told = spoken or tuple(reviews)
    found = [coding for review in (*told, *below) for coding in _review_codes(review)]
    if not told and not found:
        return item
    meant = {coding.code for coding in found}
    numbers = dict.fromkeys(number for review in told for number in _review_numbers(review))
    return replace(
        item,
        code=found[0].code if found else None,
        action=_action(found) if len(meant) == 1 else None,
        told=bool(spoken or _told(below)),
        number=next(iter(numbers)) if len(numbers) == 1 else None,
        reasons=tuple(dict.fromkeys(reason for review in told for reason in _reasons(review))),
    )


def _review_codes(review: Element) -> tuple[Coding, ...]:
    """The codes of a review action: of each concept those of X12 306, else one of no system, else any one."""
    found: list[Coding] = []
    for extension in review.extensions(codes.REVIEW_ACTION_CODE):
        said = extension.concept("valueCodeableConcept")
        bare = [coding for coding in said if coding.system == ""]
        found += [coding for coding in said if coding.system == codes.X12_REVIEW_ACTION] or bare or said[:1]
    return tuple(found)


def _review_numbers(review: Element) -> tuple[str, ...]:
    found = (part.text("valueString") for part in review.extensions("number"))
    return tuple(number for number in found if number is not None)


def _action(found: Sequence[Coding]) -> ReviewAction | None:
    """What a review action code means; a code of another system than X12 306 means nothing here."""
    for coding in found:
        if coding.system in ("", codes.X12_REVIEW_ACTION) and coding.code in _ACTIONS:
            return ReviewAction(coding.code)
    return None


def _reasons(review: Element) -> tuple[str, ...]:
    found = (_coding(part, "valueCodeableConcept", codes.X12_REASON) for part in review.extensions("reasonCode"))
    return tuple(dict.fromkeys(coding.code for coding in found if coding is not None))


def _coding(holder: Element, name: str, system: str) -> Coding | None:
    """The coding of this system, else the first one."""
    found = holder.concept(name)
    return next((coding for coding in found if coding.system == system), next(iter(found), None))


def _extension_text(holder: Element, url: str) -> str | None:
    return _agreed(extension.text("valueString") for extension in holder.extensions(url))


def _single(holder: Element, url: str) -> Element | None:
    """An extension of which PAS has one. Raises Invalid where it is repeated with another content: a grant would be as
    large, or as long, as the one that happens to come first.
    """
    found = holder.extensions(url)
    if any(each.raw != found[0].raw for each in found[1:]):
        raise Invalid(_DETAIL, flaws=[Flaw(found[1].path, "says again, and otherwise, what may be said once")])
    return next(iter(found), None)


# -- dates and units ------------------------------------------------------------------------------------------------


def _period(holder: Element) -> tuple[date | None, date | None]:
    extension = _single(holder, codes.ITEM_PERIOD)
    return _span(extension.one("valuePeriod") if extension is not None else None)


def _span(period: Element | None) -> tuple[date | None, date | None]:
    """First and last day of a Period, both in it; of a year or a month alone its first and its last day."""
    if period is None:
        return None, None
    start, end = period.text("start") or "", period.text("end") or ""
    return _day(period, "start", start + "-01-01"[len(start) - 4 :] if len(start) in (4, 7) else start), _day(
        period, "end", _last_day(end)
    )


def _last_day(value: str) -> str:
    value = f"{value}-12" if len(value) == len("YYYY") else value
    if len(value) != len("YYYY-MM") or not value.replace("-", "").isdecimal():
        return value
    year, month = int(value[:4]), int(value[5:])
    return f"{value}-{calendar.monthrange(year, month)[1]:02}" if year and 1 <= month <= 12 else value


def _day(period: Element, name: str, value: str) -> date | None:
    try:
        return date.fromisoformat(value[:10]) if value else None
    except ValueError:
        raise period.flaw(name, "is not a FHIR dateTime") from None


def _issued(holder: Element) -> date | None:
    extension = _single(holder, codes.ITEM_ISSUE_DATE)
    return extension.day("valueDate") if extension is not None else None


def _authorized_units(item: Element) -> Units | None:
    detail = _single(item, codes.ITEM_DETAIL)
    part = _single(detail, "quantity") if detail is not None else None
    return _quantity(part, "valueQuantity") if part is not None else None


def _authorized_service(item: Element) -> Coding | None:
    detail = _single(item, codes.ITEM_DETAIL)
    part = _single(detail, "productOrServiceCode") if detail is not None else None
    return next(iter(part.concept("valueCodeableConcept")), None) if part is not None else None


def _quantity(holder: Element, name: str) -> Units | None:
    quantity = holder.one(name)
    value = quantity.raw.get("value") if quantity is not None else None
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MOST_UNITS:
        raise holder.flaw(f"{name}.value", "must be a number of units")
    if quantity is not None and quantity.has("comparator"):
        raise holder.flaw(f"{name}.comparator", "must be absent: a bound is no number of units")
    return int(value) if value == int(value) else value


# -- errors ---------------------------------------------------------------------------------------------------------


def _error(error: Element) -> ErrorAnswer:
    found = _coding(error, "code", codes.X12_REJECT)
    follow_up = error.extension(codes.ERROR_FOLLOW_UP)
    action = _coding(follow_up, "valueCodeableConcept", codes.X12_FOLLOW_UP) if follow_up is not None else None
    return ErrorAnswer(
        code=found.code if found is not None else None,
        path=_error_path(error),
        follow_up=action.code if action is not None else None,
        item=error.whole("itemSequence"),
    )


def _error_path(error: Element) -> str | None:
    """Where the error is: the FHIRPath, else the X12 element (before PAS 2.0 a string, since then a part)."""
    path = error.extension(codes.ERROR_PATH)
    named = path.text("valueString") if path is not None else None
    place = error.extension(codes.ERROR_ELEMENT)
    if named is not None or place is None:
        return named
    part = place.extension("error")
    return part.text("valueString") if part is not None else place.text("valueString")


# -- refusals -------------------------------------------------------------------------------------------------------


def _no_answer(resource: Mapping[str, object]) -> Invalid:
    """Why a resource is no answer, in words that hold nothing of its content but the code of an issue."""
    named = resource.get("resourceType")
    if not isinstance(named, str) or not _TYPE.fullmatch(named):
        return _invalid("Resource.resourceType", "must be Bundle, ClaimResponse or Parameters")
    if named == "Claim":
        return _invalid("Claim", "is a request, not an answer")
    if named != "OperationOutcome":
        return _invalid(named, "is no PAS response, inquiry answer or notification")
    return Invalid(_DETAIL, flaws=_refusal(Element("OperationOutcome", resource)))


def _refusal(outcome: Element) -> list[Flaw]:
    """What an OperationOutcome says: its issues' codes, and never its words."""
    flaws = [Flaw(outcome.path, "refuses a request and decides nothing")]
    for issue in outcome.all("issue"):
        code = issue.text("code") or ""
        flaws.append(Flaw(issue.path, f"says {code if _ISSUE.fullmatch(code) else 'nothing that FHIR has a code for'}"))
    return flaws


def _object(raw: object, at: str) -> Mapping[str, object]:
    if not isinstance(raw, Mapping):
        raise _invalid(at, "must be a FHIR resource, an object with resourceType")
    return raw


def _invalid(path: str, reason: str) -> Invalid:
    return Invalid(_DETAIL, flaws=[Flaw(path, reason)])
