"""What messages say: English and Spanish, one wording per occasion and channel, no more than the visit needs.

No name, no specialty, no diagnosis, no clinician: a text or an envelope may be seen by others. A text fits one SMS of
160 septets with the sender's name and telephone and how to stop (47 CFR 64.1200(a)(9)(iv)); a call says the same at
its beginning. Spanish SMS give up the accents that GSM-7 lacks, since one of them would halve the room.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from string import Formatter

from services.notifications.model.language import Language
from services.notifications.model.window import zone_of
from shared.contracts.intake import Channel

GSM7 = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿"
    "abcdefghijklmnopqrstuvwxyzäöñüà"
)
"""The basic alphabet of 3GPP TS 23.038, section 6.2.1."""

GSM7_EXTENSION = frozenset("\f^{}\\[~]|€")
"""Characters that take two septets (section 6.2.1.1)."""

SMS_SEPTETS = 160
CLINIC_SEPTETS = 30
PHONE_SEPTETS = 16


class Occasion(StrEnum):
    """What a message is about."""

    BOOKED = "booked"
    MOVED = "moved"
    REMINDER = "reminder"
    CANCELLED = "cancelled"
    STOPPED = "stopped"
    HELP = "help"


@dataclass(frozen=True, slots=True)
class Template:
    """A wording. ``subject`` is an e-mail's subject or a letter's heading. ``{clinic}``, ``{phone}`` and ``{when}``
    are all that may stand in it."""

    body: str
    subject: str = ""

    def placeholders(self) -> frozenset[str]:
        """What is to be put in."""
        return frozenset(
            name for text in (self.subject, self.body) for _, name, _, _ in Formatter().parse(text) if name
        )


@dataclass(frozen=True, slots=True)
class Sender:
    """Who speaks: the clinic's name and telephone, as they appear in messages."""

    clinic: str
    phone: str


@dataclass(frozen=True, slots=True)
class Wording:
    """A message's text, ready to be sent."""

    subject: str
    body: str


EN, ES = Language.ENGLISH, Language.SPANISH
SMS, VOICE, EMAIL, LETTER = Channel.SMS, Channel.VOICE, Channel.EMAIL, Channel.LETTER

_PRESS = "To confirm, press 1. To cancel, press 2. To stop these calls, press 9 or call {phone}."
_PULSE = "Para confirmar, oprima 1. Para cancelar, oprima 2. Para no recibir más llamadas, oprima 9 o llame al {phone}."
_CALL_US = "To change or cancel it, to get no more messages like this, or for questions, call {clinic} at {phone}."
_LLAME = (
    "Para cambiarla o cancelarla, para no recibir más mensajes como este o si tiene preguntas, llame a {clinic} "
    "al {phone}."
)

TEMPLATES: dict[tuple[Language, Occasion, Channel], Template] = {
    (EN, Occasion.BOOKED, SMS): Template(
        "{clinic}: your visit is on {when}. Reply C to confirm, X to cancel, STOP to end texts. Tel. {phone}"
    ),
    (ES, Occasion.BOOKED, SMS): Template(
        "{clinic}: su cita es el {when}. Responda C para confirmar, X para cancelar, ALTO para salir. Tel. {phone}"
    ),
    (EN, Occasion.MOVED, SMS): Template(
        "{clinic}: your visit is now on {when}. Reply C to confirm, X to cancel, STOP to end texts. Tel. {phone}"
    ),
    (ES, Occasion.MOVED, SMS): Template(
        "{clinic}: su nueva cita: {when}. Responda C para confirmar, X para cancelar, ALTO para salir. Tel. {phone}"
    ),
    (EN, Occasion.REMINDER, SMS): Template(
        "{clinic}: reminder, your visit is {when}. Reply C to confirm, X to cancel, STOP to end texts. Tel. {phone}"
    ),
    (ES, Occasion.REMINDER, SMS): Template(
        "{clinic}: recuerde su cita, {when}. Responda C para confirmar, X para cancelar, ALTO para salir. Tel. {phone}"
    ),
    (EN, Occasion.CANCELLED, SMS): Template(
        "{clinic}: your visit of {when} is cancelled. Please do not come. New date: {phone}. Reply STOP to end texts."
    ),
    (ES, Occasion.CANCELLED, SMS): Template(
        "{clinic}: su cita del {when} se canceló. No venga. Para otra fecha llame al {phone}. ALTO para salir."
    ),
    (EN, Occasion.STOPPED, SMS): Template(
        "{clinic}: you will get no more texts or automated calls. Your visits stay booked; to cancel one call {phone}."
    ),
    (ES, Occasion.STOPPED, SMS): Template(
        "{clinic}: no recibirá más mensajes ni llamadas automáticas. Sus citas siguen; para cancelar llame al {phone}."
    ),
    (EN, Occasion.HELP, SMS): Template(
        "{clinic}: texts about your visits. Reply C to confirm, X to cancel, STOP to end texts. Questions: {phone}"
    ),
    (ES, Occasion.HELP, SMS): Template(
        "{clinic}: mensajes sobre sus citas. C confirma, X cancela, ALTO termina. Preguntas: {phone}"
    ),
    (EN, Occasion.BOOKED, VOICE): Template("This is {clinic}, {phone}. Your visit is on {when}. " + _PRESS),
    (ES, Occasion.BOOKED, VOICE): Template("Le llama {clinic}, {phone}. Su cita es el {when}. " + _PULSE),
    (EN, Occasion.MOVED, VOICE): Template("This is {clinic}, {phone}. Your visit is now on {when}. " + _PRESS),
    (ES, Occasion.MOVED, VOICE): Template("Le llama {clinic}, {phone}. Su cita ahora es el {when}. " + _PULSE),
    (EN, Occasion.REMINDER, VOICE): Template(
        "This is {clinic}, {phone}. This is a reminder of your visit on {when}. " + _PRESS
    ),
    (ES, Occasion.REMINDER, VOICE): Template("Le llama {clinic}, {phone}. Le recordamos su cita del {when}. " + _PULSE),
    (EN, Occasion.CANCELLED, VOICE): Template(
        "This is {clinic}, {phone}. Your visit of {when} is cancelled. Please do not come. "
        "For a new date, call {phone}. To stop these calls, press 9."
    ),
    (ES, Occasion.CANCELLED, VOICE): Template(
        "Le llama {clinic}, {phone}. Su cita del {when} se canceló. Por favor no venga. "
        "Para otra fecha, llame al {phone}. Para no recibir más llamadas, oprima 9."
    ),
}

