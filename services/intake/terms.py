"""The codes, extensions and forms that intake understands, and where each comes from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from zoneinfo import available_timezones

from shared.contracts.base import Coding
from shared.contracts.intake import Barrier, Channel

INTERPRETER_URL = "http://hl7.org/fhir/StructureDefinition/patient-interpreterRequired"
US_CORE_INTERPRETER_URL = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-interpreter-needed"
TIMEZONE_URL = "http://hl7.org/fhir/StructureDefinition/timezone"
CHANNEL_URL = "https://carerelay.org/fhir/StructureDefinition/channel-preference"
PROXY_SCOPE_URL = "https://carerelay.org/fhir/StructureDefinition/proxy-scope"
CHANNEL_SYSTEM = "https://carerelay.org/fhir/CodeSystem/channel"
CONTACT_SYSTEM = "http://hl7.org/fhir/contact-point-system"
ICD_10_CM = "http://hl7.org/fhir/sid/icd-10-cm"
LOINC = "http://loinc.org"
SNOMED = "http://snomed.info/sct"
LANGUAGE_SYSTEM = "urn:ietf:bcp:47"

BARRIERS: Mapping[tuple[str, str], Barrier] = {
    (ICD_10_CM, "Z75.3"): Barrier.TRANSPORTATION,
    (ICD_10_CM, "Z59.82"): Barrier.TRANSPORTATION,
    (SNOMED, "713458007"): Barrier.TRANSPORTATION,
    (ICD_10_CM, "Z59.86"): Barrier.PRESCRIPTION_ASSISTANCE,
    (ICD_10_CM, "Z91.120"): Barrier.PRESCRIPTION_ASSISTANCE,
}
"""ICD-10-CM: Z75.3 facilities out of reach, Z59.82 transportation insecurity, Z59.86 financial insecurity, Z91.120
underdosing for want of money. SNOMED CT 713458007: lack of access to transportation."""

SCREENINGS: Mapping[tuple[str, str], Barrier] = {(LOINC, "93030-5"): Barrier.TRANSPORTATION}
SCREENED_YES = frozenset({"LA33-6", "LA30133-5", "LA30134-3"})
"""PRAPARE's question on transportation and the answers to it that mean yes."""

CHANNELS: Mapping[tuple[str, str], Channel] = {
    **{(CHANNEL_SYSTEM, channel.value): channel for channel in Channel},
    (CONTACT_SYSTEM, "sms"): Channel.SMS,
    (CONTACT_SYSTEM, "email"): Channel.EMAIL,
    (CONTACT_SYSTEM, "phone"): Channel.VOICE,
}
LANGUAGES = {"english": "en", "spanish": "es", "español": "es"}
_LANGUAGE = re.compile(r"([A-Za-z]{2,3})((?:-[A-Za-z0-9]{2,8})*)")
_EMAIL = re.compile(r"[^@\s,;<>]{1,64}@[^@\s,;<>]{1,253}")
_PAYER_ID = re.compile(r"[A-Za-z0-9.\-]{1,64}")
COUNTRIES = {"USA": "US", "UNITED STATES": "US", "UNITED STATES OF AMERICA": "US"}
ERRONEOUS = frozenset({"entered-in-error", "refuted"})
OVER = frozenset({"inactive", "remission", "resolved"})
YES = "373066001"


@cache
def timezones() -> frozenset[str]:
    """The names of the IANA time zones known here."""
    return frozenset(available_timezones())


def language_tag(text: str) -> str | None:
    """A language in BCP 47, its first part in small letters; None where it cannot be one."""
    match = _LANGUAGE.fullmatch(text.strip())
    return None if match is None else match[1].lower() + match[2]


def is_email(text: str) -> bool:
    """Whether a text has the form of an e-mail address."""
    return _EMAIL.fullmatch(text) is not None


def is_payer_id(text: str) -> bool:
    """Whether a text can be a payer id: 1 to 64 letters, digits, dots and hyphens, as it stands in the payer's URL."""
    return _PAYER_ID.fullmatch(text) is not None


def barriers_of(codings: tuple[Coding, ...]) -> tuple[Barrier, ...]:
    """The barriers that codes of conditions speak of."""
    keys = ((coding.system, coding.code) for coding in codings)
    return tuple(dict.fromkeys(BARRIERS[key] for key in keys if key in BARRIERS))
