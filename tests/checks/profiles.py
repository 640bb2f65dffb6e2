"""Checks FHIR resources and Bundles against the StructureDefinitions of PAS 2.2.1, independently of what builds them.

FHIR R4 itself (types, base cardinalities, unknown elements) is checked by ``shared.kit.fhir.parse``. On top of it the
differentials of the guide are laid, from the base profile to the derived one. US Core 7.0.0, on which some of them
stand, is not among the definitions: what it requires of the resources that are sent stands in ``US_CORE``, from memory.

Not checked are: must-support; codes of value sets that are not among the definitions (LOINC's, SNOMED's, US Core's,
HRex's); of X12's, whose codes are not published, more than the code system; invariants but those in ``CONSTRAINTS``,
which are written out by hand; ext-1 apart, FHIR R4's own invariants; the order of slices; what a reference that leads
out of the Bundle leads to. ``tests/unit/prior_authorization/test_checker.py`` breaks each rule that is sent by.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.kit.errors import Invalid
from shared.kit.fhir import parse

Json = dict[str, Any]

PAS = "http://hl7.org/fhir/us/davinci-pas/StructureDefinition/"
CORE = "http://hl7.org/fhir/us/core/StructureDefinition/"
R4 = "http://hl7.org/fhir/StructureDefinition/"
MEMBER = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "MB"}]}


def _numbered(type_: str) -> list[Json]:
    """How US Core tells the identifiers of organizations and practitioners apart."""
    systems = {
        "NPI": "http://hl7.org/fhir/sid/us-npi",
        "CLIA": "urn:oid:2.16.840.1.113883.4.7",
        "NAIC": "urn:oid:2.16.840.1.113883.6.300",
    }
    slicing = {"discriminator": [{"type": "pattern", "path": "$this"}], "rules": "open"}
    slices = [
        {"id": f"{type_}.identifier:{name}", "patternIdentifier": {"system": s}, "min": 0}
        for name, s in systems.items()
        if name == "NPI" or type_ == "Organization"
    ]
    return [{"id": f"{type_}.identifier", "slicing": slicing}, *slices]


def _needed(*ids: str) -> list[Json]:
    return [{"id": id, "min": 1} for id in ids]


US_CORE: dict[str, list[Json]] = {
    "patient": _needed(
        "Patient.identifier", "Patient.identifier.system", "Patient.identifier.value", "Patient.name", "Patient.gender"
    ),
    "organization": [*_needed("Organization.active", "Organization.name"), *_numbered("Organization")],
    "practitioner": [
        *_needed("Practitioner.identifier", "Practitioner.identifier.system", "Practitioner.identifier.value"),
        *_needed("Practitioner.name", "Practitioner.name.family"),
        *_numbered("Practitioner"),
    ],
    "practitionerrole": [],
    "location": _needed("Location.name"),
    "encounter": _needed("Encounter.type", "Encounter.subject"),
    "coverage": [
        {
            "id": "Coverage.identifier",
            "slicing": {"discriminator": [{"type": "pattern", "path": "type"}], "rules": "open"},
        },
        {"id": "Coverage.identifier:memberid", "min": 0, "max": "1"},
        {"id": "Coverage.identifier:memberid.type", "min": 1, "patternCodeableConcept": MEMBER},
        {"id": "Coverage.relationship", "min": 1},
        {"id": "Coverage.payor", "max": "1"},
    ],
    "documentreference": [
        *_needed("DocumentReference.type", "DocumentReference.category", "DocumentReference.subject"),
    ],
    "medicationrequest": _needed("MedicationRequest.medication[x]"),
}
"""What US Core 7.0.0 lays upon FHIR R4 (must-support elements apart), by the profile's name."""

BACKPORT = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/"
ELSEWHERE = frozenset(
    {
        "http://hl7.org/fhir/StructureDefinition/data-absent-reason",
        "http://hl7.org/fhir/5.0/StructureDefinition/extension-Claim.encounter",
        BACKPORT + "backport-payload-content",
        BACKPORT + "backport-filter-criteria",
        BACKPORT + "backport-heartbeat-period",
        BACKPORT + "backport-timeout",
        BACKPORT + "backport-max-count",
    }
)
"""Extensions that the guide uses and other guides define."""

