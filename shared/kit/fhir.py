"""FHIR R4 at the edge: validation that says where and why but never what, and Bundles read into their resources.

What is read stays plain JSON under a typed view, ``Element``, which knows its FHIRPath-like path
(``Bundle.entry[3].resource.birthDate``), so that whatever turns out wrong later can still be named. A flaw's reason
never holds a value of the input: the input is about people.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import StrEnum
from functools import cache
from typing import TypeVar, overload

from fhir.resources.R4B import get_fhir_model_class
from fhir_core.fhirabstractmodel import FHIRAbstractModel
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from shared.contracts.base import Coding
from shared.kit.errors import Flaw, Invalid

Json = Mapping[str, object]
R = TypeVar("R", bound=FHIRAbstractModel)

ORDER_INTENTS = frozenset({"order", "original-order", "reflex-order", "filler-order", "instance-order"})
"""``order`` and all codes under it in FHIR R4's request-intent hierarchy: each authorizes somebody to act."""

BUNDLE_TYPES = frozenset({"transaction", "batch", "collection"})
MAX_INTEGER = 2**31 - 1
MAX_NESTING = 4
"""How deep Bundles may hold Bundles. MADiE and Bonnie export a Bundle in a Bundle; nothing known goes deeper."""

_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
_TYPE = re.compile(r"[A-Z][A-Za-z]{1,63}")
_ELEMENT_NAME = re.compile(r"_?[a-z][A-Za-z0-9]{0,63}")
_RESTFUL = re.compile(
    r"(?P<base>https?://[^\s?#]+/)?(?P<type>[A-Z][A-Za-z]{1,63})/(?P<id>[A-Za-z0-9\-.]{1,64})"
    r"(?:/_history/[A-Za-z0-9\-.]{1,64})?"
)
_URN = re.compile(
    r"urn:uuid:[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}|urn:oid:[0-2](?:\.(?:0|[1-9][0-9]*))+"
)
_CONDITIONAL = re.compile(r"[A-Z][A-Za-z]{1,63}\?\S+")
_FULL_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_SURROGATE = re.compile("[\ud800-\udfff]")
"""JSON can spell halves of characters that no store and no wire can carry."""
_QUOTED = re.compile(r"'([A-Za-z]+)'")

_REASONS = {
    "missing": "is required",
    "model_field_validation.missing": "is required",
    "string_type": "must be a string",
    "string_unicode": "is not valid Unicode",
    "list_type": "must be a list",
    "model_type": "must be an object",
    "dict_type": "must be an object",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "string_pattern_mismatch": "does not have the form that this element must have",
    "string_too_long": "is too long",
    "string_too_short": "is too short",
    "date_parsing": "is not a date (YYYY, YYYY-MM or YYYY-MM-DD)",
    "date_from_datetime_parsing": "is not a date (YYYY, YYYY-MM or YYYY-MM-DD)",
    "date_from_datetime_inexact": "is not a date (YYYY, YYYY-MM or YYYY-MM-DD)",
    "fhir-validation-wrong-resource-type": "is a resource of another type",
}


# -- flaws ----------------------------------------------------------------------------------------------------------


@dataclass
class Flaws:
    """Collects what is wrong, so that a sender learns of everything at once."""

    found: list[Flaw] = field(default_factory=list)

    def add(self, path: str, reason: str) -> None:
        """Note one flaw."""
        self.found.append(Flaw(path, reason))

    @contextmanager
    def gather(self) -> Iterator[None]:
        """Take the flaws of an Invalid raised inside, and go on."""
        try:
            yield
        except Invalid as refusal:
            self.found.extend(refusal.flaws)

    def refuse(self, detail: str = "") -> None:
        """Raise Invalid where anything was found; each flaw once."""
        if self.found:
            raise Invalid(detail, flaws=tuple(dict.fromkeys(self.found)))


def _invalid(path: str, reason: str, detail: str = "") -> Invalid:
    return Invalid(detail, flaws=[Flaw(path, reason)])


# -- validation -----------------------------------------------------------------------------------------------------