_WRITTEN: dict[tuple[Language, Occasion], tuple[str, str, str]] = {
    (EN, Occasion.BOOKED): ("Your visit is booked", "Your visit is on {when}.", _CALL_US),
    (ES, Occasion.BOOKED): ("Su cita está reservada", "Su cita es el {when}.", _LLAME),
    (EN, Occasion.MOVED): ("Your visit has a new time", "Your visit is now on {when}.", _CALL_US),
    (ES, Occasion.MOVED): ("Su cita tiene nueva fecha", "Su cita ahora es el {when}.", _LLAME),
    (EN, Occasion.REMINDER): ("A reminder of your visit", "We look forward to seeing you on {when}.", _CALL_US),
    (ES, Occasion.REMINDER): ("Le recordamos su cita", "Le esperamos el {when}.", _LLAME),
    (EN, Occasion.CANCELLED): (
        "Your visit is cancelled",
        "Your visit of {when} is cancelled. Please do not come.",
        "For a new date, to get no more messages like this, or for questions, call {clinic} at {phone}.",
    ),
    (ES, Occasion.CANCELLED): (
        "Su cita se canceló",
        "Su cita del {when} se canceló. Por favor no venga.",
        "Para otra fecha, para no recibir más mensajes como este o si tiene preguntas, llame a {clinic} al {phone}.",
    ),
}

TEMPLATES |= {
    (language, occasion, channel): Template(subject=subject, body=f"{first}\n\n{second}\n\n{{clinic}}\n{{phone}}\n")
    for (language, occasion), (subject, first, second) in _WRITTEN.items()
    for channel in (EMAIL, LETTER)
}


def word(
    language: Language, occasion: Occasion, channel: Channel, sender: Sender, start: datetime | None, *zones: str | None
) -> Wording:
    """The text of a message. ``start`` is told in the first of ``zones`` that is known: the visit's own, as a rule."""
    template = TEMPLATES[language, occasion, channel]
    when = "" if start is None else _when(start, language, channel, *zones)
    values = {"clinic": sender.clinic, "phone": sender.phone, "when": when}
    body = template.body.format_map(values)
    return Wording(template.subject.format_map(values), to_gsm7(body) if channel is SMS else body)


# -- dates in words -----------------------------------------------------------------------------------------------

_DAYS = {
    EN: ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    ES: ("lunes", "martes", "miércoles", "jueves", "viernes", "sábado", "domingo"),
}
# fmt: off
_MONTHS = {
    EN: ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
         "November", "December"),
    ES: ("enero", "febrero", "marzo", "abril", "mayo", "junio", "julio", "agosto", "septiembre", "octubre",
         "noviembre", "diciembre"),
}
# fmt: on
_HALVES = {EN: ("AM", "PM"), ES: ("a. m.", "p. m.")}


def _when(start: datetime, language: Language, channel: Channel, *zones: str | None) -> str:
    """The date and time on the wall, in words; short for a text."""
    at = start.astimezone(zone_of(*zones))
    day, month = _DAYS[language][at.weekday()], _MONTHS[language][at.month - 1]
    clock = f"{at.hour % 12 or 12}:{at.minute:02}"
    half = _HALVES[language][at.hour >= 12]
    if channel is SMS and language is EN:
        return f"{day[:3]} {month[:3]} {at.day}, {clock} {half}"
    if channel is SMS:
        return f"{day[:3]} {at.day} {month[:3]}, {clock} {half.replace(' ', '')}"
    if language is EN:
        return f"{day}, {month} {at.day}, {at.year} at {clock} {half}"
    article = "a la" if at.hour % 12 == 1 else "a las"
    return f"{day} {at.day} de {month} de {at.year} {article} {clock} {half}"


# -- GSM-7 --------------------------------------------------------------------------------------------------------


def to_gsm7(text: str) -> str:
    """The text in the alphabet of SMS: what it lacks loses its accent, or becomes a question mark."""
    return "".join(c if c in GSM7 or c in GSM7_EXTENSION else _nearest(c) for c in text)


def _nearest(character: str) -> str:
    quotes = {"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-", "\u00a0": " ", "\u202f": " "}
    base = quotes.get(character) or unicodedata.normalize("NFKD", character)[0]
    return base if base in GSM7 else "?"


def septets(text: str) -> int:
    """How much of an SMS a text takes. Raises ValueError where it is not in the alphabet."""
    if not set(text) <= GSM7 | GSM7_EXTENSION:
        raise ValueError("a character is not in GSM-7")
    return len(text) + sum(c in GSM7_EXTENSION for c in text)
