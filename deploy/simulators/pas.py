"""Da Vinci PAS 2.2.1 on the payer's side: requests read, with every path that is wrong; answers written.

Extension URLs and shapes are those of the implementation guide's examples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from deploy.simulators.adjudication import APPROVING, Certification, Script, granted, reference_number
from deploy.simulators.ledger import Ruling, stamp
from shared.contracts.prior_authorization import ReviewAction
from shared.kit.document import derived_id
from shared.kit.errors import Malformed
from shared.kit.fhir import Element, Entry, Flaws, ReferenceForm, TransactionBundle, parse

Resource = dict[str, object]

PAS = "http://hl7.org/fhir/us/davinci-pas/StructureDefinition/"
CERTIFICATION_TYPE = PAS + "extension-certificationType"
INFO_CANCELLED = PAS + "modifierextension-infoCancelled"
AUTHORIZATION_NUMBER = PAS + "extension-authorizationNumber"
ADMINISTRATION_REFERENCE = PAS + "extension-administrationReferenceNumber"
REVIEW_ACTION = PAS + "extension-reviewAction"
REVIEW_ACTION_CODE = PAS + "extension-reviewActionCode"
REVIEWER = PAS + "extension-claimResponseReviewer"
ITEM_ISSUE_DATE = PAS + "extension-itemPreAuthIssueDate"
ITEM_PERIOD = PAS + "extension-itemPreAuthPeriod"
ITEM_AUTHORIZED_DETAIL = PAS + "extension-itemAuthorizedDetail"
SERVICE_LINE = PAS + "extension-serviceLineNumber"
ASKED_WITHIN = timedelta(days=10)
TOPIC = "http://hl7.org/fhir/us/davinci-pas/SubscriptionTopic/PASSubscriptionTopic"
BACKPORT = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/"

X12 = "https://codesystem.x12.org/005010/"
X12_REASON = "https://codesystem.x12.org/external/886"
DISPLAY = {
    ReviewAction.CERTIFIED: "Certified in total",
    ReviewAction.PARTIAL: "Certified - partial",
    ReviewAction.NOT_CERTIFIED: "Not Certified",
    ReviewAction.PENDED: "Pended",
    ReviewAction.MODIFIED: "Modified",
    ReviewAction.CANCELLED: "Cancelled",
    ReviewAction.CONTACT_PAYER: "Contact Payer",
    ReviewAction.NO_ACTION_REQUIRED: "No Action Required",
}


# -- requests -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Item:
    """One service asked for."""

    sequence: int
    product: Mapping[str, object]
    units: int
    cancelled: bool = False
    """Whether an update takes it out of the request."""


@dataclass(frozen=True, slots=True)
class Request:
    """The Claim of a PAS Bundle and the parties it came with."""

    attempt_id: str
    claim: Element
    parties: tuple[Mapping[str, object], ...]
    base: str | None
    """What stands before ``Claim/<id>`` in the Claim's fullUrl."""

    @property
    def reference(self) -> str:
        """How an answer refers to the Claim."""
        return f"Claim/{self.claim.id}"


@dataclass(frozen=True, slots=True)
class Submission(Request):
    """A request for a decision. ``related`` is the attempt id, or ``Claim/<id>``, of an earlier submission."""

    member_id: str
    certification: Certification
    items: tuple[Item, ...]
    related: str | None
    related_path: str
    documents: tuple[str, ...] = ()
    """The types of the documents that came along."""

    @property
    def units(self) -> tuple[int, ...]:
        """What each item asks for that is still wanted."""
        return tuple(item.units for item in self.items if not item.cancelled)

    @property
    def fingerprint(self) -> tuple[object, ...]:
        """What must not differ when the same attempt comes again (timestamps and Bundle ids may)."""
        services = tuple((item.sequence, repr(item.product), item.units, item.cancelled) for item in self.items)
        return self.member_id, self.certification, services, self.related


@dataclass(frozen=True, slots=True)
class Inquiry(Request):
    """A question after a decision. ``numbers`` are authorization and pend numbers that the Claim names."""

    numbers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EligibilityRequest:
    """A question after coverage."""

    resource: Element
    member_id: str
    purposes: tuple[str, ...]


