"""PAS request and inquiry Bundles: the Claim first, absolute fullUrls, every reference resolvable inside.

Times in a Bundle come from when the claim was opened, so that a claim sent again is the same Bundle again. A claim that
follows another brings that one along (PAS 2.2.1, "Updating Authorization Requests"), as it was sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from services.prior_authorization.model.authorization import Authorization, Kind, Submission
from services.prior_authorization.model.items import Attachment, Item
from services.prior_authorization.model.member import Member
from services.prior_authorization.pas import codes
from services.prior_authorization.pas.codes import Certification
from services.prior_authorization.pas.fhir import Resource, Sent, coded, concept, concept_of
from services.prior_authorization.pas.orders import MANNERS, order_id, order_of, quantity_of, service_of
from services.prior_authorization.pas.parties import Parties, Requestor, parties_of, provider_of
from shared.kit.document import derived_id
from shared.kit.shown import instant

__all__ = [
    "Contents",
    "Requestor",
    "Resource",
    "appeal_request",
    "cancel_request",
    "initial_request",
    "inquiry",
    "update_request",
]

Contents = Mapping[int, str]
"""What the attachments hold, by their numbers: base64."""

NOTHING: Contents = MappingProxyType({})


_UPDATING = frozenset({Certification.REVISED, Certification.EXTENSION})

_FIRST = frozenset({Certification.INITIAL, Certification.RENEWAL})
"""What is asked for by a claim that follows no other."""


@dataclass(frozen=True, slots=True)
class _Case:
    """What all claims of one authorization are made from."""

    document: Authorization
    parties: Parties
    contents: Contents
    whole: bool = True
    """Whether attachments go along: to call a request off needs none."""


def initial_request(
    document: Authorization, member: Member, submission: Submission, requestor: Requestor, contents: Contents = NOTHING
) -> Resource:
    """The request for approval (certificationType I; R where approved care goes on). Raises ValueError where an
    attachment's contents are missing.

    One that takes a refused one's place is a first request to the payer: the profile allows no related claim there.
    """
    case = _Case(document, parties_of(document, member, requestor), contents)
    return _request(case, submission.model_copy(update={"prior": None}), _first(document))


def appeal_request(
    document: Authorization, member: Member, submission: Submission, requestor: Requestor, contents: Contents = NOTHING
) -> Resource:
    """The appeal of a denied claim (certificationType 1 or 2): a claim of its own, related to that one."""
    case = _Case(document, parties_of(document, member, requestor), contents)
    return _request(case, submission, _certification(document, submission))


def update_request(
    document: Authorization, member: Member, submission: Submission, requestor: Requestor, contents: Contents = NOTHING
) -> Resource:
    """The update of a claim that is pended or granted (certificationType S): all items there ever were, each that
    differs from the claim before flagged as added or changed, those dropped as cancelled."""
    case = _Case(document, parties_of(document, member, requestor), contents)
    return _request(case, submission, _certification(document, submission))


def cancel_request(document: Authorization, member: Member, requestor: Requestor, opened_at: datetime) -> Resource:
    """The withdrawal of a claim (certificationType 3). Raises ValueError where none was sent."""
    newest = document.newest
    if newest is None or document.cancel_id is None:
        raise ValueError("there is no claim to cancel")
    prior = document.cancels or newest.id
    cancelling = Submission(id=document.cancel_id, kind=Kind.INITIAL, prior=prior, opened_at=opened_at)
    case = _Case(document, parties_of(document, member, requestor), NOTHING, whole=False)
    return _request(case, cancelling, Certification.CANCEL)


def inquiry(document: Authorization, member: Member, requestor: Requestor, asked_at: datetime) -> Resource:
    """The question after the newest claim. Raises ValueError where none was sent."""
    newest = document.newest
    if newest is None:
        raise ValueError("there is no claim to ask about")
    case = _Case(document, parties_of(document, member, requestor), NOTHING)
    id = derived_id("inquiry", newest.id)
    certification = _certification(document, newest)
    claim: Resource = {
        **_claim_head(case, id, newest.id, codes.CLAIM_INQUIRY, newest.opened_at),
        "item": [
            {
                "extension": _item_types(item, certification),
                "sequence": item.sequence,
                "productOrService": service_of(item),
            }
            for item in _items_of(case, newest)
        ],
    }
    return _bundle(codes.INQUIRY_BUNDLE, newest.id, asked_at, (Sent(id, claim), *case.parties.all))


# -- the Bundle -----------------------------------------------------------------------------------------------------


def _request(case: _Case, submission: Submission, certification: Certification) -> Resource:
    document = case.document
    prior = document.submission((submission.prior,)) if submission.prior is not None else None
    claims = [Sent(submission.id, _claim(case, submission, certification, prior))]
    if prior is not None:
        claims.append(Sent(prior.id, _claim(case, prior, _certification(document, prior), None)))
    orders = [order_of(document, item, case.parties) for item in _items_of(case, submission)]
    providers = [provider_of(provider) for provider in document.providers]
    documents = [_document(case, attachment) for attachment in _attached(case, submission)]
    entries = (*claims, *case.parties.all, *_each_once(orders), *_each_once(providers), *documents)
    return _bundle(codes.REQUEST_BUNDLE, submission.id, submission.opened_at, entries)


def _bundle(profile: str, transaction: str, at: datetime, sent: Iterable[Sent]) -> Resource:
    return {
        "resourceType": "Bundle",
        "id": derived_id("pas-bundle", profile, transaction),
        "meta": {"profile": [profile]},
        "identifier": {"system": codes.TRANSACTION_SYSTEM, "value": transaction},
        "type": "collection",
        "timestamp": instant(at),
        "entry": [each.entry for each in sent],
    }


def _each_once(sent: Iterable[Sent]) -> list[Sent]:
    return list({each.id: each for each in sent}.values())


# -- the Claim ------------------------------------------------------------------------------------------------------


def _claim(case: _Case, submission: Submission, certification: Certification, prior: Submission | None) -> Resource:
    document = case.document
    initial = certification in _FIRST
    profile = codes.CLAIM if initial else codes.CLAIM_UPDATE
    before = {item.sequence: item for item in _items_of(case, prior)} if prior is not None else None
    claim: Resource = {
        **_claim_head(case, submission.id, submission.id, profile, submission.opened_at),
        **_related(submission, included=prior is not None),
        **_care_team(document),
        **_supporting(case, submission, prior),
        **_diagnoses(document),
        "item": [_item(case, item, certification, before) for item in _items_of(case, submission)],
    }
    extensions = [coded(codes.LEVEL_OF_SERVICE, codes.X12_LEVEL_OF_SERVICE, "U")] if document.expedited else []
    if not initial:
        extensions.append(coded(codes.CERTIFICATION_TYPE, codes.X12_CERTIFICATION_TYPE, certification))
    return {**claim, "extension": extensions} if extensions else claim


def _claim_head(case: _Case, id: str, identifier: str, profile: str, at: datetime) -> Resource:
    parties = case.parties
    priority = "stat" if case.document.expedited else "normal"
    return {
        "resourceType": "Claim",
        "id": id,
        "meta": {"profile": [profile]},
        "identifier": [{"system": codes.CLAIM_SYSTEM, "value": identifier}],
        "status": "active",
        "type": concept(codes.THO + "claim-type", "professional"),
        "use": "preauthorization",
        "patient": parties.patient.reference,
        "created": instant(at),
        "insurer": parties.insurer.reference,
        "provider": parties.requestor.reference,
        "priority": concept(codes.THO + "processpriority", priority),
        "insurance": [{"sequence": 1, "focal": True, "coverage": parties.coverage.reference}],
    }


def _certification(document: Authorization, submission: Submission) -> Certification:
    """What a claim asks for, of those that are kept on the authorization."""
    if submission.kind is Kind.APPEAL:
        soon = submission.expedited or document.expedited
        return Certification.APPEAL_IMMEDIATE if soon else Certification.APPEAL_STANDARD
    if submission.kind is not Kind.UPDATE:
        return _first(document)
    return Certification.EXTENSION if submission.extends else Certification.REVISED


def _first(document: Authorization) -> Certification:
    """What the authorization's first claim asks for."""
    return Certification.INITIAL if document.renews is None else Certification.RENEWAL


