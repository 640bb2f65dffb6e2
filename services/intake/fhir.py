"""FHIR R4 to and from a registration: a transaction Bundle becomes a statement, a patient a Patient resource."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date

from services.intake import model, terms
from shared.contracts.base import Coding
from shared.contracts.intake import Barrier, Channel
from shared.kit import fhir
from shared.kit.document import derived_id
from shared.kit.errors import Flaw
from shared.kit.fhir import Element, Json, ReferenceForm

USED = frozenset(
    {
        "Patient",
        "Coverage",
        "RelatedPerson",
        "Condition",
        "AllergyIntolerance",
        "MedicationStatement",
        "Consent",
    }
)
GLANCED = frozenset({"Organization", "Medication", "Observation"})
"""What is looked into for a payer's identifier, a medication's name, a social need; else it is not ours to judge."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A resource of the Bundle that was taken in: the sender's reference to it, and our id."""

    reference: str
    id: str


@dataclass(frozen=True, slots=True)
class Registration:
    """A Bundle, read: whom it is about, what it states, and what of it could not be used (but refuses nothing)."""

    patient_id: str
    reference: str
    statement: model.Statement
    taken: tuple[Taken, ...]
    ignored: tuple[Flaw, ...]


def read_registration(
    raw: object,
    *,
    patient_id: Callable[[str | None], str],
    payers: Mapping[str, str],
    today: date,
    which: str | None = None,
) -> Registration:
    """A registration out of a FHIR R4 transaction Bundle.

    ``patient_id`` gives our id for the Patient's own; ``payers`` maps an Organization's identifier, name or id to a
    payer id; ``which`` is the id of the Patient meant where the Bundle has several. Raises Invalid with every path
    that is wrong.
    """
    bundle = fhir.TransactionBundle.read(raw, USED, GLANCED)
    patient = bundle.subject(which)
    return _Reader(bundle, patient, patient_id(patient.id), payers, today).read()


