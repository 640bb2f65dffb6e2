"""What the peers' workers say and keep: the same words, and the same request to the gateway, as CareRelay's sender."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from tests.bench.reminders_sides import CLINIC, FROM, PHONE, Reminder

WORDS = {
    "en": "{clinic}: reminder, your visit is {when}. Reply C to confirm, X to cancel, STOP to end texts. Tel. {phone}",
    "es": (
        "{clinic}: recuerde su cita, {when}. Responda C para confirmar, X para cancelar, ALTO para salir. Tel. {phone}"
    ),
}
CALLBACK = "http://127.0.0.1:8000/callbacks/status"


def recipient_of(reminder: Reminder) -> dict[str, Any]:
    """A person as a peer's database holds it."""
    return {
        "id": reminder.patient_id,
        "mobile": reminder.to,
        "language": reminder.language,
        "timezone": reminder.timezone,
        "consent": True,
    }


def visit_of(reminder: Reminder) -> dict[str, Any]:
    """A visit as a peer's database holds it."""
    return {
        "id": reminder.appointment_id,
        "patient_id": reminder.patient_id,
        "start": reminder.start.isoformat(),
        "timezone": reminder.timezone,
        "state": "booked",
    }


def wanted(recipient: Mapping[str, Any], visit: Mapping[str, Any]) -> bool:
    """Whether, as things stand now, the text is to go: consent was not taken back, the visit was not called off."""
    return bool(recipient["consent"]) and visit["state"] == "booked"


def message(reminder_id: str, recipient: Mapping[str, Any], visit: Mapping[str, Any]) -> dict[str, str]:
    """The request's JSON."""
    start = visit["start"]
    begins = start if isinstance(start, datetime) else datetime.fromisoformat(start)
    local = begins.astimezone(ZoneInfo(visit["timezone"]))
    body = WORDS[recipient["language"]].format(clinic=CLINIC, phone=PHONE, when=f"{local:%a %b %d, %I:%M %p %Z}")
    return {
        "to": recipient["mobile"],
        "from": FROM,
        "body": body,
        "reference": reminder_id,
        "language": recipient["language"],
        "callback_url": CALLBACK,
    }
