"""Where a service helps and where a person lives, in keys that an index can compare.

A key is one of ``zip:60601``, ``zip3:606`` (a sectional centre of the United States Postal Service),
``city:IL/springfield``, ``state:IL`` and ``nation``. A service that reaches a place holds the place's key; a person
lives in one place of each kind.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import IntEnum

from services.directory.model.hsds import Place, ServiceArea, ServiceFull

NATION = "nation"
VIRTUAL = "virtual"

_ZIP = re.compile(r"^(\d{5})(-?\d{4})?$")
_ZIP3 = re.compile(r"^(\d{3})(\*|xx)$", re.IGNORECASE)
_STATE = re.compile(r"^(?:US-)?([A-Z]{2})$", re.IGNORECASE)
_CITY = re.compile(r"^(?P<city>[^,;/|]*[^\W\d_][^,;/|]*?)\s+(?P<state>[A-Z]{2})$")
_NATION = frozenset({"us", "usa", "united states", "united states of america", "nationwide", "national"})


class Nearness(IntEnum):
    """How closely a service's area names the place of a person; lower is nearer."""

    POSTAL_CODE = 0
    CITY = 1
    SECTION = 2
    STATE = 3
    NATION = 4
    VIRTUAL = 5


_NEARNESS = {
    "zip": Nearness.POSTAL_CODE,
    "city": Nearness.CITY,
    "zip3": Nearness.SECTION,
    "state": Nearness.STATE,
    NATION: Nearness.NATION,
    VIRTUAL: Nearness.VIRTUAL,
}


def nearness(key: str) -> Nearness:
    """How near a shared key is."""
    return _NEARNESS[key.partition(":")[0]]


def city_key(city: str, state: str) -> str:
    """The key of a city: without case, and with runs of spaces as one."""
    return f"city:{state.upper()}/{' '.join(city.casefold().split())}"


def area_key(text: str) -> str | None:
    """The key that a stated area means: ``60601``, ``606*``, ``US-IL``, ``Springfield IL``, ``US``; else None.

    Prose means no key: a service is not offered where its area can only be guessed.
    """
    text = " ".join(text.split())
    if text.casefold() in _NATION:
        return NATION
    if found := _ZIP.match(text):
        return f"zip:{found[1]}"
    if found := _ZIP3.match(text):
        return f"zip3:{found[1]}"
    if found := _STATE.match(text):
        return f"state:{found[1].upper()}"
    if found := _CITY.match(text):
        return city_key(found["city"], found["state"])
    return None


def _stated(area: ServiceArea) -> Iterable[str]:
    """The keys of one HSDS service_area: a text extent lists areas; a name counts if it is an area and nothing else."""
    if area.extent and (area.extent_type or "text").casefold() == "text":
        for part in re.split(r"[;,|\n]", area.extent):
            if key := area_key(part):
                yield key
    if area.name and (key := area_key(area.name)):
        yield key


def reach_of(service: ServiceFull) -> tuple[str, ...]:
    """The keys of the places a service reaches.

    Stated service areas decide. Where none can be read, the service's physical locations do, each for its city and
    sectional centre; a service with neither is virtual, and comes last everywhere.
    """
    stated = {key for area in service.service_areas for key in _stated(area)}
    if stated:
        return tuple(sorted(stated))
    near: set[str] = set()
    for location in service.places():
        if location.location_type is not Place.PHYSICAL:
            continue
        for address in location.addresses:
            if address.address_type is Place.PHYSICAL:
                near.update(_around(address.city, address.state_province, address.postal_code))
    if near:
        return tuple(sorted(near))
    virtual = any(location.location_type is Place.VIRTUAL for location in service.places())
    return (VIRTUAL,) if virtual or not service.places() else ()


def _around(city: str, state: str, postal_code: str) -> Iterable[str]:
    if found := _STATE.match(state.strip()):
        yield city_key(city, found[1])
    if found := _ZIP.match(postal_code.strip()):
        yield f"zip3:{found[1][:3]}"


def home_of(postal_code: str | None, city: str | None, state: str | None) -> tuple[str, ...]:
    """The keys of the places a person lives in, nearest first, from the parts of an address that are known."""
    keys: list[str] = []
    code = _ZIP.match((postal_code or "").strip())
    region = _STATE.match((state or "").strip())
    if code:
        keys.append(f"zip:{code[1]}")
    if city and city.strip() and region:
        keys.append(city_key(city, region[1]))
    if code:
        keys.append(f"zip3:{code[1][:3]}")
    if region:
        keys.append(f"state:{region[1].upper()}")
    return (*keys, NATION, VIRTUAL)


def covering(key: str) -> tuple[str, ...]:
    """The keys of services that reach the area ``key``, as far as the key itself tells: itself and what holds it."""
    kind, _, value = key.partition(":")
    wider: tuple[str, ...] = ()
    if kind == "zip":
        wider = (f"zip3:{value[:3]}",)
    if kind == "city":
        wider = (f"state:{value.partition('/')[0]}",)
    rest = tuple(place for place in (NATION, VIRTUAL) if place != key)
    return (key, *wider, *rest)
