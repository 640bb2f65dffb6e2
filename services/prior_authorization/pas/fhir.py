"""The small parts that all outgoing FHIR is made of."""

from __future__ import annotations

from dataclasses import dataclass

from shared.contracts.base import Coding

Resource = dict[str, object]


@dataclass(frozen=True, slots=True)
class Sent:
    """A resource of a Bundle and how others refer to it."""

    id: str
    resource: Resource

    @property
    def url(self) -> str:
        """Its fullUrl: absolute, and the same in every Bundle that holds it."""
        return f"urn:uuid:{self.id}"

    @property
    def reference(self) -> Resource:
        """A reference to it."""
        return {"reference": self.url}

    @property
    def entry(self) -> Resource:
        """Its entry."""
        return {"fullUrl": self.url, "resource": self.resource}


def coded(url: str, system: str, code: str) -> Resource:
    """An extension that holds one code."""
    return {"url": url, "valueCodeableConcept": concept(system, code)}


def concept(system: str, code: str) -> Resource:
    """A CodeableConcept of one code."""
    return {"coding": [{"system": system, "code": str(code)}]}


def concept_of(coding: Coding) -> Resource:
    """A CodeableConcept of one coding."""
    return concept(coding.system, coding.code)