@overload
def parse(raw: Mapping[str, object], expected: type[R], *, at: str | None = None) -> R: ...


@overload
def parse(raw: Mapping[str, object], expected: str | None = None, *, at: str | None = None) -> FHIRAbstractModel: ...


def parse(
    raw: Mapping[str, object], expected: type[FHIRAbstractModel] | str | None = None, *, at: str | None = None
) -> FHIRAbstractModel:
    """The resource in ``raw``, validated against FHIR R4 (structure, types, choices, codes of required bindings).

    ``expected`` is a resource type's name or its ``fhir.resources.R4B`` class. ``at`` is the path the resource
    stands at, its type's name where it stands alone. Raises Invalid, each flaw with path and reason, no value.
    """
    wanted = expected if isinstance(expected, str) or expected is None else expected.get_resource_type()
    named = raw.get("resourceType") if isinstance(raw, Mapping) else None
    root = at or wanted or (named if isinstance(named, str) and _TYPE.fullmatch(named) else "Resource")
    if not isinstance(raw, Mapping):
        raise _invalid(root, "must be a FHIR resource, an object with resourceType")
    if not isinstance(named, str) or not _TYPE.fullmatch(named):
        raise _invalid(f"{root}.resourceType", "must name a FHIR R4 resource type")
    if wanted is not None and named != wanted:
        raise _invalid(f"{root}.resourceType", f"must be {wanted}")
    identity = raw.get("id")
    if identity is not None and not (isinstance(identity, str) and _ID.fullmatch(identity)):
        raise _invalid(f"{root}.id", "must be a FHIR id: 1 to 64 letters, digits, hyphens and dots")
    resource = _validated(raw, named, expected, root)
    if wrong := _wrong_codes(resource):
        reason = "is not a code of the value set that FHIR R4 requires here"
        raise Invalid("The resource is not valid FHIR R4", flaws=[Flaw(f"{root}{path}", reason) for path in wrong])
    return resource


def _validated(
    raw: Mapping[str, object], named: str, expected: type[FHIRAbstractModel] | str | None, root: str
) -> FHIRAbstractModel:
    try:
        model = get_fhir_model_class(named) if isinstance(expected, str) or expected is None else expected
    except (ValueError, KeyError):
        raise _invalid(f"{root}.resourceType", "must name a FHIR R4 resource type") from None
    try:
        return model.model_validate(raw)
    except ValidationError as refusal:
        flaws = tuple(dict.fromkeys(_flaw(error, root) for error in refusal.errors(include_url=False)))
        raise Invalid("The resource is not valid FHIR R4", flaws=flaws) from None
    except (LookupError, ValueError, TypeError, AttributeError, RecursionError):
        # The library looks contained resources up by name and lets some look-ups escape; the input is at fault.
        raise _invalid(root, "could not be read as this resource type") from None


def _is_type(value: object) -> bool:
    return isinstance(value, str) and _TYPE.fullmatch(value) is not None


def _flaw(error: ErrorDetails, root: str) -> Flaw:
    path = root
    steps = error["loc"]
    if error["type"] == "extra_forbidden":
        # What is no element of the specification may be anything, even a person's name.
        steps = (*steps[:-1], "")
    for step in steps:
        if isinstance(step, int):
            path += f"[{step}]"
        elif _ELEMENT_NAME.fullmatch(step):
            path += f".{step}"
        else:
            return Flaw(path, "has a property that is not a FHIR R4 element")
    if error["type"] == "value_error":
        return _choice_flaw(path, error["msg"])
    return Flaw(path, _REASONS.get(error["type"], "is not valid FHIR R4"))


def _choice_flaw(path: str, message: str) -> Flaw:
    """The library's own checks: their messages name elements of the specification, never the input."""
    if "spec regex" in message:
        kind = message.removeprefix("Value error, ").split(" ", 1)[0].lower()
        named = kind if kind in {"date", "datetime", "instant", "time"} else "value"
        return Flaw(path, f"is not a FHIR {named}")
    if "from this list" not in message:
        return Flaw(path, "is not valid FHIR R4")
    choice = _choice_name(_QUOTED.findall(message))
    many = "but got multiple" in message
    return Flaw(f"{path}.{choice}[x]", "may be given once only" if many else "is required")


