"""The structural checker sees every rule of the definitions broken that a Bundle of ours meets: each is broken once.

The rules are read from the definitions here by another way than the checker's: element by element, by plain paths.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.checks.profiles import Profiles
from tests.unit.prior_authorization.test_outgoing import BUNDLES

Json = dict[str, Any]
Way = tuple[str | int, ...]

DEFINITIONS = Path(os.environ.get("CASES", Path(__file__).parents[4] / "shared" / "data")) / "pas" / "definitions"
pytestmark = pytest.mark.skipif(not DEFINITIONS.is_dir(), reason="the PAS definitions are not here (CASES)")

KINDS = (
    "several items of several kinds",
    "providers of items",
    "attachments",
    "update of an update",
    "renewal",
    "device",
    "immediate appeal",
    "inquiry",
    "cancel",
)
"""Kinds of Bundle that together hold every resource and every element that is sent."""


FIRST = "the first"
"""Stands for the fullUrl of the Claim, to which nothing that is sent may refer but another Claim."""


@cache
def definitions() -> dict[str, Json]:
    found = (json.loads(path.read_text(encoding="utf-8")) for path in DEFINITIONS.glob("StructureDefinition-*.json"))
    return {each["url"]: each for each in found}


@cache
def value_sets() -> frozenset[str]:
    found = (json.loads(path.read_text(encoding="utf-8")) for path in DEFINITIONS.glob("ValueSet-*.json"))
    return frozenset(each["url"] for each in found)


def bare(url: str) -> str:
    return url.partition("|")[0]


def elements(url: str) -> Iterator[Json]:
    """The elements that a profile and its bases among the definitions say something of."""
    definition = definitions().get(bare(url))
    if definition is not None:
        yield from elements(definition["baseDefinition"])
        yield from definition["differential"]["element"]


def places(node: Any, names: list[str], at: Way) -> Iterator[Way]:
    """The ways to an element of this path below a node; of a list, to each of its members."""
    if isinstance(node, list):
        for place, each in enumerate(node):
            yield from places(each, names, (*at, place))
    elif not names:
        yield at
    elif isinstance(node, dict) and names[0] in node:
        yield from places(node[names[0]], names[1:], (*at, names[0]))


def at(node: Any, way: Way) -> Any:
    for step in way:
        node = node[step]
    return node


def slices_of(element: Json, holder: Json) -> list[int]:
    """The extensions of a holder that a slice is about."""
    urls = {bare(url) for type_ in element.get("type", []) for url in type_.get("profile", [])}
    return [place for place, each in enumerate(holder.get("extension", [])) if each["url"] in urls]


def breaks(element: Json, resource: Json) -> Iterator[tuple[str, Way, Any]]:
    """How a rule can be broken in a resource: what is done, where, and the value that is set (None: taken away)."""
    _, *names = element["id"].split(".")
    if not names or any("[x]" in name for name in names):
        return
    if any(":" in name for name in names):
        *above, last = names
        if element.get("min", 0) >= 1 and last.startswith("extension:") and not any(":" in name for name in above):
            for way in places(resource, above, ()):
                for place in slices_of(element, at(resource, way)):
                    yield "without a slice", (*way, "extension", place), None
        return
    for way in places(resource, names, ()):
        value = at(resource, way)
        if element.get("min", 0) >= 1:
            yield "without", way[:-1] if isinstance(way[-1], int) else way, None
        if element.get("max") == "1" and isinstance(way[-1], int):
            yield "twice", way[:-1], at(resource, way[:-1]) * 2
        if any(name.startswith(("fixed", "pattern")) for name in element):
            yield "another value", way, other(value)
        targets = [url for type_ in element.get("type", []) for url in type_.get("targetProfile", [])]
        if targets and all(bare(url) in definitions() for url in targets) and "reference" in value:
            yield "a reference to a Bundle's first", way, {"reference": FIRST}
        binding = element.get("binding", {})
        known = bare(binding.get("valueSet", "")) in value_sets()
        if binding.get("strength") == "required" and known and isinstance(value, dict):
            yield "a code of elsewhere", way, {"coding": [{"system": "urn:elsewhere", "code": "x"}]}


def other(value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return "other"
    return {"coding": [{"system": "urn:elsewhere", "code": "x"}]}


def broken(bundle: Json, place: int | None, way: Way, value: Any) -> Json:
    """The Bundle with one of its resources broken, or itself."""
    damaged = copy.deepcopy(bundle)
    *path, last = way if place is None else ("entry", place, "resource", *way)
    holder = at(damaged, tuple(path))
    if value == {"reference": FIRST}:
        holder[last] = {"reference": bundle["entry"][0]["fullUrl"]}
    elif value is not None:
        holder[last] = value
    elif isinstance(last, int) and len(holder) > 1:
        del holder[last]
    elif isinstance(last, int):
        del at(damaged, tuple(path[:-1]))[path[-1]]  # The last of a list: FHIR has no empty ones.
    else:
        del holder[last]
    return damaged


def test_every_rule_that_what_is_sent_meets_is_seen_when_it_is_broken() -> None:
    checker = Profiles(DEFINITIONS)
    tried: set[tuple[str, str, str]] = set()
    unseen: list[str] = []
    for kind in KINDS:
        bundle: Json = json.loads(json.dumps(BUNDLES[kind]()))
        assert checker.check_bundle(bundle) == []
        for place, resource in [(None, bundle), *((n, each["resource"]) for n, each in enumerate(bundle["entry"]))]:
            (profile,) = resource["meta"]["profile"]
            for element in elements(profile):
                for what, way, value in breaks(element, resource):
                    rule = (bare(profile), element["id"], what)
                    if rule in tried:
                        continue
                    tried.add(rule)
                    if not checker.check_bundle(broken(bundle, place, way, value)):
                        unseen.append(" ".join(rule))
    assert unseen == []
    assert len(tried) > 60


def test_a_resource_that_says_no_profile_or_an_unknown_one_does_not_slip_through() -> None:
    checker = Profiles(DEFINITIONS)
    bundle: Json = json.loads(json.dumps(BUNDLES["attachments"]()))
    for place in range(len(bundle["entry"])):
        for profile in ([], ["http://hl7.org/fhir/us/davinci-pas/StructureDefinition/profile-other"]):
            damaged = copy.deepcopy(bundle)
            damaged["entry"][place]["resource"]["meta"]["profile"] = profile
            problems = [str(problem) for problem in checker.check_bundle(damaged)]
            assert [each for each in problems if f"entry[{place}].resource.meta.profile" in each], (place, profile)


def extensions(node: Any, way: Way = ()) -> Iterator[tuple[Way, Json]]:
    """Every extension that a definition names, however deep, and the way to it."""
    if isinstance(node, list):
        for place, each in enumerate(node):
            yield from extensions(each, (*way, place))
    elif isinstance(node, dict):
        if node.get("url") in definitions():
            yield way, node
        for name, part in node.items():
            yield from extensions(part, (*way, name))


def test_every_extension_that_is_sent_is_held_to_its_type_and_its_codes() -> None:
    checker = Profiles(DEFINITIONS)
    tried: set[tuple[str, str]] = set()
    unseen: list[tuple[str, str]] = []
    for kind in KINDS:
        bundle: Json = json.loads(json.dumps(BUNDLES[kind]()))
        for way, extension in extensions(bundle):
            named = next((name for name in extension if name.startswith("value")), None)
            if named is None:
                continue
            harms: dict[str, Json] = {"another type": {"valueInteger": 7}, "no value": {}}
            if named == "valueCodeableConcept":
                harms["a code of elsewhere"] = {named: {"coding": [{"system": "urn:elsewhere", "code": "x"}]}}
            for what, value in harms.items():
                if (extension["url"], what) in tried:
                    continue
                tried.add((extension["url"], what))
                damaged = copy.deepcopy(bundle)
                *path, last = way
                at(damaged, tuple(path))[last] = {"url": extension["url"], **value}
                if not checker.check_bundle(damaged):
                    unseen.append((extension["url"], what))
    assert unseen == []
    assert len(tried) > 15
