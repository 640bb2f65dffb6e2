"""Reads HSDS 3.0 JSON from outside and writes the API's answers in HSDS shape."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TypeVar

from pydantic import ValidationError

from services.directory.model.hsds import ServiceFull, listed
from services.directory.model.listing import CommunityService, ListService
from shared.kit.errors import Flaw, Invalid, Malformed

VERSION = "3.0"
PROFILE = "https://docs.openreferral.org/en/v3.0.0/hsds/"
OPENAPI = "https://raw.githubusercontent.com/openreferral/specification/3.0/schema/openapi.json"

T = TypeVar("T")


def list_command(id: str, body: dict[str, object]) -> ListService:
    """The command to list a ``service_full`` record under ``id``.

    Raises Invalid that names each wrong field by its path in the record, Malformed for numbers that JSON has not.
    """
    try:
        service = ServiceFull.model_validate(body)
    except ValidationError as error:
        raise Invalid(flaws=_flaws(error)) from None
    try:
        text = json.dumps(body, allow_nan=False, separators=(",", ":"))
    except ValueError:
        raise Malformed("A number is not a number") from None
    return ListService(id=id, service=service, listing=text)


def _flaws(error: ValidationError) -> list[Flaw]:
    """What is wrong, without what was given."""
    return [
        Flaw(_path(flaw["loc"]), flaw["msg"].removeprefix("Value error, "))
        for flaw in error.errors(include_url=False, include_input=False, include_context=False)
    ]


def _path(loc: tuple[int | str, ...]) -> str:
    """A place in a record: ``phones[0].number``. Only the specification's own names occur in it."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return "".join(parts).removeprefix(".")


def full(document: CommunityService) -> dict[str, object]:
    """The record as it was listed, with the assurance and the time of change that the directory knows better."""
    record: dict[str, object] = json.loads(document.listing)
    record["status"] = document.state.value
    record["last_modified"] = document.listed_at.isoformat()
    if document.verified_at is not None:
        record["assured_date"] = document.verified_at.date().isoformat()
    return record


def summary(document: CommunityService) -> dict[str, object]:
    """The record as a listing shows it."""
    return listed(full(document))


def minimal(document: CommunityService) -> dict[str, object]:
    """Just id and time of change (HSDS API 3.0, parameter ``minimal``)."""
    return {"id": document.id, "modified_date": document.listed_at.isoformat()}


def page(contents: Sequence[T], total: int, number: int, size: int) -> dict[str, object]:
    """The page envelope of the HSDS API 3.0 around ``contents``; pages count from 1."""
    pages = max(1, -(-total // size))
    return {
        "total_items": total,
        "total_pages": pages,
        "page_number": number,
        "size": len(contents),
        "first_page": number == 1,
        "last_page": number >= pages,
        "empty": not contents,
        "contents": list(contents),
    }


def records(text: str) -> list[dict[str, object]]:
    """The service records in a JSON file: one ``service_full``, a list of them, or an HSDS page of full services.

    Raises Malformed for what is none of these.
    """
    try:
        found = json.loads(text)
    except ValueError:
        raise Malformed("This is not JSON") from None
    if isinstance(found, dict) and isinstance(found.get("contents"), list):
        found = found["contents"]
    if isinstance(found, dict):
        found = [found]
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise Malformed("This is not a service, a list of services or a page of services")
    return list(_as_records(found))


def _as_records(found: Iterable[dict[str, object]]) -> Iterable[dict[str, object]]:
    for one in found:
        yield {str(key): value for key, value in one.items()}