@dataclass
class _Reader:
    """One pass over one Bundle. What is wrong is gathered in ``flaws``, what cannot be used in ``ignored``."""

    bundle: fhir.TransactionBundle
    patient: Element
    id: str
    payers: Mapping[str, str]
    today: date
    flaws: fhir.Flaws = field(default_factory=fhir.Flaws)
    ignored: list[Flaw] = field(default_factory=list)
    taken: list[Taken] = field(default_factory=list)

    def read(self) -> Registration:
        """Read everything, then refuse if anything was wrong."""
        said: dict[str, object] = {}
        with self.flaws.gather():
            said |= self._demographics()
        self.taken.append(Taken(_named(self.patient), self.id))
        lists = {
            "coverages": self._each(("Coverage",), "beneficiary", self._coverage),
            "facts": self._each(tuple(model.FactKind), "subject", self._fact),
            "proxies": self._each(("RelatedPerson",), "patient", self._proxy),
            "consents": self._each(("Consent",), "patient", self._consent),
        }
        said |= {name: tuple(items) for name, items in lists.items() if items}
        with self.flaws.gather():
            said["found_barriers"] = self._barriers()
        self.flaws.refuse("The Bundle cannot be used")
        statement = model.Statement.model_validate(said)
        return Registration(self.id, _named(self.patient), statement, tuple(self.taken), tuple(self.ignored))

    # -- the person -----------------------------------------------------------------------------------------

    def _demographics(self) -> dict[str, object]:
        patient = self.patient
        said: dict[str, object] = {}
        if name := _best_name(patient):
            said |= {"family": name.text("family"), "given": name.texts("given")}
            if said["family"] is None and not said["given"] and name.text("text"):
                said["given"] = (name.text("text"),)
        if birth_date := patient.day("birthDate"):
            if birth_date > self.today:
                raise patient.flaw("birthDate", "is in the future")
            said["birth_date"] = birth_date
        if gender := patient.text("gender"):
            said["gender"] = model.Gender(gender)
        said |= self._contact(patient)
        if address := self._address():
            said["address"] = address
        if language := self._language():
            said["language"] = language
        if zone := self._timezone():
            said["timezone"] = zone
        if channels := self._wishes():
            said["channels"] = channels
        return said

    def _points(self, holder: Element) -> Iterator[tuple[str, str, Element]]:
        """(kind, value, ContactPoint) of each usable contact, in the sender's order; kind: mobile, phone or email."""
        for point in holder.all("telecom"):
            value, system = point.text("value"), point.text("system")
            if value is None or point.text("use") == "old" or self._ended(point):
                continue
            if system == "email":
                if terms.is_email(value):
                    yield "email", value, point
                else:
                    self._ignore(point, "value", "is not an e-mail address")
            elif system in ("phone", "sms"):
                mobile = system == "sms" or point.text("use") == "mobile"
                if number := model.e164(value):
                    yield "mobile" if mobile else "phone", number, point
                else:
                    self._ignore(point, "value", "is not a telephone number that can be called")

    def _contact(self, holder: Element) -> dict[str, str]:
        found: dict[str, str] = {}
        for kind, value, _ in sorted(self._points(holder), key=lambda item: item[2].whole("rank") or 999):
            found.setdefault(kind, value)
        return found

    def _address(self) -> model.Address | None:
        usable = [a for a in self.patient.all("address") if a.text("use") != "old" and not self._ended(a)]
        rank = {"both": 0, "postal": 0, None: 1, "physical": 2}
        for address in sorted(usable, key=lambda a: (a.text("use") == "temp", rank.get(a.text("type"), 1))):
            country = address.text("country") or "US"
            return model.Address(
                lines=address.texts("line"),
                city=address.text("city"),
                state=address.text("state"),
                postal_code=address.text("postalCode"),
                country=terms.COUNTRIES.get(country.upper(), country),
            )
        return None

    def _language(self) -> str | None:
        spoken = self.patient.all("communication")
        for communication in sorted(spoken, key=lambda c: not c.flag("preferred")):
            codes = [coding.code for coding in communication.concept("language")]
            for code in codes:
                if language := terms.language_tag(code):
                    return language
            label = (communication.label("language") or "").lower()
            if label in terms.LANGUAGES:
                return terms.LANGUAGES[label]
            self._ignore(communication, "language", "has no BCP 47 code")
        return None

    def _timezone(self) -> str | None:
        for holder in (self.patient, *self.patient.all("address")):
            extension = holder.extension(terms.TIMEZONE_URL)
            zone = None if extension is None else extension.text("valueCode")
            if zone in terms.timezones():
                return zone
            if extension is not None:
                self._ignore(extension, "valueCode", "is not an IANA time zone")
        return None

    def _wishes(self) -> tuple[Channel, ...]:
        """Channels in the order wished for: said by our extension, else by ContactPoint.rank."""
        stated = [extension.text("valueCode") for extension in self.patient.extensions(terms.CHANNEL_URL)]
        known = [Channel(code) for code in stated if code in set(Channel)]
        if known:
            return tuple(dict.fromkeys(known))
        of = {"mobile": Channel.SMS, "email": Channel.EMAIL, "phone": Channel.VOICE}
        ranked = [(rank, of[kind]) for kind, _, point in self._points(self.patient) if (rank := point.whole("rank"))]
        return tuple(dict.fromkeys(channel for _, channel in sorted(ranked, key=lambda item: item[0])))

    # -- what belongs to the person -------------------------------------------------------------------------

    def _each(self, types: tuple[str, ...], owner: str, read: Callable[[Element], object]) -> list[object]:
        """Read each resource of these types that is about the patient; its flaws do not hide those of the next."""
        found = []
        for type in types:
            for resource in self.bundle.of(type):
                with self.flaws.gather():
                    subject = "patient" if type == "AllergyIntolerance" else owner
                    if self._belongs(resource, subject) and (item := read(resource)) is not None:
                        found.append(item)
        return found

    def _belongs(self, resource: Element, owner: str) -> bool:
        """Whether a resource is about the patient. About another Patient of the Bundle: left out, and said so."""
        reference = resource.one(owner)
        if reference is None:
            if resource.type == "Consent":
                return True
            raise resource.flaw(owner, "is required")
        target = self.bundle.resolve(reference, "Patient")
        if target is None:
            raise reference.flaw("reference", "does not lead to the Patient of this Bundle")
        if target is not self.patient:
            self._ignore(resource, owner, "leads to another Patient than the one asked for")
        return target is self.patient

    def _take(self, resource: Element, kind: str) -> str:
        """Our id for a resource: the same whenever the same caller sends it again."""
        id = derived_id(kind, self.id, _named(resource))
        self.taken.append(Taken(_named(resource), id))
        return id

    def _coverage(self, coverage: Element) -> model.StatedCoverage | None:
        status = coverage.text("status")
        if status == "draft":
            self._ignore(coverage, "status", "is draft")
            return None
        said: dict[str, object] = {"id": self._take(coverage, "coverage"), "source": _named(coverage)}
        if status in ("cancelled", "entered-in-error"):
            return model.StatedCoverage.model_validate({**said, "withdrawn": True})
        starts, ends = coverage.period("period")
        told = {
            "order": coverage.whole("order"),
            "payer_id": self._payer(coverage),
            "member_id": _member_id(coverage),
            "plan": _plan(coverage),
            "relationship": _first_code(coverage, "relationship"),
            "valid_from": starts,
            "valid_to": ends,
        }
        said |= {name: value for name, value in told.items() if value is not None}
        return model.StatedCoverage.model_validate(said)

    def _payer(self, coverage: Element) -> str | None:
        """The payer of a coverage: the first payor that is an organization. A person who pays is no payer."""
        for payor in coverage.all("payor"):
            organization = self.bundle.resolve(payor, "Organization", "Patient", "RelatedPerson")
            if organization is not None and organization.type != "Organization":
                continue
            names = self._payer_names(payor, organization)
            mapped = (self.payers[name] for name in names if name in self.payers)
            usable = (name for name in names if terms.is_payer_id(name))
            if payer := next(mapped, None) or next(usable, None):
                return payer
            self._ignore(payor, "reference", "names no payer by an identifier or id that can be used")
        return None

    def _payer_names(self, payor: Element, organization: Element | None) -> list[str]:
        """By what a payer may be known: its identifiers, its id, its name. The best first."""
        if organization is not None:
            named = [value for _, value in organization.identifiers()]
            return [name for name in (*named, organization.id, organization.text("name")) if name]
        reference = payor.reference()
        identifier = payor.one("identifier")
        value = None if identifier is None else identifier.text("value")
        outside = reference.id if reference.form is ReferenceForm.RESTFUL else None
        return [name for name in (value, outside, payor.text("display")) if name]

    def _fact(self, resource: Element) -> model.StatedFact | None:
        kind = model.FactKind(resource.type)
        codings, text = self._meaning(resource, kind)
        if not codings and text is None:
            self._ignore(resource, "code", "says nothing")
            return None
        clinical, verification = _first_code(resource, "clinicalStatus"), _first_code(resource, "verificationStatus")
        status = resource.text("status") or clinical
        begun = resource.day("onsetDateTime") or resource.day("effectiveDateTime")
        return model.StatedFact(
            id=self._take(resource, "fact"),
            kind=kind,
            codings=codings,
            text=text,
            status=status,
            onset=begun or resource.period("onsetPeriod")[0] or resource.period("effectivePeriod")[0],
            reference=_named(resource),
            asserter=_literal(resource, "asserter", "recorder", "informationSource"),
            recorded=resource.day("recordedDate") or resource.day("dateAsserted"),
            withdrawn=verification in terms.ERRONEOUS or status == "entered-in-error",
        )

    def _meaning(self, resource: Element, kind: model.FactKind) -> tuple[tuple[Coding, ...], str | None]:
        if kind is not model.FactKind.MEDICATION:
            return resource.concept("code"), resource.label("code")
        reference = resource.one("medicationReference")
        if reference is None:
            return resource.concept("medicationCodeableConcept"), resource.label("medicationCodeableConcept")
        medication = self.bundle.resolve(reference, "Medication")
        if medication is None:
            return (), reference.text("display")
        return medication.concept("code"), medication.label("code") or reference.text("display")

    def _proxy(self, person: Element) -> model.StatedProxy:
        contact = self._contact(person)
        name = _best_name(person)
        scopes = [extension.text("valueCode") for extension in person.extensions(terms.PROXY_SCOPE_URL)]
        relationships = person.all("relationship")
        codes = [coding.code for relationship in relationships for coding in fhir.codings(relationship)]
        return model.StatedProxy(
            id=self._take(person, "proxy"),
            name=None if name is None else _full_name(name),
            relationship=codes[0] if codes else None,
            phone=contact.get("mobile") or contact.get("phone"),
            email=contact.get("email"),
            scopes=tuple(scope for scope in model.ProxyScope if scope in scopes),
            valid_to=person.period("period")[1],
            active=person.flag("active") is not False,
        )

    def _consent(self, consent: Element) -> model.StatedConsent:
        denies, permits = _provisions(consent.one("provision"))
        return model.StatedConsent(
            id=self._take(consent, "consent"),
            active=consent.text("status") == "active",
            given_at=consent.moment("dateTime"),
            denies=denies,
            permits=permits,
        )

    # -- needs ----------------------------------------------------------------------------------------------

    def _barriers(self) -> tuple[Barrier, ...]:
        found = [Barrier.INTERPRETER] if self._needs_interpreter() else []
        for condition in self.bundle.of("Condition"):
            over = _first_code(condition, "clinicalStatus") in terms.OVER
            wrong = _first_code(condition, "verificationStatus") in terms.ERRONEOUS
            if not over and not wrong and self._is_about(condition):
                found += terms.barriers_of(condition.concept("code"))
        for observation in self.bundle.of("Observation"):
            with fhir.Flaws().gather():  # an observation of another kind may be as odd as it likes
                if self._is_about(observation):
                    found += _screened(observation)
        return tuple(dict.fromkeys(found))

    def _is_about(self, resource: Element) -> bool:
        subject = resource.one("subject")
        return subject is not None and self.bundle.resolve(subject) is self.patient

    def _needs_interpreter(self) -> bool:
        required = self.patient.extension(terms.INTERPRETER_URL)
        if required is not None and required.flag("valueBoolean"):
            return True
        needed = self.patient.extension(terms.US_CORE_INTERPRETER_URL)
        coding = None if needed is None else needed.one("valueCoding")
        return coding is not None and coding.text("code") == terms.YES

    # -- what is common -------------------------------------------------------------------------------------

    def _ended(self, element: Element) -> bool:
        ends = element.period("period")[1]
        return ends is not None and ends < self.today

    def _ignore(self, element: Element, name: str, reason: str) -> None:
        flaw = Flaw(f"{element.path}.{name}", reason)
        if flaw not in self.ignored:
            self.ignored.append(flaw)