def _items_of(case: _Case, submission: Submission) -> tuple[Item, ...]:
    """The items as this claim has them; one sent before items were kept by claim has the authorization's."""
    if submission.items is not None:
        return submission.items
    prior = case.document.submission((submission.prior,)) if submission.prior is not None else None
    return prior.items if prior is not None and prior.items is not None else case.document.items


def _related(submission: Submission, *, included: bool) -> Resource:
    """The claim before. The one before that is named by its number alone, for it is not brought along."""
    if submission.prior is None:
        return {}
    prior: Resource = {"type": "Claim", "identifier": {"system": codes.CLAIM_SYSTEM, "value": submission.prior}}
    if included:
        prior["reference"] = f"urn:uuid:{submission.prior}"
    relationship = concept(codes.THO + "ex-relatedclaimrelationship", "prior")
    return {"related": [{"claim": prior, "relationship": relationship}]}


def _care_team(document: Authorization) -> Resource:
    """Who is to give the care: for the whole claim, or for the items that name them."""
    if not document.providers:
        return {}
    named = {sequence for item in document.items for sequence in item.providers}
    return {
        "careTeam": [
            {
                "extension": [{"url": codes.CARE_TEAM_SCOPE, "valueBoolean": provider.sequence not in named}],
                "sequence": provider.sequence,
                "provider": provider_of(provider).reference,
                "role": concept(codes.X12_ENTITY, provider.role),
            }
            for provider in document.providers
        ]
    }


