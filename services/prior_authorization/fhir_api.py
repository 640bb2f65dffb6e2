"""FHIR R4 read and search for subscribers: Claim, ClaimResponse and Task of each authorization, by its indexes.

A search names the patient, the payer, the request or the resource itself. A parameter that is not known is refused, not
passed over: whoever asked for less would take all for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from fastapi import Request

from services.prior_authorization import fhir, listing
from services.prior_authorization.model import Authorization
from services.prior_authorization.model.authorization import CLAIM_FIELDS
from services.prior_authorization.pas import codes
from services.prior_authorization.pas.fhir import Resource
from shared.kit.api import Call, CallContext, DocumentId, Reply, Routes
from shared.kit.auth import Role

READERS = frozenset({Role.COORDINATOR, Role.CLINICIAN, Role.SCHEDULER, Role.AUDITOR, Role.OPERATOR, Role.SERVICE})

FHIR_JSON = {"content-type": "application/fhir+json"}
USUAL = 50
COUNT, AFTER, CHANGED = "_count", "_after", "_lastUpdated"

Show = Callable[[Authorization], Resource]

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TOKEN = re.compile(r"[A-Za-z0-9.-]{1,64}")
_CODE = re.compile(r"[a-z-]{1,40}")
_WHEN = re.compile(
    r"(?P<prefix>eq|ge|gt|le|lt)?(?P<at>\d{4}-\d{2}-\d{2}(?:T\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:\d{2}))?)"
)


class _Refused(Exception):
    """A search that cannot be made as it stands: an issue code, the parameter where it is one of ours, and why."""

    def __init__(self, code: str, expression: str, text: str) -> None:
        super().__init__(text)
        self.code, self.expression, self.text = code, expression, text


@dataclass(frozen=True, slots=True)
class _Kind:
    """A resource type: how it is shown, which parameter names the authorization by its Claim, and which its date."""

    name: str
    show: Show
    request: str | None
    dated: str
    element: str


@dataclass(slots=True)
class _Search:
    """A search as it was asked for. ``conditions`` are on indexed fields, the rest on what is shown."""

    conditions: dict[str, str]
    identifier: str | None = None
    status: str | None = None
    dates: tuple[tuple[str, datetime, datetime], ...] = ()
    changed: tuple[tuple[str, datetime, datetime], ...] = ()
    count: int = USUAL
    after: str | None = None

    def fits(self, document: Authorization, resource: Resource, element: str) -> bool:
        """Whether an authorization is among those that were asked for, beyond the conditions."""
        if self.changed and document.changed_at is None:
            return False
        if self.status not in (None, resource["status"]):
            return False
        at = datetime.fromisoformat(str(resource[element]))
        changed = document.changed_at or at
        dated = all(_holds(prefix, start, end, at) for prefix, start, end in self.dates)
        return dated and all(_holds(prefix, start, end, changed) for prefix, start, end in self.changed)


def routes(asker: fhir.Asker) -> Routes:
    """Read and search of each resource type; ``asker`` is whose requests they are."""
    found = Routes(prefix="/fhir", tags=("fhir",))
    for kind in (
        _Kind("Claim", lambda document: fhir.claim(document, asker.npi), None, "created", "created"),
        _Kind("ClaimResponse", fhir.claim_response, "request", "created", "created"),
        _Kind("Task", lambda document: fhir.task(document, asker), "focus", "authored-on", "authoredOn"),
    ):
        _add(found, kind)
    return found


def _add(found: Routes, kind: _Kind) -> None:
    async def read(id: DocumentId, call: Call) -> Reply:
        document = await call.read(Authorization, id)
        return Reply(200, kind.show(document), FHIR_JSON | {"ETag": f'"{document.version}"'})

    async def search(request: Request, call: Call) -> Reply:
        try:
            asked = _asked(kind, request.query_params.multi_items())
        except _Refused as refusal:
            return Reply(400, fhir.outcome(refusal.code, refusal.expression, refusal.text), FHIR_JSON)
        base = f"{str(request.base_url).rstrip('/')}/fhir"
        shown, behind = await _page(call, kind, asked)
        links = dict(_links(f"{base}/{kind.name}", request.query_params.multi_items(), behind))
        return Reply(200, fhir.searchset(base, shown, links), FHIR_JSON)

    read.__name__, search.__name__ = f"read_{kind.name}", f"search_{kind.name}"
    read.__doc__ = f"The authorization as a FHIR R4 {kind.name}."
    search.__doc__ = f"Search for {kind.name}: a searchset Bundle, a page at a time; an OperationOutcome where refused."
    found.get("/" + kind.name + "/{id}", roles=READERS)(read)
    found.get(f"/{kind.name}", roles=READERS)(search)


async def _page(call: CallContext, kind: _Kind, asked: _Search) -> tuple[list[Resource], str | None]:
    """As many as were asked for that fit, by id, and behind which id there is more; the reading is audited."""

    def fits(document: Authorization) -> bool:
        return asked.fits(document, kind.show(document), kind.element)

    if asked.identifier is None:
        found, behind = await listing.page(call, asked.conditions, limit=asked.count, after=asked.after, fits=fits)
        return [kind.show(each) for each in found], behind
    for field in CLAIM_FIELDS:
        conditions = {**asked.conditions, field: asked.identifier}
        found, behind = await listing.page(call, conditions, limit=asked.count, after=asked.after, fits=fits)
        if found:
            return [kind.show(each) for each in found], behind
    return [], None


# -- what was asked for ---------------------------------------------------------------------------------------------


def _asked(kind: _Kind, given: list[tuple[str, str]]) -> _Search:
    """The search that these parameters ask for. Raises _Refused."""
    asked = _Search({})
    seen: set[str] = set()
    for name, value in given:
        if name in seen and name not in (kind.dated, CHANGED):
            raise _Refused("invalid", name, "may be given once")
        _take(kind, asked, name, value)
        seen.add(name)
    if not asked.conditions and asked.identifier is None:
        raise _Refused("required", "patient", "is needed, or _id, identifier, insurer or the request")
    if "_id" in asked.conditions:
        asked.after = None
    return asked


def _take(kind: _Kind, asked: _Search, name: str, value: str) -> None:
    if name == "patient":
        asked.conditions["patient_id"] = _reference(name, value, "Patient")
    elif name in ("_id", kind.request):
        asked.conditions["_id"] = _reference(name, value, "Claim" if name == kind.request else "")
    elif name == "insurer" and kind.name != "Task":
        asked.conditions["payer_id"] = _token(name, value, codes.PAYER_SYSTEM)
    elif name == "identifier" and kind.name != "Task":
        asked.identifier = _token(name, value, codes.CLAIM_SYSTEM)
    elif name == "status":
        asked.status = _fitting(name, value, _CODE)
    elif name == kind.dated:
        asked.dates = (*asked.dates, _date(name, value))
    elif name == CHANGED:
        asked.changed = (*asked.changed, _date(name, value))
    elif name == COUNT:
        asked.count = _count(value)
    elif name == AFTER:
        asked.after = _fitting(name, value, _UUID)
    else:
        raise _Refused("not-supported", f"{kind.name}.search", "has a parameter that is not known here")


def _reference(name: str, value: str, type: str) -> str:
    """The id in ``Patient/id``, in an absolute reference, or alone."""
    rest, _, id = value.rpartition("/")
    if rest and rest.rpartition("/")[2] != type:
        raise _Refused("value", name, "must name a resource of the right type")
    return _fitting(name, id, _UUID)


def _token(name: str, value: str, system: str) -> str:
    """The value of ``system|value``, or alone."""
    stated, bar, code = value.rpartition("|")
    if bar and stated != system:
        raise _Refused("value", name, "has a system that is not known here")
    return _fitting(name, code, _TOKEN)


def _fitting(name: str, value: str, form: re.Pattern[str]) -> str:
    if not form.fullmatch(value):
        raise _Refused("value", name, "does not have the form of this parameter")
    return value


def _count(value: str) -> int:
    if not value.isascii() or not value.isdecimal() or not 1 <= int(value[:9]) <= listing.MOST:
        raise _Refused("value", COUNT, f"must be a number from 1 to {listing.MOST}")
    return int(value)


def _date(name: str, value: str) -> tuple[str, datetime, datetime]:
    """A prefix and the time it speaks of: a day of UTC, or a moment with its offset."""
    told = _WHEN.fullmatch(value)
    try:
        at = datetime.fromisoformat(told["at"]) if told else None
        at = at if at is None or at.tzinfo else at.replace(tzinfo=UTC)
        end = None if at is None else at + (timedelta(milliseconds=1) if "T" in value else timedelta(days=1))
    except (ValueError, OverflowError):
        at = end = None
    if told is None or at is None or end is None:
        raise _Refused("value", name, "must be a day or a moment with its offset, after eq, ge, gt, le or lt")
    return told["prefix"] or "eq", at, end


def _holds(prefix: str, start: datetime, end: datetime, at: datetime) -> bool:
    """FHIR's prefixes: a time against the range that a date stands for."""
    return {
        "eq": start <= at < end,
        "ge": at >= start,
        "gt": at >= end,
        "le": at < end,
        "lt": at < start,
    }[prefix]


def _links(url: str, given: list[tuple[str, str]], behind: str | None) -> Iterator[tuple[str, str]]:
    yield "self", f"{url}?{urlencode(given)}"
    if behind is not None:
        rest = [(name, value) for name, value in given if name != AFTER]
        yield "next", f"{url}?{urlencode([*rest, (AFTER, behind)])}"
