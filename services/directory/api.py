"""The HSDS 3.0 API of the directory, what editors do beside it, and the hand-offs that people answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import Query
from pydantic import BaseModel, ConfigDict

from services.directory import hsds
from services.directory.model import handoff, listing
from services.directory.model.handoff import Declined, HandOff, Step
from services.directory.model.listing import CommunityService, ContactChannel, ContactResult
from services.directory.model.needs import language as language_code
from services.directory.model.needs import words_of
from services.directory.model.places import area_key, covering
from shared.contracts.directory import HandOffOutcome, ServiceStatus
from shared.contracts.intake import Barrier
from shared.kit import shown
from shared.kit.api import Call, DocumentId, Reply, Routes
from shared.kit.auth import Role
from shared.kit.errors import Flaw, Invalid

READERS = frozenset(
    {Role.COORDINATOR, Role.CLINICIAN, Role.SCHEDULER, Role.DIRECTORY_EDITOR, Role.AUDITOR, Role.OPERATOR, Role.SERVICE}
)
EDITORS = frozenset({Role.DIRECTORY_EDITOR})
FOLLOWERS = frozenset({Role.COORDINATOR, Role.AUDITOR})
ANSWERERS = frozenset({Role.COORDINATOR, Role.SERVICE})

CHUNK = 500
"""How many matching services are read at a time to count and page them."""


class Body(BaseModel):
    """A request body; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NewContact(Body):
    """An entry for the contact log."""

    channel: ContactChannel
    result: ContactResult


class NewHandOff(Body):
    """A hand-off opened by hand."""

    patient_id: DocumentId
    barrier: Barrier
    language: str = "en"


class Pick(Body):
    """The service to ask, or the one that answers."""

    service_id: DocumentId


class No(Body):
    """A service's refusal."""

    service_id: DocumentId
    reason: Declined = Declined.OTHER


class End(Body):
    """How a hand-off ended."""

    outcome: HandOffOutcome