def read_submission(raw: object, *, strict: bool) -> Submission:
    """A PAS request Bundle. ``strict`` validates the whole Bundle against FHIR R4 first, at some milliseconds.

    Raises Malformed where it is no Bundle, Invalid with all paths where a rule is broken.
    """
    bundle, claim, request = _read_request(raw, strict=strict)
    flaws = Flaws()
    items: tuple[Item, ...] = ()
    member_id, related = "", None
    certifications: list[Certification] = []
    with flaws.gather():
        member_id = _member_id(bundle, claim)
    with flaws.gather():
        related = _related(bundle, claim)
    with flaws.gather():
        items = _items(claim)
    for item in claim.all("item"):
        with flaws.gather():
            certifications.append(_certification(item))
    own = claim.extension(CERTIFICATION_TYPE)
    if own is None and len(set(certifications)) > 1:
        flaws.add(f"{claim.path}.item", "must have one certificationType throughout")
    certification = certifications[0] if certifications else Certification.INITIAL
    if own is not None:
        with flaws.gather():
            certification = _certification(claim)
    related_path = f"{claim.path}.related[0].claim"
    if certification.is_first and related is not None:
        flaws.add(related_path, "must be absent in an initial request")
    if not certification.is_first and related is None:
        flaws.add(related_path, "is required")
    flaws.refuse("The PAS request cannot be taken")
    return Submission(
        request.attempt_id,
        request.claim,
        request.parties,
        request.base,
        member_id,
        certification,
        items,
        related,
        related_path,
        tuple(coding.code for document in bundle.of("DocumentReference") for coding in document.concept("type")),
    )


def read_inquiry(raw: object, *, strict: bool) -> Inquiry:
    """A PAS inquiry Bundle; raises as ``read_submission``."""
    _, claim, request = _read_request(raw, strict=strict)
    holders = (claim, *claim.all("item"))
    numbers = tuple(
        number
        for holder in holders
        for url in (AUTHORIZATION_NUMBER, ADMINISTRATION_REFERENCE)
        for number in [_extension_text(holder, url)]
        if number is not None
    )
    return Inquiry(request.attempt_id, request.claim, request.parties, request.base, numbers)


def read_eligibility(raw: object) -> EligibilityRequest:
    """A FHIR R4 CoverageEligibilityRequest; raises as ``read_submission``."""
    if not isinstance(raw, Mapping) or raw.get("resourceType") != "CoverageEligibilityRequest":
        raise Malformed("a CoverageEligibilityRequest is wanted")
    parse(raw, "CoverageEligibilityRequest")
    resource = Element("CoverageEligibilityRequest", raw)
    flaws = Flaws()
    member_id = ""
    insurance = resource.all("insurance")
    if not insurance:
        flaws.add("CoverageEligibilityRequest.insurance", "is required")
    else:
        with flaws.gather():
            member_id = _member_of(insurance[0], None)
    flaws.refuse("The eligibility request cannot be answered")
    return EligibilityRequest(resource, member_id, resource.texts("purpose"))


def _read_request(raw: object, *, strict: bool) -> tuple[TransactionBundle, Element, Request]:
    if not isinstance(raw, Mapping) or raw.get("resourceType") != "Bundle":
        raise Malformed("a Bundle is wanted")
    flaws = Flaws()
    if strict:
        with flaws.gather():
            parse(raw, "Bundle")
    if raw.get("type") != "collection":
        flaws.add("Bundle.type", "must be collection")
    for name in ("identifier", "timestamp"):
        if not raw.get(name):
            flaws.add(f"Bundle.{name}", "is required")
    entries = raw.get("entry")
    if not isinstance(entries, list) or not entries:
        flaws.add("Bundle.entry", "is required")
    flaws.refuse("The Bundle is not a PAS request")
    listed = Element("Bundle", raw).all("entry")
    resources = [_resource(entry, flaws) for entry in listed]
    claim = resources[0]
    if claim.type != "Claim":
        flaws.add(claim.path, "must be the Claim")
    flaws.refuse("The Bundle is not a PAS request")
    attempt_id = _checked_claim(claim, flaws)
    flaws.refuse("The Claim is not a PAS request")
    urls = [entry.text("fullUrl") for entry in listed]
    bundle = TransactionBundle([Entry(url, found) for url, found in zip(urls, resources, strict=True)])
    return bundle, claim, Request(attempt_id, claim, _parties(urls, resources), _base(urls[0], claim))


