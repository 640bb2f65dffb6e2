"""Synthetic services and patients for the tests of directory, and facts as the kit would load them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from services.directory.hsds import list_command
from services.directory.model import handoff, listing
from services.directory.model.handoff import HandOff, Person
from services.directory.model.listing import CommunityService
from shared.contracts.base import Event
from shared.contracts.intake import Barrier, BarrierRecorded, PersonAddress, PersonChanged
from shared.kit.decisions import NO_FACTS, Facts, Ref, Want
from shared.kit.document import Document, derived_id

NOW = datetime(2026, 3, 2, 15, tzinfo=UTC)
PATIENT = derived_id("test", "patient")


def uid(*parts: str) -> str:
    """A UUID for a thing of these tests."""
    return derived_id("test", *parts)


def record(
    name: str,
    *,
    terms: Iterable[str] = ("transportation",),
    areas: Iterable[str] = ("606*",),
    languages: Iterable[str] = ("en",),
    status: str = "active",
    **more: Any,
) -> dict[str, Any]:
    """A service_full record; ``terms`` are codes of the needs."""
    return {
        "id": uid(name),
        "name": name,
        "status": status,
        "description": f"{name} helps people get to their visits",
        "organization": {"id": uid(name, "organization"), "name": f"{name} Org", "description": "A charity"},
        "languages": [{"id": uid(name, code), "code": code} for code in languages],
        "service_areas": [
            {"id": uid(name, "area", area), "name": "Area", "extent": area, "extent_type": "text"} for area in areas
        ],
        "attributes": [
            {
                "id": uid(name, "attribute", term),
                "taxonomy_term": {"id": uid("term", term), "code": term, "name": term, "description": term},
            }
            for term in terms
        ],
        **more,
    }


def listed(body: dict[str, Any], document: CommunityService | None = None, now: datetime = NOW) -> CommunityService:
    """The service after its record was put."""
    return listing.list_service(document, list_command(body["id"], json.loads(json.dumps(body))), NO_FACTS, now)


def person(
    postal_code: str | None = "60601", city: str | None = "Chicago", state: str | None = "IL", language: str = "en"
) -> Person:
    """A person who is known to directory."""
    return handoff.keep_person(None, changed(postal_code, city, state, language), NO_FACTS, NOW)


def changed(
    postal_code: str | None = "60601", city: str | None = "Chicago", state: str | None = "IL", language: str = "en"
) -> PersonChanged:
    """What intake says of the patient."""
    address = PersonAddress(postal_code=postal_code, city=city, state=state)
    return PersonChanged(patient_id=PATIENT, address=address, language=language)


class World:
    """One hand-off among services and its patient; delivers the hand-off's own events until there are none."""

    def __init__(self, *services: CommunityService, who: Person | None = None) -> None:
        self.services = {service.id: service for service in services}
        self.person = who
        self.handoff: HandOff | None = None
        self.events: list[Event] = []
        self.now = NOW

    def facts(self, wants: Iterable[Want]) -> Facts:
        """What the store holds of what is wanted."""
        return Facts({want: self._load(want) for want in wants})

    def _load(self, want: Want) -> list[Document]:
        pool: list[Document] = []
        if want.document is CommunityService:
            pool = list(self.services.values())
        elif want.document is Person and self.person is not None:
            pool = [self.person]
        elif want.document is HandOff and self.handoff is not None:
            pool = [self.handoff]
        if isinstance(want, Ref):
            return [one for one in pool if one.id == want.id]
        held = [one for one in pool if self._holds(getattr(one, want.field), want.value)]
        return sorted(held, key=lambda one: one.id)[: want.limit]

    @staticmethod
    def _holds(value: Any, wanted: str) -> bool:
        return wanted in value if isinstance(value, tuple) else value == wanted

    def open(self, barrier: Barrier = Barrier.TRANSPORTATION, language: str = "en") -> HandOff:
        """Record the barrier, and let the hand-off react to its own events."""
        event = BarrierRecorded(patient_id=PATIENT, barrier=barrier, language=language)
        self.handoff = handoff.open_for_barrier(None, event, NO_FACTS, self.now)
        return self.settle()

    def deliver(self, event: Event) -> HandOff:
        """Let the hand-off react to an event, and to those of its own that follow."""
        self._react(event)
        return self.settle()

    def do(self, command: Any, decide: Callable[..., HandOff], wants: Any = None) -> HandOff:
        """A request."""
        assert self.handoff is not None
        facts = self.facts(wants(command, self.handoff)) if wants else NO_FACTS
        self.handoff = decide(self.handoff, command, facts, self.now)
        return self.settle()

    def settle(self) -> HandOff:
        """Deliver what the hand-off recorded, until it records nothing more."""
        assert self.handoff is not None
        while recorded := list(self.handoff.recorded()):
            self.handoff.recorded().clear()
            self.events.extend(recorded)
            for event in recorded:
                self._react(event)
        return self.handoff

    def _react(self, event: Event) -> None:
        from services.directory.reactions import REACTIONS

        table = next(table for table in REACTIONS if table.document is HandOff)
        row = table.rows.get(event.type)
        if row is None or self.handoff is None:
            return
        decide = row.decision_for(self.handoff)
        if decide is None:
            return
        wants = row.wants(event, self.handoff) if row.wants else ()
        self.handoff = decide(self.handoff, event, self.facts(wants), self.now)

    def seen(self, event: type[Event]) -> list[Event]:
        """The events of a type that the hand-off recorded."""
        return [one for one in self.events if isinstance(one, event)]