def _choice_name(options: Sequence[str]) -> str:
    """``value`` for valueString, valueCode …: what all options begin with, up to a capital letter."""
    shortest = min(options, key=len, default="")
    for end in range(len(shortest), 0, -1):
        stem = shortest[:end]
        if all(option.startswith(stem) and option[end : end + 1].isupper() for option in options):
            return stem
    return "choice"


@cache
def _elements(kind: type[BaseModel]) -> Mapping[str, tuple[str, frozenset[str] | None]]:
    """By field of a model: the element's name in JSON, and the codes it must be one of, where it must."""

    def codes(info: FieldInfo) -> frozenset[str] | None:
        extra = info.json_schema_extra
        allowed = extra.get("enum_values") if isinstance(extra, dict) else None
        return frozenset(map(str, allowed)) if isinstance(allowed, list) and "+" not in allowed else None

    return {name: (info.alias or name, codes(info)) for name, info in kind.model_fields.items()}


def _wrong_codes(model: BaseModel) -> list[str]:
    """Where codes stand that are outside their required value set: the library knows the sets and does not check them.

    Paths below the model. Asked of every element of every answer that is read, so nothing is made where all is well.
    """
    wrong: list[str] = []
    elements = _elements(type(model))
    for field_name, value in vars(model).items():
        if value is None:
            continue
        name, allowed = elements[field_name]
        listed = isinstance(value, list)
        for index, item in enumerate(value if listed else (value,)):
            if isinstance(item, BaseModel):
                below = _wrong_codes(item)
            elif allowed is not None and item is not None and str(item) not in allowed:
                below = [""]
            else:
                continue
            wrong.extend(f".{name}[{index}]{path}" if listed else f".{name}{path}" for path in below)
    return wrong


# -- a typed view of JSON -------------------------------------------------------------------------------------------


