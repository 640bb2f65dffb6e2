"""How a person can be reached: numbers in E.164, channels in order, and the time zone they live in."""

from __future__ import annotations

import re

from services.intake.model.patient import Address, Patient
from shared.contracts.intake import Channel

_E164 = re.compile(r"\+[1-9]\d{6,14}")
_EXTENSION = re.compile(r"(?:ext\.?|x)\s*\d+\s*$", re.IGNORECASE)

# fmt: off
_EASTERN = (
    "CT", "DC", "DE", "FL", "GA", "ME", "MD", "MA", "NH", "NJ",
    "NY", "NC", "OH", "PA", "RI", "SC", "VT", "VA", "WV",
)
# fmt: on

# Where a state has two zones, the one in which most of its people live; a stated zone always wins.
_ZONES: dict[str, tuple[str, ...]] = {
    "America/New_York": _EASTERN,
    "America/Detroit": ("MI",),
    "America/Indiana/Indianapolis": ("IN",),
    "America/Kentucky/Louisville": ("KY",),
    "America/Chicago": ("AL", "AR", "IL", "IA", "KS", "LA", "MN", "MS", "MO", "NE", "ND", "OK", "SD", "TN", "TX", "WI"),
    "America/Denver": ("CO", "MT", "NM", "UT", "WY"),
    "America/Boise": ("ID",),
    "America/Phoenix": ("AZ",),
    "America/Los_Angeles": ("CA", "NV", "OR", "WA"),
    "America/Anchorage": ("AK",),
    "Pacific/Honolulu": ("HI",),
    "America/Puerto_Rico": ("PR",),
    "America/St_Thomas": ("VI",),
    "Pacific/Guam": ("GU", "MP"),
    "Pacific/Pago_Pago": ("AS",),
}
_ZONE_OF_STATE = {state: zone for zone, states in _ZONES.items() for state in states}


def e164(text: str) -> str | None:
    """A telephone number in E.164, ten digits taken as North American; None where it cannot be one."""
    number = re.sub(r"[\s().\-/]", "", _EXTENSION.sub("", text.strip()))
    if number.startswith("00"):
        number = f"+{number[2:]}"
    if not number.startswith("+"):
        number = f"+1{number}" if len(number) == 10 else f"+{number}" if re.fullmatch(r"1\d{10}", number) else number
    return number if _E164.fullmatch(number) else None


def timezone_of(stated: str | None, address: Address | None) -> str | None:
    """The stated IANA zone, else the usual one of the US state; None where neither is known."""
    if stated is not None or address is None or address.state is None:
        return stated
    return _ZONE_OF_STATE.get(address.state.strip().upper())


def reachable(patient: Patient) -> tuple[Channel, ...]:
    """The channels for which there is contact, in the order in which a person without wishes is reached."""
    there = {
        Channel.SMS: patient.mobile is not None,
        Channel.EMAIL: patient.email is not None,
        Channel.VOICE: patient.mobile is not None or patient.phone is not None,
        Channel.LETTER: patient.address is not None and patient.address.deliverable,
    }
    return tuple(channel for channel, is_there in there.items() if is_there)


def channels_of(patient: Patient) -> tuple[Channel, ...]:
    """The channels to use, in order: those wished for that can be reached, else all that can be."""
    possible = reachable(patient)
    return tuple(channel for channel in patient.channels if channel in possible) or possible