def _diagnoses(document: Authorization) -> Resource:
    """The diagnoses in systems that payers take, by their place among all; SNOMED CT is not among them."""
    known = _known_diagnoses(document)
    if not known:
        return {}
    listed: list[Resource] = []
    for sequence in known:
        diagnosis: Resource = {
            "sequence": sequence,
            "diagnosisCodeableConcept": concept_of(document.diagnoses[sequence - 1]),
        }
        if sequence == known[0]:
            diagnosis["type"] = [concept(codes.PAS_CODES, "principal")]
        listed.append(diagnosis)
    return {"diagnosis": listed}


def _known_diagnoses(document: Authorization) -> list[int]:
    numbered = enumerate(document.diagnoses, 1)
    return [sequence for sequence, coding in numbered if coding.system in codes.DIAGNOSIS_SYSTEMS]


# -- items ----------------------------------------------------------------------------------------------------------


def _item(case: _Case, item: Item, certification: Certification, before: Mapping[int, Item] | None) -> Resource:
    document = case.document
    order: Resource = {
        "url": codes.REQUESTED_SERVICE,
        "valueReference": {"reference": f"urn:uuid:{order_id(document, item)}"},
    }
    change = _change(item, None if before is None else before.get(item.sequence), certification, before is None)
    own = _own_certification(document, item, certification, change)
    sent: Resource = {
        "extension": [*_item_types(item, own), *_renewed(document), order, *_changed(change)],
        "sequence": item.sequence,
        "category": concept(codes.X12_SERVICE_TYPE, MANNERS[item.kind].service_type),
        "productOrService": service_of(item),
        "locationCodeableConcept": concept(codes.PLACE_OF_SERVICE, item.place or MANNERS[item.kind].place),
        "quantity": quantity_of(item),
        **_pointers(document, item),
        **_when(item),
    }
    if item.modifiers:
        sent["modifier"] = [concept_of(modifier) for modifier in item.modifiers]
    if item.dropped:
        sent["modifierExtension"] = [{"url": codes.INFO_CANCELLED, "valueBoolean": True}]
    return sent


def _item_types(item: Item, certification: Certification) -> list[Resource]:
    """What kind of review is asked for, and for the first time or how else."""
    return [
        coded(codes.REQUEST_TYPE, codes.X12_REQUEST_CATEGORY, MANNERS[item.kind].request),
        coded(codes.CERTIFICATION_TYPE, codes.X12_CERTIFICATION_TYPE, certification),
    ]


def _renewed(document: Authorization) -> list[Resource]:
    """The number under which the care was approved before, where it goes on."""
    if document.renewed_number is None:
        return []
    return [{"url": codes.AUTHORIZATION_NUMBER, "valueString": document.renewed_number}]