def _resource(entry: Element, flaws: Flaws) -> Element:
    """The resource of a Bundle's entry; its own root, so that ``#id`` is looked up in it."""
    if entry.text("fullUrl") is None:
        flaws.add(f"{entry.path}.fullUrl", "is required")
    found = entry.one("resource")
    if found is None:
        flaws.add(f"{entry.path}.resource", "is required")
    return Element(f"{entry.path}.resource", found.raw if found is not None else {})


def _checked_claim(claim: Element, flaws: Flaws) -> str:
    """The rules that PAS lays on every Claim beyond FHIR R4's; returns the attempt id."""
    if claim.text("use") != "preauthorization":
        flaws.add(f"{claim.path}.use", "must be preauthorization")
    if claim.text("status") != "active":
        flaws.add(f"{claim.path}.status", "must be active")
    for name in ("type", "patient", "provider", "insurer", "insurance", "item"):
        if not claim.has(name):
            flaws.add(f"{claim.path}.{name}", "is required")
    if claim.id is None:
        flaws.add(f"{claim.path}.id", "is required")
    identifiers = claim.identifiers()
    if not identifiers:
        flaws.add(f"{claim.path}.identifier[0].value", "is required")
        return ""
    return identifiers[0][1]


def _parties(urls: Sequence[str | None], resources: Sequence[Element]) -> tuple[Mapping[str, object], ...]:
    """What an answer gives back of a request: who is who."""
    wanted = ("Organization", "Patient", "Practitioner", "PractitionerRole")
    pairs = zip(urls, resources, strict=True)
    return tuple({"fullUrl": url, "resource": dict(found.raw)} for url, found in pairs if found.type in wanted)


def _base(url: str | None, claim: Element) -> str | None:
    tail = f"Claim/{claim.id}"
    return url.removesuffix(tail) if url is not None and url.endswith(tail) else None


def _member_id(bundle: TransactionBundle, claim: Element) -> str:
    insurance = claim.all("insurance")
    if not insurance:
        raise claim.flaw("insurance", "is required")
    focal = next((item for item in insurance if item.flag("focal")), insurance[0])
    return _member_of(focal, bundle)


def _member_of(insurance: Element, bundle: TransactionBundle | None) -> str:
    """The member id of a Coverage that is contained, in the Bundle, or named by its identifier alone."""
    reference = insurance.one("coverage")
    if reference is None:
        raise insurance.flaw("coverage", "is required")
    resolver = bundle or TransactionBundle([])
    coverage = resolver.resolve(reference, "Coverage")
    if coverage is not None:
        numbers = [value for _, value in coverage.identifiers()]
        member_id = coverage.text("subscriberId") or next(iter(numbers), None)
        if member_id is None:
            raise coverage.flaw("subscriberId", "is required, or an identifier with a value")
        return member_id
    identifier = reference.one("identifier")
    member_id = identifier.text("value") if identifier is not None else None
    if member_id is None:
        raise reference.flaw("reference", "leads to no Coverage that was sent along")
    return member_id


def _related(bundle: TransactionBundle, claim: Element) -> str | None:
    related = claim.all("related")
    if not related:
        return None
    reference = related[0].one("claim")
    if reference is None:
        raise related[0].flaw("claim", "is required")
    identifier = reference.one("identifier")
    if identifier is not None and identifier.text("value") is not None:
        return identifier.text("value")
    prior = bundle.resolve(reference, "Claim")
    if prior is not None and prior.identifiers():
        return prior.identifiers()[0][1]
    read = reference.reference()
    if read.form is not ReferenceForm.RESTFUL:
        raise reference.flaw("reference", "leads to no Claim")
    return f"Claim/{read.id}"


def _items(claim: Element) -> tuple[Item, ...]:
    flaws = Flaws()
    items = []
    for element in claim.all("item"):
        sequence = element.whole("sequence")
        product = element.raw.get("productOrService")
        units = _units(element, flaws)
        if sequence is None or sequence < 1:
            flaws.add(f"{element.path}.sequence", "must be a whole number from 1")
        elif not isinstance(product, Mapping) or not element.concept("productOrService"):
            flaws.add(f"{element.path}.productOrService", "is required, with a code")
        else:
            items.append(Item(sequence, product, units, _is_cancelled(element)))
    if len({item.sequence for item in items}) < len(items):
        flaws.add(f"{claim.path}.item", "must each have a sequence of its own")
    flaws.refuse()
    return tuple(items)


