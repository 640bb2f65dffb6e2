"""Whatever is done to a Bundle, it registers or is refused with paths; nothing else ever comes out."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import pytest

from shared.kit.errors import Invalid
from tests.unit.intake.cases import PATIENT, bundle, condition, consent, registered, whole_bundle

ABOUT_ANA = {"reference": "Patient/ana"}
WRONG: list[Any] = [
    None, "", 0, -1, 1.5, True, [], {}, "x", "2026-99-99", [None], [{}], [[]], {"a": 1},
    "\x00", "\ud800", 10**30, float("nan"), "#", "urn:uuid:1",
]  # fmt: skip

SOUND = whole_bundle(
    condition("Z59.82"),
    consent("deny", "sms", "2026-01-01T00:00:00Z"),
    {
        "resourceType": "RelatedPerson",
        "id": "r",
        "patient": ABOUT_ANA,
        "name": [{"given": ["Luz"]}],
        "telecom": [{"system": "phone", "value": "512-555-0199", "rank": 1}],
        "period": {"end": "2027-01-01"},
    },
    {
        "resourceType": "MedicationStatement",
        "id": "s",
        "status": "active",
        "subject": ABOUT_ANA,
        "medicationReference": {"reference": "#m"},
        "contained": [{"resourceType": "Medication", "id": "m", "code": {"text": "x"}}],
        "effectivePeriod": {"start": "2020"},
    },
    {
        "resourceType": "Observation",
        "status": "final",
        "subject": ABOUT_ANA,
        "code": {"coding": [{"system": "http://loinc.org", "code": "93030-5"}]},
        "valueCodeableConcept": {"coding": [{"code": "LA33-6"}]},
    },
    bundle(PATIENT),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def damaged(chance: random.Random) -> dict[str, Any]:
    raw = copy.deepcopy(SOUND)
    path = chance.choice(list(places(raw)))
    holder: Any = raw
    for key in path[:-1]:
        holder = holder[key]
    if chance.random() < 0.8:
        holder[path[-1]] = chance.choice(WRONG)
    else:
        del holder[path[-1]]
    return raw


def refused_paths(raw: object) -> list[str] | None:
    """The paths that a Bundle was refused for; None where it registered."""
    try:
        registered(raw)
    except Invalid as refusal:
        return [flaw.path for flaw in refusal.flaws]
    return None


def test_the_sound_bundle_registers() -> None:
    assert registered(SOUND).missing == ()


@pytest.mark.parametrize("seed", range(300))
def test_a_damaged_bundle_registers_or_is_refused_with_paths(seed: int) -> None:
    paths = refused_paths(damaged(random.Random(seed)))
    assert paths is None or (paths and all(path.startswith("Bundle") for path in paths))