def _own_certification(
    document: Authorization, item: Item, certification: Certification, change: str | None
) -> Certification:
    """An item of an update stands for itself: cancelled, revised, asked for as it first was, or for the first time."""
    if item.dropped:
        return Certification.CANCEL
    if certification not in _UPDATING:
        return certification
    if change == "added":
        return Certification.INITIAL
    return certification if change == "changed" else _first(document)


def _change(item: Item, was: Item | None, certification: Certification, alone: bool) -> str | None:
    """How an item of an update differs from the claim before; a claim brought along says nothing of the kind."""
    if certification not in _UPDATING or alone:
        return None
    if was is None:
        return "added"
    return None if was == item else "changed"


def _changed(change: str | None) -> list[Resource]:
    return [] if change is None else [{"url": codes.INFO_CHANGED, "valueCode": change}]


def _pointers(document: Authorization, item: Item) -> Resource:
    known = _known_diagnoses(document)
    pointed = [sequence for sequence in item.diagnoses or known if sequence in known]
    found: Resource = {"diagnosisSequence": pointed} if pointed else {}
    return {**found, "careTeamSequence": list(item.providers)} if item.providers else found


def _when(item: Item) -> Resource:
    if item.starts is None and item.ends is None:
        return {}
    if item.starts is not None and item.starts == item.ends:
        return {"servicedDate": item.starts.isoformat()}
    days = {"start": item.starts, "end": item.ends}
    return {"servicedPeriod": {name: day.isoformat() for name, day in days.items() if day is not None}}


# -- attachments ----------------------------------------------------------------------------------------------------


def _attached(case: _Case, submission: Submission) -> list[Attachment]:
    """What goes along with a claim; a claim that follows another has all that went along with that one."""
    return [each for each in case.document.attachments if case.whole and each.sequence in submission.attached]


def _supporting(case: _Case, submission: Submission, prior: Submission | None) -> Resource:
    """What goes along, each with the number by which its report is known; those of an update that are new say so."""
    attached = _attached(case, submission)
    listed = [_supporting_info(case.document, each, submission, prior) for each in attached]
    return {"supportingInfo": listed} if listed else {}


def _supporting_info(
    document: Authorization, attachment: Attachment, submission: Submission, prior: Submission | None
) -> Resource:
    about: Resource = {
        "url": codes.DOCUMENT_INFORMATION,
        "extension": [
            coded("reportTypeCode", codes.X12_REPORT_TYPE, attachment.report),
            coded("transmissionMethod", codes.X12_TRANSMISSION, "EL"),
            {"url": "controlNumber", "valueString": attachment.control or f"{submission.id[:8]}-{attachment.sequence}"},
        ],
    }
    extensions = [about]
    info: Resource = {
        "extension": extensions,
        "sequence": attachment.sequence,
        "category": concept(codes.PAS_CODES, "additionalInformation"),
        "valueReference": {"reference": f"urn:uuid:{_document_id(document, attachment)}"},
    }
    if submission.kind is Kind.UPDATE and prior is not None and attachment.sequence not in prior.attached:
        extensions.append({"url": codes.INFO_CHANGED, "valueCode": "added"})
    if attachment.dropped:
        info["modifierExtension"] = [{"url": codes.INFO_CANCELLED, "valueBoolean": True}]
    return info


def _document(case: _Case, attachment: Attachment) -> Sent:
    contents = case.contents.get(attachment.sequence)
    if contents is None:
        raise ValueError("the contents of an attachment are missing")
    id = _document_id(case.document, attachment)
    return Sent(
        id,
        {
            "resourceType": "DocumentReference",
            "id": id,
            "meta": {"profile": [codes.DOCUMENT_REFERENCE]},
            "status": "current",
            "type": concept_of(attachment.type),
            "category": [concept(codes.DOCUMENT_CATEGORY, "clinical-note")],
            "subject": case.parties.patient.reference,
            "content": [{"attachment": {"contentType": attachment.content_type, "data": contents}}],
        },
    )


def _document_id(document: Authorization, attachment: Attachment) -> str:
    return derived_id("attachment", document.id, str(attachment.sequence))