class Search(BaseModel):
    """The filters of GET /services, all of which must hold (HSDS API 3.0, and ours: need, area, language, status)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    page: Annotated[int, Query(ge=1, le=100_000)] = 1
    per_page: Annotated[int, Query(ge=1, le=500)] = 50
    format: Literal["json"] = "json"
    search: str | None = None
    taxonomy_term_id: DocumentId | None = None
    taxonomy_id: DocumentId | None = None
    organization_id: DocumentId | None = None
    modified_after: datetime | None = None
    minimal: bool = False
    full: bool = False
    postcode: str | None = None
    area: str | None = None
    need: Barrier | None = None
    language: str | None = None
    status: ServiceStatus | None = None
    stale: bool | None = None

    def conditions(self) -> dict[str, object]:
        """What the store can compare by its indexes."""
        found: dict[str, object] = {}
        if self.status is not None:
            found["state"] = self.status.value
        if self.need is not None:
            found["needs"] = self.need.value
        if self.language is not None:
            found["languages"] = language_code(self.language)
        if self.taxonomy_term_id is not None:
            found["terms"] = self.taxonomy_term_id
        if self.taxonomy_id is not None:
            found["taxonomies"] = self.taxonomy_id
        if self.organization_id is not None:
            found["organization_id"] = self.organization_id
        if self.stale is not None:
            found["stale"] = self.stale
        if words := words_of((self.search,)):
            found["words"] = words[0]
        return found

    def keeps(self) -> Callable[[CommunityService], bool]:
        """What is left to compare. Raises Invalid for an area that means no place."""
        words = frozenset(words_of((self.search,)))
        places = [self._places("postcode", self.postcode), self._places("area", self.area)]
        since = self.modified_after
        if since is not None and since.tzinfo is None:
            since = since.replace(tzinfo=UTC)

        def keep(service: CommunityService) -> bool:
            if not words <= frozenset(service.words):
                return False
            if since is not None and service.listed_at < since:
                return False
            return all(place is None or not place.isdisjoint(service.reach) for place in places)

        return keep

    @staticmethod
    def _places(field: str, text: str | None) -> frozenset[str] | None:
        if text is None:
            return None
        key = area_key(text)
        if key is None or (field == "postcode" and not key.startswith("zip")):
            raise Invalid(flaws=[Flaw(field, "is not a place: 60601, 606*, US-IL, Springfield IL or US")])
        return frozenset(covering(key))


async def _matching(call: Call, search: Search) -> list[CommunityService]:
    """The services that meet all filters, ordered by id."""
    keep, conditions = search.keeps(), search.conditions()
    found: list[CommunityService] = []
    after: str | None = None
    while True:
        chunk = await call.page(CommunityService, conditions, limit=CHUNK, after=after)
        found.extend(service for service in chunk if keep(service))
        if len(chunk) < CHUNK:
            return found
        after = chunk[-1].id


def _shown(document: HandOff) -> dict[str, object]:
    """A hand-off, without where the patient lives."""
    return {
        "id": document.id,
        "version": document.version,
        "state": document.state.value,
        "patient_id": document.patient_id,
        "barrier": document.barrier.value,
        "language": document.language,
        "service_id": document.offered_to,
        "declines": [{"service_id": one.service_id, "reason": one.reason.value} for one in document.declines],
        "outcome": document.outcome.value if document.outcome else None,
        "wait": shown.wait(document),
    }


def _services() -> Routes:
    routes = Routes()

    @routes.get("/", roles=READERS)
    async def about(call: Call) -> Reply:
        """What this API speaks (HSDS API 3.0)."""
        return Reply(200, {"version": hsds.VERSION, "profile": hsds.PROFILE, "openapi_url": hsds.OPENAPI})

    @routes.get("/services", roles=READERS)
    async def search_services(search: Annotated[Search, Query()], call: Call) -> Reply:
        """Services that meet all filters, in the HSDS page envelope, ordered by id."""
        found = await _matching(call, search)
        start = (search.page - 1) * search.per_page
        chosen: Sequence[CommunityService] = found[start : start + search.per_page]
        show = hsds.minimal if search.minimal else hsds.full if search.full else hsds.summary
        return Reply(200, hsds.page([show(one) for one in chosen], len(found), search.page, search.per_page))

    @routes.get("/services/{id}", roles=READERS)
    async def read_service(id: DocumentId, call: Call) -> Reply:
        """The fully nested record."""
        service = await call.read(CommunityService, id)
        return call.show(service, hsds.full(service))

    @routes.put("/services/{id}", roles=EDITORS)
    async def list_service(id: DocumentId, body: dict[str, object], call: Call) -> Reply:
        """List a service or replace its record: the HSDS ``service_full`` shape."""
        command = hsds.list_command(id.lower(), body)
        return await call.put(CommunityService, command.id, command, listing.list_service)

    @routes.post("/services/{id}/verify", roles=EDITORS)
    async def verify_service(id: DocumentId, call: Call) -> Reply:
        """Somebody made sure that the record is right."""
        command = listing.VerifyService(by=call.caller.subject)
        return await call.change(CommunityService, id, command, listing.verify_service)

    @routes.get("/services/{id}/contacts", roles=EDITORS | {Role.COORDINATOR})
    async def read_contacts(id: DocumentId, call: Call) -> Reply:
        """The contact log, newest first, and when the record was verified."""
        service = await call.read(CommunityService, id)
        entries = [entry.model_dump(mode="json") for entry in reversed(service.contacts)]
        verified = service.verified_at.isoformat() if service.verified_at else None
        return call.show(service, {"verified_at": verified, "stale": service.stale, "contacts": entries})

    @routes.post("/services/{id}/contacts", roles=EDITORS | {Role.COORDINATOR})
    async def log_contact(id: DocumentId, body: NewContact, call: Call) -> Reply:
        """Add to the contact log."""
        command = listing.LogContact(by=call.caller.subject, channel=body.channel, result=body.result)
        return await call.change(CommunityService, id, command, listing.log_contact)

    return routes


def _handoffs() -> Routes:
    routes = Routes(prefix="/handoffs")

    @routes.get("", roles=FOLLOWERS)
    async def find_handoffs(
        call: Call,
        patient_id: DocumentId | None = None,
        state: Step | None = None,
        barrier: Barrier | None = None,
        service_id: DocumentId | None = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
        after: DocumentId | None = None,
    ) -> Reply:
        """Hand-offs by patient, state, need and asked service, ordered by id; ``next`` continues."""
        wanted = {
            "patient_id": patient_id,
            "state": state.value if state else None,
            "barrier": barrier.value if barrier else None,
            "offered_to": service_id,
        }
        conditions = {field: value for field, value in wanted.items() if value is not None}
        found = await call.page(HandOff, conditions, limit=limit, after=after)
        more = found[-1].id if len(found) == limit else None
        return Reply(200, {"items": [_shown(one) for one in found], "next": more})

    @routes.get("/{id}", roles=FOLLOWERS | ANSWERERS)
    async def read_handoff(id: DocumentId, call: Call) -> Reply:
        """Where a hand-off stands, and what it waits for."""
        document = await call.read(HandOff, id)
        return call.show(document, _shown(document))

    @routes.post("", roles={Role.COORDINATOR}, status=201)
    async def open_handoff(body: NewHandOff, call: Call) -> Reply:
        """Open a hand-off for a need that came up again."""
        command = handoff.OpenHandOff(
            id=call.new_id("handoff"), patient_id=body.patient_id, barrier=body.barrier, language=body.language
        )
        return await call.create(HandOff, command.id, command, handoff.open_again, wants=handoff.others_of_patient)

    @routes.post("/{id}/offer", roles={Role.COORDINATOR})
    async def offer_handoff(id: DocumentId, body: Pick, call: Call) -> Reply:
        """Ask a service that the coordinator picked."""
        command = handoff.OfferTo(body.service_id)
        return await call.change(HandOff, id, command, handoff.offer_to, wants=handoff.asked_service)

    @routes.post("/{id}/accept", roles=ANSWERERS)
    async def accept_handoff(id: DocumentId, body: Pick, call: Call) -> Reply:
        """The asked service will help."""
        return await call.change(HandOff, id, handoff.AcceptOffer(body.service_id), handoff.accept)

    @routes.post("/{id}/decline", roles=ANSWERERS)
    async def decline_handoff(id: DocumentId, body: No, call: Call) -> Reply:
        """The asked service will not help; the next is looked for."""
        return await call.change(HandOff, id, handoff.DeclineOffer(body.service_id, body.reason), handoff.decline)

    @routes.post("/{id}/close", roles=ANSWERERS)
    async def close_handoff(id: DocumentId, body: End, call: Call) -> Reply:
        """The need was met, or is no longer followed."""
        return await call.change(HandOff, id, handoff.CloseHandOff(body.outcome), handoff.close)

    return routes


def routes() -> tuple[Routes, ...]:
    """The routes of directory."""
    return (_services(), _handoffs())