def _is_cancelled(item: Element) -> bool:
    flags = item.all("modifierExtension")
    return any(flag.text("url") == INFO_CANCELLED and flag.flag("valueBoolean") for flag in flags)


def _units(item: Element, flaws: Flaws) -> int:
    quantity = item.one("quantity")
    value = quantity.raw.get("value") if quantity is not None else 1
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 1 or value != int(value):
        flaws.add(f"{item.path}.quantity.value", "must be a whole number from 1")
        return 1
    return int(value)


def _certification(item: Element) -> Certification:
    extension = item.extension(CERTIFICATION_TYPE)
    codes = [coding.code for coding in extension.concept("valueCodeableConcept")] if extension is not None else []
    if not codes:
        raise item.flaw(f"extension('{CERTIFICATION_TYPE}')", "is required, with a code of X12 1322")
    try:
        return Certification(codes[0])
    except ValueError:
        known = ", ".join(Certification)
        raise item.flaw(f"extension('{CERTIFICATION_TYPE}')", f"must be one of {known}") from None


def _extension_text(holder: Element, url: str) -> str | None:
    extension = holder.extension(url)
    return extension.text("valueString") if extension is not None else None


# -- answers --------------------------------------------------------------------------------------------------------


def response_bundle(
    *,
    payer_id: str,
    asked: Request,
    answered: Submission | None,
    ruling: Ruling | None,
    script: Script,
    at: datetime,
    inquiry: bool = False,
) -> Resource:
    """A PAS response Bundle to ``asked`` with the ruling on ``answered``; without one, with the parties alone."""
    profile = "profile-pas-inquiry-response-bundle" if inquiry else "profile-pas-response-bundle"
    entries: list[Mapping[str, object]] = []
    if answered is not None and ruling is not None:
        response = claim_response(
            payer_id=payer_id, asked=asked, answered=answered, ruling=ruling, script=script, inquiry=inquiry
        )
        base = asked.base
        url = f"urn:uuid:{response['id']}" if base is None else f"{base}ClaimResponse/{response['id']}"
        entries.append({"fullUrl": url, "resource": response})
        if ruling.action is ReviewAction.PENDED:
            entries += [
                {"fullUrl": f"urn:uuid:{each['id']}", "resource": each} for each in _asks(payer_id, ruling, script)
            ]
    entries.extend(asked.parties)
    bundle: Resource = {
        "resourceType": "Bundle",
        "id": derived_id("pas-response", payer_id, asked.attempt_id, stamp(at), str(inquiry)),
        "meta": {"profile": [PAS + profile]},
        "identifier": {"system": f"urn:payer:{payer_id}", "value": asked.attempt_id},
        "type": "collection",
        "timestamp": stamp(at),
    }
    return {**bundle, "entry": entries} if entries else bundle


def claim_response(
    *,
    payer_id: str,
    asked: Request,
    answered: Submission,
    ruling: Ruling,
    script: Script,
    inquiry: bool = False,
) -> Resource:
    """The ClaimResponse: ``outcome`` says nothing, the decision is in each item's reviewAction.

    It is dated when it was decided, however often it is asked for: the same resource by the same id.
    """
    profile = "profile-claiminquiryresponse" if inquiry else "profile-claimresponse"
    raw = asked.claim.raw
    response: Resource = {
        "resourceType": "ClaimResponse",
        "id": derived_id("claim-response", payer_id, ruling.claim, ruling.action, stamp(ruling.at)),
        "meta": {"profile": [PAS + profile]},
        "identifier": [dict(asked.claim.all("identifier")[0].raw)],
        "status": "active",
        "type": raw["type"],
        "use": "preauthorization",
        "patient": raw["patient"],
        "created": stamp(ruling.at),
        "insurer": raw["insurer"],
        "requestor": raw["provider"],
        "request": {"reference": answered.reference},
        "outcome": "complete",
        "item": [_answered_item(item, payer_id, ruling, script) for item in answered.items],
    }
    if ruling.action is ReviewAction.PENDED and script.asks:
        response["communicationRequest"] = [
            {"reference": f"urn:uuid:{each['id']}"} for each in _asks(payer_id, ruling, script)
        ]
    if ruling.human_reviewed is not None:
        flag = {"url": "wasHumanReviewedFlag", "valueBoolean": ruling.human_reviewed}
        response["extension"] = [{"extension": [flag], "url": REVIEWER}]
    if ruling.number is not None:
        response["preAuthRef"] = ruling.number
        response["preAuthPeriod"] = _period(ruling)
    if ruling.action is ReviewAction.MODIFIED:
        response["addItem"] = [_added_item(item, ruling, script) for item in answered.items if not item.cancelled]
    return response