def _screened(observation: Element) -> list[Barrier]:
    """What an observation says of needs: coded in its value, or a screening question that was answered with yes."""
    if observation.text("status") in ("entered-in-error", "cancelled"):
        return []
    answers = observation.concept("valueCodeableConcept")
    asked = [(coding.system, coding.code) for coding in observation.concept("code")]
    yes = any(coding.code in terms.SCREENED_YES for coding in answers)
    return [*terms.barriers_of(answers)] + [terms.SCREENINGS[key] for key in asked if yes and key in terms.SCREENINGS]


def _named(resource: Element) -> str:
    """The sender's reference to a resource: type and id, else where it stands."""
    return f"{resource.type}/{resource.id}" if resource.id is not None else resource.path


def _best_name(person: Element) -> Element | None:
    rank = {"official": 0, "usual": 1, None: 2, "temp": 3, "nickname": 4, "anonymous": 5, "maiden": 6, "old": 7}
    return min(person.all("name"), key=lambda name: rank.get(name.text("use"), 3), default=None)


def _full_name(name: Element) -> str | None:
    family = name.text("family")
    parts = (*name.texts("given"), *([family] if family else []))
    return name.text("text") or " ".join(parts) or None


def _first_code(element: Element, name: str) -> str | None:
    return next((coding.code for coding in element.concept(name)), None)