CANCELLED_FLAG: Json = {
    "url": PAS + "modifierextension-infoCancelled",
    "type": "Extension",
    "baseDefinition": R4 + "Extension",
    "context": [{"expression": "Claim.item"}],
    "differential": {
        "element": [
            {"id": "Extension.url", "fixedUri": PAS + "modifierextension-infoCancelled"},
            {"id": "Extension.extension", "max": "0"},
            {"id": "Extension.value[x]", "min": 1, "type": [{"code": "boolean"}]},
        ]
    },
}
"""The one extension of the guide that is not among the definitions."""

_VERSION = re.compile(r"\|.*$")
_X12 = re.compile(r"https://valueset\.x12\.org/.*/(\d+)$")
_URN = re.compile(r"urn:uuid:[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_RESTFUL = re.compile(r"https?://\S+/([A-Z][A-Za-z]+)/([A-Za-z0-9.-]{1,64})")
_ELSEWHERE_X12 = {
    "127": "http://nucc.org/provider-taxonomy",
    "1314": "https://www.nubc.org/CodeSystem/PointOfOrigin",
    "1315": "https://www.nubc.org/CodeSystem/PriorityTypeOfAdmitOrVisit",
    "1352": "https://www.nubc.org/CodeSystem/PatDischargeStatus",
}
"""X12 elements whose codes are kept by others than X12."""

_WRITTEN: dict[str, type | tuple[type, ...]] = {
    "Boolean": bool,
    "Code": str,
    "Date": str,
    "Decimal": (int, float),
    "PositiveInt": int,
    "String": str,
}
"""How JSON writes the primitive types that choice elements name; the base's models are lenient about it."""


@dataclass(frozen=True)
class Problem:
    """What is wrong, and where."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass
class Rule:
    """What a profile says of one element, with what it says of its parts and its slices."""

    element: Json = field(default_factory=dict)
    children: dict[str, Rule] = field(default_factory=dict)
    slices: dict[str, Rule] = field(default_factory=dict)

    def child(self, part: str) -> Rule:
        """The rule of a part such as ``item`` or ``extension:requestType``, made where it is not there yet."""
        name, colon, slice_ = part.partition(":")
        rule = self.children.setdefault(name, Rule())
        return rule.slices.setdefault(slice_, Rule()) if colon else rule

    def wanted(self) -> Any:
        """The value that is fixed or given as a pattern here; None where neither is."""
        return next((self.element[name] for name in self.element if name.startswith(("fixed", "pattern"))), None)

    @property
    def types(self) -> list[Json]:
        """The types that the element may have; none means that the base's stand."""
        found: list[Json] = self.element.get("type", [])
        return found


@dataclass(frozen=True)
class Found:
    """A value where it was found; ``type`` is told by the name of a choice element, ``valueDate`` say. ``system`` is
    the one beside a plain code."""

    value: Any
    path: str
    type: str | None = None
    system: str | None = None


@dataclass
class Sent:
    """The resources that were sent together, by which references are resolved."""

    resources: dict[str, Json] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    conforming: dict[tuple[int, str], bool] = field(default_factory=dict)

    def resolve(self, reference: str) -> Json | None:
        """The resource a literal reference leads to; a relative one goes by type and id."""
        exact = self.resources.get(reference)
        if exact is not None or reference.startswith(("urn:", "http")):
            return exact
        return next((found for url, found in self.resources.items() if url.endswith("/" + reference)), None)


class Profiles:
    """The definitions in a folder."""

    def __init__(self, folder: Path) -> None:
        self._definitions: dict[str, Json] = {CANCELLED_FLAG["url"]: CANCELLED_FLAG}
        self._value_sets: dict[str, Json] = {}
        self._code_systems: dict[str, set[str]] = {}
        for path in sorted(folder.glob("*.json")):
            self._keep(json.loads(path.read_text(encoding="utf-8")))
        self._rules: dict[str, Rule] = {}

    def _keep(self, definition: Json) -> None:
        if definition["resourceType"] == "StructureDefinition":
            self._definitions[definition["url"]] = definition
        elif definition["resourceType"] == "ValueSet":
            self._value_sets[definition["url"]] = definition
        elif definition["resourceType"] == "CodeSystem":
            self._code_systems[definition["url"]] = {concept["code"] for concept in definition["concept"]}

    # -- what is asked ----------------------------------------------------------------------------------------------

    def check(self, resource: Json, profile: str | None = None) -> list[Problem]:
        """Everything wrong with one resource by a profile, or by those that it says it conforms to."""
        sent = Sent()
        self._whole(resource, resource["resourceType"], sent, [profile] if profile else _declared(resource))
        return list(dict.fromkeys(sent.problems))

    def check_bundle(self, bundle: Json, profile: str | None = None) -> list[Problem]:
        """Everything wrong with a Bundle: itself, each of its resources, and how they refer to one another."""
        sent = Sent()
        entries = [entry for entry in bundle.get("entry", []) if isinstance(entry, dict)]
        sent.resources = {
            entry["fullUrl"]: entry["resource"] for entry in entries if {"fullUrl", "resource"} <= {*entry}
        }
        self._whole(bundle, "Bundle", sent, [profile] if profile else _declared(bundle))
        urls = [entry.get("fullUrl") for entry in entries]
        for place, entry in enumerate(entries):
            path, url, resource = f"Bundle.entry[{place}]", entry.get("fullUrl"), entry.get("resource")
            if urls.count(url) > 1:
                sent.problems.append(Problem(f"{path}.fullUrl", "is used twice"))
            if not isinstance(resource, dict):
                continue
            sent.problems.extend(_flaws_of_url(url, resource, f"{path}.fullUrl"))
            sent.problems.extend(_unresolved(resource, f"{path}.resource", url or "", sent))
            self._declared(resource, f"{path}.resource", sent)
            self._extensions(resource, f"{path}.resource", resource.get("resourceType", ""), sent.problems)
        return list(dict.fromkeys(sent.problems))

    # -- one resource -----------------------------------------------------------------------------------------------

    def _whole(self, resource: Json, path: str, sent: Sent, profiles: Sequence[str]) -> None:
        try:
            parse(resource, resource["resourceType"])
        except Invalid as refusal:
            sent.problems.extend(Problem(flaw.path, flaw.reason) for flaw in refusal.flaws)
        self._declared(resource, path, sent, profiles)
        self._extensions(resource, path, resource["resourceType"], sent.problems)

    def _declared(self, resource: Json, path: str, sent: Sent, profiles: Sequence[str] | None = None) -> None:
        """Check a resource by the profiles it says, or these; one without any, or of an unknown one, is a problem."""
        named = _declared(resource) if profiles is None else profiles
        if not named:
            sent.problems.append(Problem(f"{path}.meta.profile", "names no profile to check by"))
        for profile in named:
            if _bare(profile) not in self._definitions:
                sent.problems.append(Problem(f"{path}.meta.profile", f"{profile} is not among the definitions"))
            self._by(profile, resource, path, sent, sent.problems)

    def _by(self, profile: str, resource: Json, path: str, sent: Sent, into: list[Problem]) -> None:
        """Check a value (a resource, or a data type) by a profile that is among the definitions."""
        url = _bare(profile)
        definition = self._definitions.get(url)
        if definition is None:
            return
        if "resourceType" in resource and resource["resourceType"] != definition["type"]:
            into.append(Problem(path, f"must be {definition['type']}"))
            return
        self._value(self._rule(url), Found(resource, path), sent, into)

    def _conforms(self, profile: str, resource: Json, sent: Sent) -> bool:
        """Whether a resource passes a profile; one that is being checked already is taken to."""
        key = id(resource), _bare(profile)
        if key not in sent.conforming:
            sent.conforming[key] = True
            found: list[Problem] = []
            self._by(profile, resource, "", sent, found)
            sent.conforming[key] = not found
        return sent.conforming[key]

    def _rule(self, url: str) -> Rule:
        if url not in self._rules:
            root = Rule()
            for element in self._elements(url):
                rule = root
                for part in element["id"].split(".")[1:]:
                    rule = rule.child(part)
                constraints = [*rule.element.get("constraint", []), *element.get("constraint", [])]
                rule.element |= element
                rule.element["constraint"] = constraints
            self._rules[url] = root
        return self._rules[url]

    def _elements(self, url: str) -> Iterator[Json]:
        """The elements of a profile's bases, then its own."""
        definition = self._definitions.get(url)
        if definition is None:
            if url.startswith(CORE):
                yield from US_CORE[url.removeprefix(CORE + "us-core-")]
            return
        yield from self._elements(_bare(definition["baseDefinition"]))
        yield from definition["differential"]["element"]

    # -- elements ---------------------------------------------------------------------------------------------------

    def _value(self, rule: Rule, found: Found, sent: Sent, into: list[Problem]) -> None:
        self._wanted(rule, found, into)
        self._types(rule, found, sent, into)
        self._binding(rule, found, into)
        for constraint in rule.element.get("constraint", []):
            holds = CONSTRAINTS.get(constraint["key"])
            if holds is None:
                into.append(Problem(found.path, f"constraint {constraint['key']} is not known to the checker"))
            elif not holds(found.value):
                into.append(Problem(found.path, f"breaks {constraint['key']}"))
        if isinstance(found.value, dict):
            for name, child in rule.children.items():
                self._element(child, _values(found.value, name, found.path), f"{found.path}.{name}", sent, into)

    def _element(self, rule: Rule, values: list[Found], path: str, sent: Sent, into: list[Problem]) -> None:
        _count(rule, len(values), path, into)
        for value in values:
            self._value(rule, value, sent, into)
        for name, slice_ in rule.slices.items():
            mine = [value for value in values if self._belongs(rule, slice_, value)]
            _count(slice_, len(mine), f"{path}:{name}", into)
            for value in mine:
                self._value(slice_, value, sent, into)

    def _wanted(self, rule: Rule, found: Found, into: list[Problem]) -> None:
        wanted = rule.wanted()
        if wanted is None:
            return
        fixed = any(name.startswith("fixed") for name in rule.element)
        if not (found.value == wanted if fixed else _matches(wanted, found.value)):
            into.append(Problem(found.path, f"must be {json.dumps(wanted)}"))

    def _types(self, rule: Rule, found: Found, sent: Sent, into: list[Problem]) -> None:
        types = rule.types
        if not types:
            return
        codes = {_suffix(type_["code"]) for type_ in types}
        if found.type is not None and found.type not in codes:
            into.append(Problem(found.path, f"must be of type {' or '.join(sorted(codes))}"))
            return
        if found.type in _WRITTEN and not isinstance(found.value, _WRITTEN[found.type]):
            into.append(Problem(found.path, f"must be written as a {found.type[:1].lower()}{found.type[1:]}"))
        profiles = [url for type_ in types for url in type_.get("profile", []) if _bare(url) in self._definitions]
        if profiles and isinstance(found.value, dict):
            self._any_of(profiles, found, sent, into)
        targets = [url for type_ in types for url in type_.get("targetProfile", [])]
        if targets and isinstance(found.value, dict):
            self._target(targets, found, sent, into)

    def _any_of(self, profiles: list[str], found: Found, sent: Sent, into: list[Problem]) -> None:
        """Report against the alternative that fits best."""
        attempts: list[list[Problem]] = []
        for profile in profiles:
            tried: list[Problem] = []
            self._by(profile, found.value, found.path, sent, tried)
            attempts.append(tried)
        into.extend(min(attempts, key=len))

    def _target(self, targets: list[str], found: Found, sent: Sent, into: list[Problem]) -> None:
        literal = found.value.get("reference")
        resource = sent.resolve(literal) if isinstance(literal, str) else None
        type_ = resource.get("resourceType") if resource else found.value.get("type")
        if type_ is None:
            return
        of_type = [url for url in targets if self._is_of(_bare(url), type_)]
        if not of_type:
            into.append(Problem(found.path, f"must not refer to a {type_}"))
        elif resource is not None and not any(self._conforms(url, resource, sent) for url in of_type):
            into.append(Problem(found.path, f"must refer to a {' or '.join(url.rsplit('/')[-1] for url in of_type)}"))

    def _is_of(self, url: str, type_: str) -> bool:
        definition = self._definitions.get(url)
        if definition is not None:
            return bool(definition["type"] == type_)
        name = url.rsplit("/", 1)[-1]
        vital = type_ == "Observation" and name == "us-core-vital-signs"
        return name == type_ or vital or (name.startswith("us-core-") and type_.lower() in name)

    # -- slices -----------------------------------------------------------------------------------------------------

    def _belongs(self, rule: Rule, slice_: Rule, found: Found) -> bool:
        by = rule.element.get("slicing", {}).get("discriminator", [{"type": "value", "path": "url"}])
        return all(self._discriminated(each["type"], each["path"], slice_, found) for each in by)

    def _discriminated(self, kind: str, path: str, slice_: Rule, found: Found) -> bool:
        if kind == "type" and path == "$this":
            return found.type in {_suffix(type_["code"]) for type_ in slice_.types}
        if kind == "type":
            part = found.value.get(path) if isinstance(found.value, dict) else None
            codes = {type_["code"] for type_ in slice_.child(path).types}
            return isinstance(part, dict) and part.get("resourceType") in codes
        if not isinstance(found.value, dict):
            return False
        if path == "$this":
            return _matches(slice_.wanted(), found.value) if slice_.wanted() is not None else self._bound(slice_, found)
        if path == "url":
            return bool(found.value.get("url") == self._url_of(slice_))
        return self._by_part(path, slice_, found.value)

    def _by_part(self, path: str, slice_: Rule, value: Json) -> bool:
        inside = re.fullmatch(r"extension\('([^']+)'\)\.value\.ofType\((\w+)\)", path)
        if inside is None:
            return path in slice_.children and _matches(slice_.children[path].wanted(), value.get(path))
        url, type_ = inside.groups()
        named = (each for each in value.get("extension", []) if each.get("url") == url)
        given = next((each.get("value" + _suffix(type_)) for each in named), None)
        rules = slice_.child("extension").slices.values()
        return any(given == rule.children["value[x]"].wanted() for rule in rules if "value[x]" in rule.children)

    def _bound(self, slice_: Rule, found: Found) -> bool:
        problems: list[Problem] = []
        self._binding(slice_, found, problems)
        return not problems

    def _url_of(self, slice_: Rule) -> str | None:
        for type_ in slice_.types:
            for profile in type_.get("profile", []):
                return _bare(profile)
        fixed = slice_.children["url"].wanted() if "url" in slice_.children else None
        return fixed if isinstance(fixed, str) else BACKPORT + "backport-payload-content"

    # -- codes ------------------------------------------------------------------------------------------------------

    def _binding(self, rule: Rule, found: Found, into: list[Problem]) -> None:
        binding = rule.element.get("binding", {})
        strength, url = binding.get("strength"), _bare(binding.get("valueSet", ""))
        codings = _codings(found)
        if strength not in ("required", "extensible") or codings is None:
            return
        allowed = self._allowed(url)
        if allowed is None:
            return
        if strength == "required" and not any(allowed(system, code) for system, code in codings):
            into.append(Problem(found.path, f"needs a code of {url}"))
        if strength == "extensible" and any(
            self._speaks_of(url, system) and not allowed(system, code) for system, code in codings
        ):
            into.append(Problem(found.path, f"has a code of a system of {url} that it does not hold"))

    def _allowed(self, url: str) -> Callable[[str | None, str], bool] | None:
        """What is in a value set; None where it cannot be told."""
        x12 = _X12.fullmatch(url)
        if x12 is not None:
            wanted = _ELSEWHERE_X12.get(x12[1], f"https://codesystem.x12.org/005010/{x12[1]}")
            return lambda system, _: system in (None, wanted)
        value_set = self._value_sets.get(url)
        if value_set is None:
            return None
        return lambda system, code: any(
            self._includes(include, system, code) for include in value_set["compose"]["include"]
        )

    def _includes(self, include: Json, system: str | None, code: str) -> bool:
        if system is not None and include.get("system") != system:
            return False
        concepts = include.get("concept")
        if concepts:
            return code in {concept["code"] for concept in concepts}
        return code in self._code_systems.get(include.get("system", ""), {code})

    def _speaks_of(self, url: str, system: str | None) -> bool:
        includes = self._value_sets[url]["compose"]["include"] if url in self._value_sets else []
        return any(include.get("system") == system for include in includes)

    # -- extensions and codes anywhere ------------------------------------------------------------------------------

    def _extensions(self, value: object, path: str, at: str, into: list[Problem]) -> None:
        """Check every extension by its own definition, and every code of a system that is among the definitions."""
        if isinstance(value, list):
            for place, each in enumerate(value):
                self._extensions(each, f"{path}[{place}]", at, into)
        if not isinstance(value, dict):
            return
        system = value.get("system")
        if system in self._code_systems and value.get("code") not in self._code_systems[system]:
            into.append(Problem(f"{path}.code", f"is no code of {system}"))
        for name, part in value.items():
            if name in ("extension", "modifierExtension") and isinstance(part, list):
                for place, extension in enumerate(part):
                    self._extension(extension, f"{path}.{name}[{place}]", at, into)
            elif name == "resource" and isinstance(part, dict):
                continue
            self._extensions(part, f"{path}.{name}", f"{at}.{name}", into)

    def _extension(self, extension: Json, path: str, at: str, into: list[Problem]) -> None:
        url = extension.get("url", "")
        valued = any(name.lstrip("_").startswith("value") for name in extension)
        if valued == bool(extension.get("extension")):
            into.append(Problem(path, "must have a value or parts, and not both (ext-1)"))
        if "/" not in url or url in ELSEWHERE:
            return
        definition = self._definitions.get(url)
        if definition is None:
            into.append(Problem(path, f"{url} is defined nowhere"))
            return
        self._by(url, extension, path, Sent(), into)
        parts = self._rule(url).child("extension").slices
        for place, part in enumerate(extension.get("extension", [])):
            known = {self._url_of(each) for each in parts.values()}
            if part.get("url") not in known:
                into.append(Problem(f"{path}.extension[{place}]", f"is no part of {url}"))
        if not self._may_stand(definition, at):
            into.append(Problem(path, f"{url} must not stand on {at}"))

    def _may_stand(self, definition: Json, at: str) -> bool:
        """Whether the extension's own context or a profile names the place. Data types may carry theirs anywhere."""
        contexts = {context["expression"] for context in definition["context"]}
        if at in contexts or any(at.endswith(".extension") and c.startswith(at.split(".")[0]) for c in contexts):
            return True
        if contexts & {"Identifier", "Request", "Dosage.timing"}:
            return True
        return any(self._names(url, definition["url"], at) for url in self._definitions)

    def _names(self, profile: str, extension: str, at: str) -> bool:
        type_, *parts = at.split(".")
        if self._definitions[profile]["type"] != type_:
            return False
        rule = self._rule(profile)
        for part in parts:
            if part not in rule.children:
                return False
            rule = rule.children[part]
        holders = [rule.children[name] for name in ("extension", "modifierExtension") if name in rule.children]
        sliced = [
            *holders,
            *(part.children[n] for part in rule.slices.values() for n in part.children if "ension" in n),
        ]
        return any(self._url_of(each) == extension for holder in sliced for each in holder.slices.values())


# -- parts of the above that need no definitions --------------------------------------------------------------------


def _bare(url: str) -> str:
    return _VERSION.sub("", url)


def _suffix(code: str) -> str:
    return code[:1].upper() + code[1:]


def _declared(resource: Json) -> list[str]:
    profiles: list[str] = resource.get("meta", {}).get("profile", [])
    return profiles


def _values(holder: Json, name: str, path: str) -> list[Found]:
    """The values of an element, a choice element among them; one that only says why it is absent counts as there."""
    if name.endswith("[x]"):
        stem = name[:-3]
        named = [key for key in holder if key.startswith(stem) and key[len(stem) : len(stem) + 1].isupper()]
        return [Found(holder[key], f"{path}.{key}", key[len(stem) :]) for key in named]
    value = holder.get(name, holder.get("_" + name))
    if value is None:
        return []
    if isinstance(value, list):
        return [Found(each, f"{path}.{name}[{place}]") for place, each in enumerate(value)]
    return [Found(value, f"{path}.{name}", system=holder.get("system") if name == "code" else None)]


def _count(rule: Rule, count: int, path: str, into: list[Problem]) -> None:
    least, most = rule.element.get("min", 0), rule.element.get("max", "*")
    if count < least:
        into.append(Problem(path, "is required" if least == 1 else f"must be there at least {least} times"))
    if most != "*" and count > int(most):
        into.append(Problem(path, "must be absent" if most == "0" else f"must be there at most {most} times"))


def _matches(wanted: Any, value: Any) -> bool:
    """Whether a value holds a pattern: of objects each part named, of lists each member somewhere."""
    if isinstance(wanted, dict):
        return isinstance(value, dict) and all(_matches(part, value.get(name)) for name, part in wanted.items())
    if isinstance(wanted, list):
        return isinstance(value, list) and all(any(_matches(part, each) for each in value) for part in wanted)
    return bool(wanted == value)


def _codings(found: Found) -> list[tuple[str | None, str]] | None:
    """The codes of a CodeableConcept, a Coding or a code; None for anything else."""
    value = found.value
    if isinstance(value, str):
        return [(found.system, value)]
    if not isinstance(value, dict):
        return None
    listed = value.get("coding", [value] if "code" in value else [])
    return [(coding.get("system", ""), coding.get("code", "")) for coding in listed]


def _flaws_of_url(url: Any, resource: Json, path: str) -> Iterator[Problem]:
    restful = _RESTFUL.fullmatch(url) if isinstance(url, str) else None
    if not isinstance(url, str) or (restful is None and not _URN.fullmatch(url)):
        yield Problem(path, "must be absolute: urn:uuid, or http with type and id")
    elif restful is not None and restful.groups() != (resource.get("resourceType"), resource.get("id")):
        yield Problem(path, "must end with the resource's type and id")


def _unresolved(value: Any, path: str, base: str, sent: Sent) -> Iterator[Problem]:
    """Every literal reference that leads to nothing in the Bundle."""
    if isinstance(value, list):
        for place, each in enumerate(value):
            yield from _unresolved(each, f"{path}[{place}]", base, sent)
    if not isinstance(value, dict):
        return
    literal = value.get("reference")
    if isinstance(literal, str) and not literal.startswith("#"):
        relative = not literal.startswith(("urn:", "http"))
        restful = _RESTFUL.fullmatch(base)
        absolute = f"{base.removesuffix('/'.join(restful.groups()))}{literal}" if relative and restful else literal
        if absolute not in sent.resources:
            yield Problem(f"{path}.reference", "leads to nothing in the Bundle")
    for name, part in value.items():
        yield from _unresolved(part, f"{path}.{name}", base, sent)


def _coded(value: Mapping[str, Any], *path: str) -> list[str]:
    """The codes at a path of elements that may repeat."""
    holders: list[Any] = [value]
    for name in path:
        parts = [holder.get(name, []) for holder in holders if isinstance(holder, dict)]
        holders = [each for part in parts for each in (part if isinstance(part, list) else [part])]
    return [coding.get("code", "") for holder in holders for coding in holder.get("coding", [])]


def _first_is(type_: str) -> Callable[[Any], bool]:
    def holds(bundle: Any) -> bool:
        first = next(iter(bundle.get("entry", [])), {})
        return bool(first.get("resource", {}).get("resourceType") == type_)

    return holds


def _immediate(item: Any) -> bool:
    """An immediate appeal says the level of service. The guide asks for ``value.code``, which no concept has: so this
    holds of every item in the letter, and what is checked here is that no plain code is used in its place."""
    coded = [each for each in item.get("extension", []) if each.get("valueCode") == "1"]
    return not any(each.get("url") == PAS + "extension-certificationType" for each in coded)


def _task_input(code: str, wanted: str) -> Callable[[Any], bool]:
    return lambda task: code not in _coded(task, "code") or wanted in _coded(task, "input", "type")


CONSTRAINTS: dict[str, Callable[[Any], bool]] = {
    "FullDateRule": lambda value: len(str(value)) == 10,
    "ClaimFirst": _first_is("Claim"),
    "ClaimResponseFirst": _first_is("ClaimResponse"),
    "ImmediateLevelOfCare": _immediate,
    "self-beneficiary": lambda coverage: (
        bool(_coded(coverage, "relationship").count("18") == 0) <= ("subscriber" in coverage)
    ),
    "IdentifierUnlessVO": lambda request: "VO" in _coded(request, "medium") or bool(request.get("identifier")),
    "AttachmentNeeded": _task_input("attachment-request-code", "attachments-needed"),
    "QuestionnaireContext": _task_input("attachment-request-questionnaire", "questionnaire-context"),
}
"""The invariants of the guide, by their keys."""