def _asks(payer_id: str, ruling: Ruling, script: Script) -> list[Resource]:
    """What is asked for with a pend, as the guide's CommunicationRequest: of the first item, within ten days."""
    return [
        {
            "resourceType": "CommunicationRequest",
            "id": derived_id("communication-request", payer_id, ruling.claim, code),
            "meta": {"profile": [PAS + "profile-communicationrequest"]},
            "extension": [{"url": SERVICE_LINE, "valuePositiveInt": 1}],
            "identifier": [
                {"system": f"urn:payer:{payer_id}", "value": reference_number("ACN", payer_id, ruling.claim, code)}
            ],
            "status": "active",
            "category": [_concept(X12 + "755", "15")],
            "payload": [{"contentString": code}],
            "occurrencePeriod": {"end": stamp(ruling.at + ASKED_WITHIN)},
        }
        for code in script.asks
    ]


def pend_number(payer_id: str, attempt_id: str) -> str:
    """The administration reference number under which a pended request is known."""
    return reference_number("PEND", payer_id, attempt_id)


def _answered_item(item: Item, payer_id: str, ruling: Ruling, script: Script) -> Resource:
    if item.cancelled:
        ruling = ruling.model_copy(update={"action": ReviewAction.CANCELLED, "number": None, "reasons": ()})
    extensions: list[Resource] = []
    if ruling.action in APPROVING:
        extensions += _dates(ruling)
    if ruling.action in (ReviewAction.CERTIFIED, ReviewAction.PARTIAL):
        extensions.append(_authorized_detail(item, granted(script, ruling.action, item.units)))
    if ruling.action is ReviewAction.PENDED:
        extensions.append({"url": ADMINISTRATION_REFERENCE, "valueString": pend_number(payer_id, ruling.claim)})
    answered: Resource = {"itemSequence": item.sequence, "adjudication": [_adjudication(ruling)]}
    return {"extension": extensions, **answered} if extensions else answered


def _added_item(item: Item, ruling: Ruling, script: Script) -> Resource:
    """What a modified approval grants in the item's place."""
    return {
        "extension": _dates(ruling),
        "itemSequence": [item.sequence],
        "productOrService": item.product,
        "quantity": {"value": granted(script, ruling.action, item.units)},
        "adjudication": [_adjudication(ruling)],
    }


def _dates(ruling: Ruling) -> list[Resource]:
    return [
        {"url": ITEM_ISSUE_DATE, "valueDate": ruling.at.date().isoformat()},
        {"url": ITEM_PERIOD, "valuePeriod": _period(ruling)},
    ]


def _period(ruling: Ruling) -> Resource:
    days = {"start": ruling.valid_from, "end": ruling.valid_to}
    return {name: day.isoformat() for name, day in days.items() if day is not None}


def _authorized_detail(item: Item, units: int) -> Resource:
    parts: list[Resource] = [
        {"url": "productOrServiceCode", "valueCodeableConcept": item.product},
        {"url": "quantity", "valueQuantity": {"value": units}},
    ]
    return {"extension": parts, "url": ITEM_AUTHORIZED_DETAIL}


def _adjudication(ruling: Ruling) -> Resource:
    parts: list[Resource] = []
    if ruling.number is not None:
        parts.append({"url": "number", "valueString": ruling.number})
    parts += [{"url": "reasonCode", "valueCodeableConcept": _concept(X12_REASON, code)} for code in ruling.reasons]
    action = _concept(X12 + "306", ruling.action, DISPLAY[ruling.action])
    parts.append({"url": REVIEW_ACTION_CODE, "valueCodeableConcept": action})
    return {
        "extension": [{"extension": parts, "url": REVIEW_ACTION}],
        "category": _concept("http://terminology.hl7.org/CodeSystem/adjudication", "submitted"),
    }


def _concept(system: str, code: str, display: str | None = None) -> Resource:
    coding = {"system": system, "code": str(code)}
    return {"coding": [{**coding, "display": display} if display else coding]}