def _literal(element: Element, *names: str) -> str | None:
    """The literal of the first of these references; never its display, which is a person's name."""
    for name in names:
        reference = element.one(name)
        if reference is not None and reference.has("reference"):
            return reference.reference().literal
    return None


def _member_id(coverage: Element) -> str | None:
    """Coverage.subscriberId, else the identifier of type MB (HL7 v2-0203), else the only identifier there is."""
    if stated := coverage.text("subscriberId"):
        return stated
    identifiers = [item for item in coverage.all("identifier") if item.has("value")]
    typed = [item for item in identifiers if _first_code(item, "type") == "MB"]
    chosen = typed or (identifiers if len(identifiers) == 1 else [])
    return chosen[0].text("value") if chosen else None


def _plan(coverage: Element) -> str | None:
    by_type = {_first_code(item, "type"): item.text("value") for item in reversed(coverage.all("class"))}
    return by_type.get("plan") or by_type.get("group")


def _provisions(root: Element | None) -> tuple[tuple[Channel, ...], tuple[Channel, ...]]:
    """The channels that a consent denies and permits, in its provision and the exceptions under it."""
    said: dict[str, list[Channel]] = {"deny": [], "permit": []}
    for provision in () if root is None else (root, *root.all("provision")):
        codings = provision.concepts("code")
        channels = [terms.CHANNELS[key] for c in codings if (key := (c.system, c.code)) in terms.CHANNELS]
        said.get(provision.text("type") or "", []).extend(channels)
    return tuple(dict.fromkeys(said["deny"])), tuple(dict.fromkeys(said["permit"]))