class ReferenceForm(StrEnum):
    """The forms a FHIR R4 reference takes (references.html#literal)."""

    RESTFUL = "restful"
    URN = "urn"
    CONTAINED = "contained"
    CONDITIONAL = "conditional"
    LOGICAL = "logical"


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference taken apart. ``type`` and ``id`` are known of a RESTful one; ``base`` where it is absolute."""

    form: ReferenceForm
    literal: str | None = None
    type: str | None = None
    id: str | None = None
    base: str | None = None


@dataclass(frozen=True, slots=True)
class Element:
    """An object in a FHIR resource and the path it stands at. ``root`` is the resource around it, None for a resource.

    Its readers answer None, or nothing, for what is absent, and raise Invalid, naming the path, for what has another
    type than asked for.
    """

    path: str
    raw: Json
    root: Element | None = None

    @property
    def type(self) -> str:
        """The resource type; empty for an element inside a resource."""
        return self.text("resourceType") or ""

    @property
    def id(self) -> str | None:
        """The FHIR id."""
        return self.text("id")

    def has(self, name: str) -> bool:
        """Whether anything stands there."""
        return self.raw.get(name) not in (None, "", [], {})

    def flaw(self, name: str, reason: str) -> Invalid:
        """A refusal that names one element here."""
        return _invalid(f"{self.path}.{name}", reason)

    def text(self, name: str) -> str | None:
        """A string; blank counts as absent."""
        value = self.raw.get(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self.flaw(name, "must be a string")
        if not value.isascii() and _SURROGATE.search(value):
            raise self.flaw(name, "is not valid Unicode")
        return value.strip() or None

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings without the blank ones (FHIR puts null where only an extension stands)."""
        value = self.raw.get(name)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(item is None or isinstance(item, str) for item in value):
            raise self.flaw(name, "must be a list of strings")
        return tuple(item.strip() for item in value if item and item.strip())

    def flag(self, name: str) -> bool | None:
        """A boolean."""
        value = self.raw.get(name)
        if value is not None and not isinstance(value, bool):
            raise self.flaw(name, "must be true or false")
        return value

    def whole(self, name: str) -> int | None:
        """An integer, which FHIR R4 gives 32 bits."""
        value = self.raw.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not -MAX_INTEGER <= value <= MAX_INTEGER:
            raise self.flaw(name, "must be a whole number of 32 bits")
        return value

    def day(self, name: str) -> date | None:
        """The day of a date or dateTime; None where only the year or the month is known."""
        value = self.text(name)
        if value is None or not _FULL_DATE.match(value):
            return None
        try:
            return date.fromisoformat(value[:10])
        except ValueError:
            raise self.flaw(name, "is not a FHIR date") from None

    def moment(self, name: str) -> datetime | None:
        """A dateTime or instant in UTC, to the millisecond; a date or part of one is its first moment in UTC."""
        value = self.text(name)
        if value is None:
            return None
        if len(value) < len("YYYY-MM-DD"):
            value += "-01-01"[len(value) - len("YYYY-MM-DD") :]
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            raise self.flaw(name, "is not a FHIR dateTime") from None
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
        return at.replace(microsecond=at.microsecond // 1000 * 1000)

    def one(self, name: str) -> Element | None:
        """An object."""
        value = self.raw.get(name)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise self.flaw(name, "must be an object")
        return Element(f"{self.path}.{name}", value, self.root or self)

    def all(self, name: str) -> tuple[Element, ...]:
        """A list of objects."""
        value = self.raw.get(name)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
            raise self.flaw(name, "must be a list of objects")
        return tuple(Element(f"{self.path}.{name}[{i}]", item, self.root or self) for i, item in enumerate(value))

    def extensions(self, url: str) -> tuple[Element, ...]:
        """The extensions with this url."""
        return tuple(item for item in self.all("extension") if item.text("url") == url)

    def extension(self, url: str) -> Element | None:
        """The first extension with this url."""
        return next(iter(self.extensions(url)), None)

    def concept(self, name: str) -> tuple[Coding, ...]:
        """The codings of a CodeableConcept that have a code."""
        found = self.one(name)
        return () if found is None else codings(found)

    def concepts(self, name: str) -> tuple[Coding, ...]:
        """The codings of a list of CodeableConcepts, in order."""
        return tuple(coding for item in self.all(name) for coding in codings(item))

    def label(self, name: str) -> str | None:
        """What a CodeableConcept says to a person: its text, else the first display."""
        found = self.one(name)
        if found is None:
            return None
        shown = (coding.text("display") for coding in found.all("coding"))
        return found.text("text") or next((text for text in shown if text), None)

    def period(self, name: str) -> tuple[date | None, date | None]:
        """First and last day of a Period; None for an open end."""
        found = self.one(name)
        return (None, None) if found is None else (found.day("start"), found.day("end"))

    def identifiers(self, name: str = "identifier") -> tuple[tuple[str | None, str], ...]:
        """(system, value) of each identifier that has a value."""
        pairs = ((item.text("system"), item.text("value")) for item in self.all(name))
        return tuple((system, value) for system, value in pairs if value is not None)

    def reference(self) -> Reference:
        """This element, a FHIR Reference, taken apart. Raises Invalid where it is ill-formed."""
        literal = self.text("reference")
        if literal is None:
            if self.has("identifier") or self.has("display"):
                return Reference(ReferenceForm.LOGICAL)
            raise self.flaw("reference", "is required: the reference names nothing")
        restful = _RESTFUL.fullmatch(literal)
        if restful:
            return Reference(ReferenceForm.RESTFUL, literal, restful["type"], restful["id"], restful["base"])
        if _URN.fullmatch(literal):
            return Reference(ReferenceForm.URN, literal)
        if literal.startswith("#") and (literal == "#" or _ID.fullmatch(literal[1:])):
            return Reference(ReferenceForm.CONTAINED, literal)
        if _CONDITIONAL.fullmatch(literal):
            return Reference(ReferenceForm.CONDITIONAL, literal)
        raise self.flaw("reference", "is not a FHIR reference (Type/id, URL, urn:uuid, urn:oid or #id)")


def codings(concept: Element) -> tuple[Coding, ...]:
    """The codings of a CodeableConcept that have a code; a coding without system has the system ''."""
    pairs = ((item.text("system"), item.text("code")) for item in concept.all("coding"))
    return tuple(Coding(system=system or "", code=code) for system, code in pairs if code is not None)


def element(raw: Mapping[str, object], expected: str | None = None, *, at: str | None = None) -> Element:
    """A validated resource as a typed view; see ``parse`` for the arguments and what it raises."""
    resource = parse(raw, expected, at=at)
    return Element(at or resource.get_resource_type(), raw)


# -- bundles --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a Bundle, however deep. ``resource`` is the view; ``full_url`` its identity in the Bundle."""

    full_url: str | None
    resource: Element

    @property
    def key(self) -> str:
        """What makes two entries the same resource: type and id, else the fullUrl, else the place."""
        if self.resource.id is not None:
            return f"{self.resource.type}/{self.resource.id}"
        return self.full_url or self.resource.path


class TransactionBundle:
    """A FHIR R4 transaction, batch or collection Bundle: nested Bundles flattened, each resource once.

    The same type and id twice is the same resource, and the later content wins. Resources of the ``used`` types are
    validated; those of ``glanced`` types are offered as they came; all others may be of any R4 flavour.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        latest = {entry.key: entry for entry in entries}
        self._resources: tuple[Element, ...] = tuple(entry.resource for entry in latest.values())
        self._by_key = {key: entry.resource for key, entry in latest.items()}
        # An earlier twin's fullUrl still names the resource that replaced it.
        self._by_url = {entry.full_url: latest[entry.key].resource for entry in entries if entry.full_url}
        self._bare = frozenset(latest) - {entry.key for entry in entries if entry.full_url}

    @classmethod
    def read(cls, raw: object, used: Collection[str], glanced: Collection[str] = ()) -> TransactionBundle:
        """Read a Bundle. Raises Invalid with every path that is wrong."""
        reading = _Reading(frozenset(used), frozenset(glanced))
        reading.bundle(raw, "Bundle", 1)
        reading.flaws.refuse("The Bundle cannot be used")
        return cls(reading.entries)

    def of(self, type: str) -> tuple[Element, ...]:
        """The resources of a type, in the order in which each first appeared."""
        return tuple(resource for resource in self._resources if resource.type == type)

    def subject(self, id: str | None = None) -> Element:
        """The one Patient that this Bundle is about; ``id`` says which where there are several. Raises Invalid."""
        patients = self.of("Patient")
        if not patients:
            raise _invalid("Bundle.entry", "has no Patient", "The Bundle cannot be used")
        if id is not None:
            chosen = [patient for patient in patients if patient.id == id]
            if not chosen:
                raise _invalid("Bundle.entry", "has no Patient with the id asked for", "The Bundle cannot be used")
            return chosen[0]
        if len(patients) > 1:
            flaws = [Flaw(patient.path, "is one of several Patients; say which one is meant") for patient in patients]
            raise Invalid("The Bundle cannot be used", flaws=flaws)
        return patients[0]

    def resolve(self, reference: Element, *types: str) -> Element | None:
        """The resource that a Reference leads to, in the Bundle or contained; None where it leads outside.

        Raises Invalid where it is ill-formed, where it can only mean something inside and that is not there
        (``urn:`` and ``#``), or where it leads to a type that is not among ``types``.
        """
        read = reference.reference()
        found = self._found(reference, read)
        if found is None and read.form in (ReferenceForm.URN, ReferenceForm.CONTAINED):
            raise reference.flaw("reference", "leads to nothing in this Bundle")
        type_ = found.type if found is not None else read.type
        if types and type_ and type_ not in types:
            raise reference.flaw("reference", f"must lead to {' or '.join(types)}")
        return found

    def _found(self, reference: Element, read: Reference) -> Element | None:
        if read.form is ReferenceForm.CONTAINED:
            return _contained(reference, read)
        if read.form is ReferenceForm.LOGICAL:
            return self._by_identifier(reference)
        if read.literal is None:
            return None
        named = read.literal.split("/_history/", 1)[0]
        if named in self._by_url:
            return self._by_url[named]
        # A reference within a Bundle is relative to the referring entry's base, which exports leave out at will, as
        # they leave out fullUrl beside absolute references.
        key = f"{read.type}/{read.id}"
        return self._by_key.get(key) if read.base is None or key in self._bare else None

    def _by_identifier(self, reference: Element) -> Element | None:
        wanted = reference.one("identifier")
        if wanted is None or wanted.text("value") is None:
            return None
        pair = (wanted.text("system"), wanted.text("value"))
        type_ = reference.text("type")
        fitting = [r for r in self._resources if type_ in (None, r.type) and pair in _identifiers(r)]
        return fitting[0] if len(fitting) == 1 else None


def _identifiers(resource: Element) -> tuple[tuple[str | None, str], ...]:
    """Identifiers of a resource; FHIR gives some types a single one instead of a list."""
    value = resource.raw.get("identifier")
    return resource.identifiers() if isinstance(value, list) else ()


def _contained(reference: Element, read: Reference) -> Element | None:
    holder = reference.root or reference
    wanted = (read.literal or "")[1:]
    if not wanted:
        return holder
    return next((item for item in holder.all("contained") if item.text("id") == wanted), None)


@dataclass
class _Reading:
    """One pass over a Bundle: the entries found, and what is wrong with it."""

    used: frozenset[str]
    glanced: frozenset[str]
    entries: list[Entry] = field(default_factory=list)
    flaws: Flaws = field(default_factory=Flaws)

    def bundle(self, raw: object, path: str, depth: int) -> None:
        """Read one Bundle's entries, and those of Bundles inside, in order."""
        if not isinstance(raw, Mapping) or raw.get("resourceType") != "Bundle":
            return self.flaws.add(f"{path}.resourceType", "must be Bundle")
        type_ = raw.get("type")
        if not isinstance(type_, str) or type_ not in BUNDLE_TYPES:
            return self.flaws.add(f"{path}.type", "must be transaction, batch or collection")
        listed = raw.get("entry")
        if not isinstance(listed, list) or not listed:
            return self.flaws.add(f"{path}.entry", "must be a list with at least one entry")
        for index, item in enumerate(listed):
            self._entry(item, f"{path}.entry[{index}]", depth)
        return None

    def _entry(self, item: object, path: str, depth: int) -> None:
        if not isinstance(item, Mapping):
            return self.flaws.add(path, "must be an object")
        request = item.get("request")
        method = request.get("method") if isinstance(request, Mapping) else None
        if method is not None and method not in ("POST", "PUT"):
            # Taking the rest in and leaving this out would look like success.
            return self.flaws.add(f"{path}.request.method", "must be POST or PUT")
        full_url = item.get("fullUrl")
        if full_url is not None and not isinstance(full_url, str):
            return self.flaws.add(f"{path}.fullUrl", "must be a string")
        return self._resource(item.get("resource"), full_url, f"{path}.resource", depth)

    def _resource(self, raw: object, full_url: str | None, at: str, depth: int) -> None:
        if not isinstance(raw, Mapping):
            return self.flaws.add(at, "is required, a FHIR resource")
        named = raw.get("resourceType")
        if not _is_type(named):
            return self.flaws.add(f"{at}.resourceType", "must name a FHIR R4 resource type")
        if named == "Bundle":
            too_deep = depth == MAX_NESTING
            return self.flaws.add(at, "is nested too deep") if too_deep else self.bundle(raw, at, depth + 1)
        with self.flaws.gather():
            if named in self.used:
                self.entries.append(Entry(full_url, element(raw, at=at)))
            elif named in self.glanced and isinstance(raw.get("id"), str | None):
                self.entries.append(Entry(full_url, Element(at, raw)))
        return None
