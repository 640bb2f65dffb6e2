"""What a request in plain JSON may say, and the statement it amounts to."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Annotated, Any, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from services.intake import model, terms
from shared.contracts.base import Coding
from shared.contracts.intake import Barrier, Channel
from shared.kit.document import derived_id
from shared.kit.errors import Flaw, Invalid


def _phone(text: str) -> str:
    number = model.e164(text)
    if number is None:
        raise ValueError("is not a telephone number that can be called")
    return number


def _email(text: str) -> str:
    if not terms.is_email(text):
        raise ValueError("is not an e-mail address")
    return text


def _language(text: str) -> str:
    tag = terms.language_tag(text)
    if tag is None:
        raise ValueError("is not a BCP 47 language")
    return tag


def _zone(text: str) -> str:
    if text not in terms.timezones():
        raise ValueError("is not an IANA time zone")
    return text


def _payer(text: str) -> str:
    if not terms.is_payer_id(text):
        raise ValueError("is not 1 to 64 letters, digits, dots and hyphens")
    return text


Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Phone = Annotated[Text, AfterValidator(_phone)]
Email = Annotated[Text, AfterValidator(_email)]
Language = Annotated[Text, AfterValidator(_language)]
Zone = Annotated[Text, AfterValidator(_zone)]
PayerId = Annotated[Text, AfterValidator(_payer)]


class Body(BaseModel):
    """A part of a request. An unknown field is refused."""

    model_config = ConfigDict(extra="forbid")


class AddressBody(Body):
    """A postal address."""

    lines: list[Text] = Field([], max_length=6)
    city: Text | None = None
    state: Text | None = None
    postal_code: Text | None = None
    country: Text = "US"


class CoverageBody(Body):
    """The coverage that pays first. What is left out stays as it is."""

    payer_id: PayerId | None = None
    member_id: Text | None = None
    plan: Text | None = None
    relationship: Text | None = None
    valid_from: date | None = None
    valid_to: date | None = None


class CodeBody(Body):
    """A code in a code system."""

    system: Text
    code: Text


class FactBody(Body):
    """A condition, an allergy or a medication, in codes or in words."""

    codings: list[CodeBody] = Field([], max_length=20)
    text: Text | None = None
    status: Text | None = None
    onset: date | None = None


class ProxyBody(Body):
    """A family member or caregiver, and what they may do."""

    name: Text
    relationship: Text | None = None
    phone: Phone | None = None
    email: Email | None = None
    scopes: list[model.ProxyScope] = []
    valid_to: date | None = None


class ConsentBody(Body):
    """Whether a channel may be used from now on."""

    channel: Channel
    permitted: bool


class PatientBody(Body):
    """A registration in plain JSON, or a part of one. In a PATCH, null removes and what is left out stays."""

    family: Text | None = None
    given: list[Text] | None = Field(None, max_length=10)
    birth_date: date | None = None
    gender: model.Gender | None = None
    mobile: Phone | None = None
    phone: Phone | None = None
    email: Email | None = None
    address: AddressBody | None = None
    language: Language | None = None
    timezone: Zone | None = None
    channels: list[Channel] | None = None
    barriers: list[Barrier] | None = None
    coverage: CoverageBody | None = None
    conditions: list[FactBody] = Field([], max_length=200)
    allergies: list[FactBody] = Field([], max_length=200)
    medications: list[FactBody] = Field([], max_length=200)
    proxies: list[ProxyBody] = Field([], max_length=20)
    consents: list[ConsentBody] = Field([], max_length=10)


_PLAIN = ("family", "given", "birth_date", "gender", "mobile", "phone", "email", "language", "timezone")
_REPLACED = (*_PLAIN, "address", "channels", "barriers", "coverage")
B = TypeVar("B", bound=Body)


def parsed(body: type[B], raw: Mapping[str, Any]) -> B:
    """A body that could have been one of two kinds. Raises what FastAPI raises for one that could not."""
    try:
        return body.model_validate(raw)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        raise RequestValidationError([{**each, "loc": ("body", *each["loc"])} for each in found]) from None


def statement_of(body: PatientBody, patient_id: str, now: datetime, *, whole: bool) -> model.Statement:
    """What a JSON body states. ``whole``: a field that was left out is stated to be absent."""
    if body.birth_date is not None and body.birth_date > now.date():
        raise Invalid(flaws=[Flaw("birth_date", "is in the future")])
    said_fields = set(_REPLACED) if whole else body.model_fields_set
    said: dict[str, Any] = {
        name: getattr(body, name) for name in (*_PLAIN, "channels", "barriers") if name in said_fields
    }
    if "address" in said_fields:
        said["address"] = None if body.address is None else model.Address(**body.address.model_dump())
    if "coverage" in said_fields:
        said["coverages"] = None if body.coverage is None else (_coverage(body.coverage, whole=whole),)
    said["facts"] = tuple(_facts(body, patient_id))
    said["proxies"] = tuple(_proxy(proxy, patient_id) for proxy in body.proxies)
    said["consents"] = tuple(_consent(consent, patient_id, now) for consent in body.consents)
    codings = tuple(Coding(**code.model_dump()) for fact in body.conditions for code in fact.codings)
    said["found_barriers"] = terms.barriers_of(codings)
    return model.Statement.model_validate({name: _frozen(value) for name, value in said.items()})


def _frozen(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _coverage(body: CoverageBody, *, whole: bool) -> model.StatedCoverage:
    return model.StatedCoverage.model_validate(body.model_dump(exclude_unset=not whole))


def _facts(body: PatientBody, patient_id: str) -> list[model.StatedFact]:
    found = []
    listed = (
        ("conditions", model.FactKind.CONDITION),
        ("allergies", model.FactKind.ALLERGY),
        ("medications", model.FactKind.MEDICATION),
    )
    for name, kind in listed:
        for index, fact in enumerate(getattr(body, name)):
            if not fact.codings and fact.text is None:
                raise Invalid(flaws=[Flaw(f"{name}[{index}]", "needs codings or a text")])
            codings = tuple(Coding(system=code.system, code=code.code) for code in fact.codings)
            meaning = [f"{coding.system}|{coding.code}" for coding in codings] or [fact.text]
            found.append(
                model.StatedFact(
                    id=derived_id("fact", patient_id, kind, *meaning),
                    kind=kind,
                    codings=codings,
                    text=fact.text,
                    status=fact.status,
                    onset=fact.onset,
                )
            )
    return found


def _proxy(body: ProxyBody, patient_id: str) -> model.StatedProxy:
    id = derived_id("proxy", patient_id, body.name, body.relationship or "")
    said = body.model_dump(exclude={"scopes"})
    return model.StatedProxy(id=id, scopes=tuple(dict.fromkeys(body.scopes)), **said)


def _consent(body: ConsentBody, patient_id: str, now: datetime) -> model.StatedConsent:
    channels = (body.channel,)
    return model.StatedConsent(
        id=derived_id("consent", patient_id, body.channel, now.isoformat()),
        given_at=now,
        denies=() if body.permitted else channels,
        permits=channels if body.permitted else (),
    )