# -- out ------------------------------------------------------------------------------------------------------------


def patient_resource(patient: model.Patient) -> dict[str, object]:
    """The patient as a FHIR R4 Patient."""
    resource: dict[str, object] = {"resourceType": "Patient", "id": patient.id, "active": not patient.ended}
    interpreter = any(need.barrier is Barrier.INTERPRETER for need in patient.needs)
    zone = model.timezone_of(patient.timezone, patient.address)
    extensions: list[Json] = [{"url": terms.INTERPRETER_URL, "valueBoolean": True}] if interpreter else []
    extensions += [{"url": terms.TIMEZONE_URL, "valueCode": zone}] if zone else []
    extensions += [{"url": terms.CHANNEL_URL, "valueCode": channel.value} for channel in patient.channels]
    if extensions:
        resource["extension"] = extensions
    if patient.family or patient.given:
        name = {"use": "official", "family": patient.family, "given": list(patient.given)}
        resource["name"] = [_present(name)]
    if points := _telecom(patient):
        resource["telecom"] = points
    if patient.gender is not None:
        resource["gender"] = patient.gender.value
    if patient.birth_date is not None:
        resource["birthDate"] = patient.birth_date.isoformat()
    if patient.address is not None:
        resource["address"] = [_address(patient.address)]
    if patient.language is not None:
        language = {"coding": [{"system": terms.LANGUAGE_SYSTEM, "code": patient.language}]}
        resource["communication"] = [{"language": language, "preferred": True}]
    return resource


def _telecom(patient: model.Patient) -> list[Json]:
    points = (
        {"system": "phone", "value": patient.mobile, "use": "mobile"},
        {"system": "phone", "value": patient.phone, "use": "home"},
        {"system": "email", "value": patient.email},
    )
    return [point for point in points if point["value"] is not None]


def _address(address: model.Address) -> Json:
    return _present(
        {
            "line": list(address.lines),
            "city": address.city,
            "state": address.state,
            "postalCode": address.postal_code,
            "country": address.country,
        }
    )


def _present(fields: Json) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value not in (None, [], "")}