def notification_bundle(*, payer_id: str, number: int, answer: Resource, at: datetime) -> Resource:
    """A subscription notification with full resource (R4B backport), as the guide's PASSubscriptionNotification."""
    subscription = f"Subscription/{derived_id('pas-subscription', payer_id)}"
    focus = f"urn:uuid:{answer['id']}"
    # The number begins anew with each run of the simulator; the answer's id does not.
    status_id = derived_id("pas-notification", payer_id, str(answer["id"]), str(number))
    status: Resource = {
        "resourceType": "Parameters",
        "id": status_id,
        "meta": {"profile": [BACKPORT + "backport-subscription-status-r4"]},
        "parameter": [
            {"name": "subscription", "valueReference": {"reference": subscription}},
            {"name": "topic", "valueCanonical": TOPIC},
            {"name": "status", "valueCode": "active"},
            {"name": "type", "valueCode": "event-notification"},
            {"name": "events-since-subscription-start", "valueString": str(number)},
            {
                "name": "notification-event",
                "part": [
                    {"name": "event-number", "valueString": str(number)},
                    {"name": "timestamp", "valueInstant": stamp(at)},
                    {"name": "focus", "valueReference": {"reference": focus}},
                ],
            },
        ],
    }
    return {
        "resourceType": "Bundle",
        "id": derived_id("pas-notification-bundle", payer_id, str(answer["id"]), str(number)),
        "meta": {"profile": [BACKPORT + "backport-subscription-notification-r4"]},
        "type": "history",
        "timestamp": stamp(at),
        "entry": [
            {
                "fullUrl": f"urn:uuid:{status_id}",
                "resource": status,
                "request": {"method": "GET", "url": f"{subscription}/$status"},
                "response": {"status": "200"},
            },
            {
                "fullUrl": focus,
                "resource": answer,
                "request": {"method": "GET", "url": f"Bundle/{answer['id']}"},
                "response": {"status": "200"},
            },
        ],
    }


def eligibility_response(request: EligibilityRequest, *, script: Script, at: datetime) -> Resource:
    """The CoverageEligibilityResponse; a lapsed coverage's benefit period ended 30 days ago."""
    raw = request.resource.raw
    payer_says: Resource = {
        "resourceType": "CoverageEligibilityResponse",
        "id": derived_id("eligibility-response", request.member_id, stamp(at)),
        "status": "active",
        "purpose": list(request.purposes),
        "patient": raw["patient"],
        "created": stamp(at),
        "request": {"reference": f"CoverageEligibilityRequest/{request.resource.id or 'unnamed'}"},
        "insurer": raw["insurer"],
    }
    if not script.known:
        error = {"code": _concept(X12 + "901", "75", "Subscriber/Insured Not Found")}
        return {**payer_says, "outcome": "error", "error": [error]}
    last_day = at.date().replace(month=12, day=31) if script.in_force else at.date() - timedelta(days=30)
    period = {"start": last_day.replace(month=1, day=1).isoformat(), "end": last_day.isoformat()}
    coverage = _coverage_reference(request.resource.all("insurance")[0])
    insurance: Resource = {"coverage": coverage, "inforce": script.in_force, "benefitPeriod": period}
    if script.in_force and "auth-requirements" in request.purposes:
        category = _concept("http://terminology.hl7.org/CodeSystem/ex-benefitcategory", "1", "Medical Care")
        insurance["item"] = [{"category": category, "authorizationRequired": True}]
    return {**payer_says, "outcome": "complete", "insurance": [insurance]}


def _coverage_reference(insurance: Element) -> Mapping[str, object]:
    """A reference that means something outside the request: one into its contained resources does not."""
    reference = insurance.one("coverage")
    if reference is None:
        return {}
    literal = reference.text("reference")
    if literal is None or not literal.startswith("#"):
        return dict(reference.raw)
    return {"reference": f"Coverage/{literal[1:]}"}


def operation_outcome(issues: Sequence[tuple[str, str, str | None]]) -> Resource:
    """Issues as (FHIR issue-type code, text, FHIRPath or None)."""
    listed = []
    for code, text, path in issues:
        issue: Resource = {"severity": "error", "code": code, "details": {"text": text}}
        listed.append({**issue, "expression": [path]} if path else issue)
    return {"resourceType": "OperationOutcome", "issue": listed}
