"""Reading what a payer requires: the extension ``ext-coverage-information`` of Da Vinci CRD on an order.

Taken are the orders and visits it may stand on, or a whole CDS Hooks response whose system actions carry them. A code
that CRD does not have, and words that contradict each other, are refused with the place. Text is not kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Any, TypeVar

from services.prior_authorization.model.requirement import (
    Authority,
    CoverageInformation,
    Covered,
    DocNeeded,
    DocPurpose,
    InfoNeeded,
    PaNeeded,
)
from shared.contracts.base import Coding
from shared.kit.errors import Flaw, Invalid

URL = "http://hl7.org/fhir/us/davinci-crd/StructureDefinition/ext-coverage-information"

_SERVICE_AT = {
    "Appointment": ("serviceType",),
    "CommunicationRequest": ("payload",),
    "DeviceRequest": ("codeCodeableConcept",),
    "Encounter": ("serviceType", "type"),
    "MedicationRequest": ("medicationCodeableConcept",),
    "NutritionOrder": (),
    "ServiceRequest": ("code",),
    "VisionPrescription": (),
}
"""Where each resource that the extension may stand on names its service."""

_ID = re.compile(r"[A-Za-z0-9.-]{1,64}")
_TOKEN = re.compile(r"[\x21-\x7e]{1,100}")
_NUMBER = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._/#-]{0,49}")
_MOST = 50

E = TypeVar("E", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Told:
    """What a payer said of one order: for which coverage, of which codes."""

    coverage_id: str
    services: tuple[Coding, ...]
    information: CoverageInformation


def read_coverage(raw: object, today: date) -> tuple[Told, ...]:
    """What a payer says in an order with the extension, or in a CDS Hooks response. Raises Invalid with the places."""
    told: list[Told] = []
    for path, resource in _orders(raw):
        kind = resource.get("resourceType")
        if not isinstance(kind, str) or kind not in _SERVICE_AT:
            raise _invalid(f"{path}.resourceType", "is none that coverage-information may stand on")
        told += _of_order(path, resource, _SERVICE_AT[kind], today)
    if not told:
        raise _invalid("extension", "holds no coverage-information")
    if len(told) > _MOST:
        raise _invalid("extension", f"holds more than {_MOST} assertions")
    return _told_apart(told)


def _orders(raw: object) -> list[tuple[str, Mapping[str, Any]]]:
    if not isinstance(raw, Mapping):
        raise _invalid("Resource", "is not an object")
    if "systemActions" not in raw:
        kind = raw.get("resourceType")
        known = isinstance(kind, str) and kind in _SERVICE_AT
        return [(str(kind) if known else "Resource", raw)]  # What is not one of ours may be anybody's name.
    found = []
    for n, action in enumerate(_list(raw.get("systemActions"), "systemActions")):
        resource = action.get("resource") if isinstance(action, Mapping) else None
        if isinstance(resource, Mapping):
            found.append((f"systemActions[{n}].resource", resource))
    return found


def _of_order(path: str, resource: Mapping[str, Any], names: Sequence[str], today: date) -> list[Told]:
    own = _codings(item for name in names for item in _many(resource.get(name)))
    found = []
    for n, extension in enumerate(_list(resource.get("extension", []), f"{path}.extension")):
        if isinstance(extension, Mapping) and extension.get("url") == URL:
            found.append(_assertion(f"{path}.extension[{n}]", extension, own, today))
    return found


def _assertion(path: str, extension: Mapping[str, Any], own: tuple[Coding, ...], today: date) -> Told:
    parts = _Parts(path, _list(extension.get("extension"), f"{path}.extension"))
    assertion = parts.text("coverage-assertion-id", _TOKEN, needed=True)
    billed = _codings({"coding": [each]} for each in parts.values("billingCode", "valueCoding"))
    services = billed or own
    if not services:
        raise _invalid(path, "is about no service that has a code")
    asserted_on = parts.day("date", needed=True)
    if asserted_on is not None and (asserted_on - today).days > 1:
        raise _invalid(f"{path}.date", "lies ahead")
    reasons = _codings(parts.values("reason", "valueCodeableConcept"))
    information = CoverageInformation(
        covered=parts.code("covered", Covered) or _absent(path, "covered"),
        pa_needed=parts.code("pa-needed", PaNeeded),
        doc_needed=parts.codes("doc-needed", DocNeeded),
        doc_purpose=parts.codes("doc-purpose", DocPurpose),
        info_needed=parts.codes("info-needed", InfoNeeded),
        questionnaires=parts.texts("questionnaire", "valueCanonical"),
        reasons=tuple(reason.code for reason in reasons),
        satisfied_pa_id=parts.text("satisfied-pa-id", _NUMBER),
        asserted_on=asserted_on,
        expires_on=parts.day("expiry-date"),
        source=Authority.PAYER,
        why=f"payer:{assertion}",
    )
    broken = information.contradictions()
    if broken:
        raise Invalid("The payer contradicts itself", flaws=[Flaw(path, name) for name in broken])
    return Told(parts.coverage(), services, information)


def _told_apart(told: Sequence[Told]) -> tuple[Told, ...]:
    """Assertions of one coverage and service may not differ (CRD: a repetition is for another coverage or code)."""
    known: dict[tuple[str, str, str], CoverageInformation] = {}
    for each in told:
        for service in each.services:
            key = (each.coverage_id, service.system, service.code)
            if known.setdefault(key, each.information) != each.information:
                raise _invalid("extension", "says two things of one service and coverage")
    return tuple(told)


class _Parts:
    """The parts of one coverage-information, by name."""

    def __init__(self, path: str, parts: Sequence[Any]) -> None:
        self._path = path
        self._parts: dict[str, list[Mapping[str, Any]]] = {}
        for part in parts:
            if isinstance(part, Mapping) and isinstance(part.get("url"), str):
                self._parts.setdefault(part["url"], []).append(part)

    def values(self, name: str, at: str) -> list[Any]:
        return [part[at] for part in self._parts.get(name, []) if at in part]

    def codes(self, name: str, codes: type[E]) -> tuple[E, ...]:
        found = [self._code(name, each, codes) for each in self._present(name, "valueCode")]
        return tuple(dict.fromkeys(found))

    def code(self, name: str, codes: type[E]) -> E | None:
        found = self._present(name, "valueCode")
        if len(found) > 1:
            raise _invalid(f"{self._path}.{name}", "is there more than once")
        return self._code(name, found[0], codes) if found else None

    def text(self, name: str, form: re.Pattern[str], *, needed: bool = False) -> str | None:
        found = self._present(name, "valueString")
        if not found:
            return _absent(self._path, name) if needed else None
        if len(found) > 1 or not isinstance(found[0], str) or not form.fullmatch(found[0]):
            raise _invalid(f"{self._path}.{name}", "is not one plain identifier")
        return found[0]

    def texts(self, name: str, at: str) -> tuple[str, ...]:
        found = self._present(name, at)
        if not all(isinstance(each, str) and 0 < len(each) <= 500 and " " not in each for each in found):
            raise _invalid(f"{self._path}.{name}", "is not a canonical URL")
        return tuple(dict.fromkeys(found))

    def day(self, name: str, *, needed: bool = False) -> date | None:
        found = self._present(name, "valueDate")
        if not found:
            return _absent(self._path, name) if needed else None
        try:
            (only,) = found
            return date.fromisoformat(only)
        except (TypeError, ValueError):
            raise _invalid(f"{self._path}.{name}", "is not one whole date") from None

    def coverage(self) -> str:
        """The id of the Coverage it is about: a reference to one, relative or absolute."""
        found = self._present("coverage", "valueReference")
        reference = found[0].get("reference") if len(found) == 1 and isinstance(found[0], Mapping) else None
        if not isinstance(reference, str):
            raise _invalid(f"{self._path}.coverage", "is not one reference to a Coverage")
        before, _, id = reference.rpartition("/")
        named = before.rpartition("/")[2]
        id = id.removeprefix("urn:uuid:")
        if named not in ("Coverage", "") or not _ID.fullmatch(id):
            raise _invalid(f"{self._path}.coverage", "is not one reference to a Coverage")
        return id

    def _present(self, name: str, at: str) -> list[Any]:
        """The values of a part; one of another type is not passed over."""
        parts = self._parts.get(name, [])
        if any(at not in part for part in parts):
            raise _invalid(f"{self._path}.{name}", f"is not a {at}")
        return [part[at] for part in parts]

    def _code(self, name: str, value: object, codes: type[E]) -> E:
        try:
            return codes(str(value))
        except ValueError:
            raise _invalid(f"{self._path}.{name}", "is a code that CRD does not have") from None


def _codings(concepts: Iterable[Any]) -> tuple[Coding, ...]:
    """All codings of some CodeableConcepts that have system and code."""
    found = []
    for concept in concepts:
        for coding in _many(concept.get("coding")) if isinstance(concept, Mapping) else ():
            if isinstance(coding, Mapping) and all(_is_token(coding.get(name)) for name in ("system", "code")):
                found.append(Coding(system=coding["system"], code=coding["code"]))
    return tuple(dict.fromkeys(found))


def _is_token(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 200


def _many(value: object) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _list(value: object, path: str) -> list[Any]:
    if not isinstance(value, list):
        raise _invalid(path, "is not a list")
    return value


def _absent(path: str, name: str) -> Any:
    raise _invalid(f"{path}.{name}", "is missing")


def _invalid(path: str, reason: str) -> Invalid:
    return Invalid("This is not a coverage-information that can be used", flaws=[Flaw(path, reason)])
