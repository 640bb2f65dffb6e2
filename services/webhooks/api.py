"""How subscribers register endpoints and look after them. A secret is shown to whoever made it, and never again."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from services.webhooks.model import endpoint as endpoints
from services.webhooks.model.endpoint import Change, Command, Endpoint, EndpointState, Register, Replay, Rotate, Secret
from services.webhooks.model.feed import Feed, FeedState
from services.webhooks.reactions import SUBSCRIBABLE
from services.webhooks.sender import Keys
from shared.kit.api import Call, CallContext, DocumentId, Reply, Routes
from shared.kit.auth import Role
from shared.kit.errors import Flaw, Invalid, NotFound
from shared.kit.shown import instant

SUBSCRIBERS = frozenset({Role.SUBSCRIBER, Role.OPERATOR})
READERS = frozenset({Role.SUBSCRIBER, Role.OPERATOR, Role.AUDITOR})
EVERYBODYS = frozenset({Role.OPERATOR, Role.AUDITOR})
"""Who sees the endpoints of others."""


class Body(BaseModel):
    """A request body; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Wanted(Body):
    """An address, and the events that are wanted there."""

    url: Annotated[str, Field(max_length=2048)]
    event_types: Annotated[tuple[Annotated[str, Field(max_length=100)], ...], Field(min_length=1, max_length=200)]


class Overlap(Body):
    """How long the former secret is signed with as well."""

    overlap_hours: Annotated[int, Field(ge=0, le=168)] = 24


class From(Body):
    """From when on everything is sent again."""

    since: AwareDatetime


def routes(keys: Keys, *, plain: bool) -> tuple[Routes, ...]:
    """Webhooks' routes. ``plain`` lets http and addresses of this machine pass, for tests."""
    routes = Routes()

    def checked(body: Wanted) -> Wanted:
        endpoints.check_url(body.url, plain=plain)
        unknown = [at for at, type in enumerate(body.event_types) if type not in SUBSCRIBABLE]
        if unknown:
            flaws = [Flaw(f"event_types.{at}", "is no event that can be subscribed to") for at in unknown]
            raise Invalid(flaws=flaws)
        return body

    @routes.get("/event-types", roles=READERS)
    async def list_event_types(call: Call) -> Reply:
        """What may be subscribed to: each type with the topic it is published on."""
        return Reply(200, {"event_types": {type: event.topic for type, event in SUBSCRIBABLE.items()}})

    @routes.post("/endpoints", roles=SUBSCRIBERS, status=201)
    async def register(body: Wanted, call: Call) -> Reply:
        """Register an endpoint; the answer shows its secret, which is not shown again."""
        checked(body)
        id = call.new_id("endpoint")
        command = Register(by=call.caller.subject, id=id, url=body.url, wanted=body.event_types, key=keys.current)
        reply = await call.create(Endpoint, id, command, endpoints.register)
        return await _with_secret(call, keys, id, reply, 1)

    @routes.get("/endpoints", roles=READERS)
    async def list_endpoints(
        call: Call,
        state: EndpointState | None = None,
        after: DocumentId | None = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
    ) -> Reply:
        """The caller's endpoints, everybody's for operators and auditors; all filters must hold."""
        conditions: dict[str, str] = {} if state is None else {"state": state.value}
        if not call.caller.roles & EVERYBODYS:
            conditions["owner"] = call.caller.subject
        found = await call.page(Endpoint, conditions, limit=limit, after=after)
        following = found[-1].id if len(found) == limit else None
        return Reply(200, {"endpoints": [shown(each, call.now) for each in found], "after": following})

    @routes.get("/endpoints/{id}", roles=READERS)
    async def read_endpoint(id: DocumentId, call: Call) -> Reply:
        """One endpoint, without its secrets."""
        found = await _visible(call, id)
        return call.show(found, shown(found, call.now))

    @routes.put("/endpoints/{id}", roles=SUBSCRIBERS)
    async def change(id: DocumentId, body: Wanted, call: Call) -> Reply:
        """Have other events sent, or to another address, from now on."""
        checked(body)
        command = Change(**_asked(call), url=body.url, wanted=body.event_types)
        return await call.change(Endpoint, id, command, endpoints.change)

    @routes.post("/endpoints/{id}/pause", roles=SUBSCRIBERS)
    async def pause(id: DocumentId, call: Call) -> Reply:
        """Have nothing sent for the time being; what happens is sent on resuming, as far as it is kept."""
        return await call.change(Endpoint, id, Command(**_asked(call)), endpoints.pause)

    @routes.post("/endpoints/{id}/resume", roles=SUBSCRIBERS)
    async def resume(id: DocumentId, call: Call) -> Reply:
        """Have events sent again, after a pause or after CareRelay disabled the endpoint."""
        return await call.change(Endpoint, id, Command(**_asked(call)), endpoints.resume)

    @routes.post("/endpoints/{id}/remove", roles=SUBSCRIBERS)
    async def remove(id: DocumentId, call: Call) -> Reply:
        """Have nothing sent any more, for good."""
        return await call.change(Endpoint, id, Command(**_asked(call)), endpoints.remove)

    @routes.post("/endpoints/{id}/rotate", roles=SUBSCRIBERS)
    async def rotate(id: DocumentId, body: Overlap, call: Call) -> Reply:
        """Make a new secret, shown in the answer alone; both are signed with during the overlap."""
        command = Rotate(**_asked(call), key=keys.current, overlap=timedelta(hours=body.overlap_hours))
        reply = await call.change(Endpoint, id, command, endpoints.rotate, answer=_newest)
        return await _with_secret(call, keys, id, reply, json.loads(bytes(reply.body))["secret_number"])

    @routes.post("/endpoints/{id}/replay", roles=SUBSCRIBERS, status=202)
    async def replay(id: DocumentId, body: From, call: Call) -> Reply:
        """Have everything sent again that happened from a time on, a week ago at the most."""
        command = Replay(**_asked(call), since=body.since.astimezone(UTC))
        return await call.change(Endpoint, id, command, endpoints.replay, status=202)

    @routes.get("/endpoints/{id}/deliveries", roles=READERS)
    async def list_deliveries(
        id: DocumentId,
        call: Call,
        state: FeedState | None = None,
        after: DocumentId | None = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
    ) -> Reply:
        """How the endpoint's feeds stand, one a document: what is to be sent, tried since when, and was given up."""
        await _visible(call, id)
        conditions = {"endpoint_id": id} | ({} if state is None else {"state": state.value})
        found = await call.page(Feed, conditions, limit=limit, after=after)
        following = found[-1].id if len(found) == limit else None
        return Reply(200, {"deliveries": [shown_feed(each) for each in found], "after": following})

    return (routes,)


def _asked(call: CallContext) -> dict[str, object]:
    return {"by": call.caller.subject, "operator": Role.OPERATOR in call.caller.roles}


async def _visible(call: CallContext, id: str) -> Endpoint:
    """The endpoint. Raises NotFound for somebody else's."""
    found = await call.read(Endpoint, id)
    if found.owner != call.caller.subject and not call.caller.roles & EVERYBODYS:
        raise NotFound()
    return found


def _newest(document: Endpoint) -> dict[str, object]:
    return {"id": document.id, "state": document.state.value, "secret_number": document.secrets[0].number}


async def _with_secret(call: CallContext, keys: Keys, id: str, reply: Reply, number: int) -> Reply:
    """The answer with the secret that the request made: added here, so that it is kept nowhere.

    A request that is repeated under its key, because its answer was lost, is shown it again while it holds.
    """
    found = await call.read(Endpoint, id)
    secret = next((each for each in found.secrets if each.number == number and each.holds(call.now)), None)
    body = json.loads(bytes(reply.body))
    if secret is not None:
        body["secret"] = keys.shown(id, secret)
    headers = {name: reply.headers[name] for name in ("ETag", "Idempotency-Replayed") if name in reply.headers}
    return Reply(reply.status_code, body, {**headers, "Cache-Control": "no-store"})


def shown(document: Endpoint, now: datetime) -> dict[str, object]:
    """An endpoint without its secrets."""
    return {
        "id": document.id,
        "version": document.version,
        "state": document.state.value,
        "owner": document.owner,
        "url": document.url,
        "event_types": list(document.wanted),
        "secrets": [_about(secret) for secret in document.secrets if secret.holds(now)],
        "active_since": instant(document.active_since),
        "disabled_for": None if document.disabled_for is None else document.disabled_for.value,
        "disabled_at": instant(document.disabled_at),
    }


def _about(secret: Secret) -> dict[str, object]:
    return {"number": secret.number, "since": instant(secret.since), "until": instant(secret.until)}


def shown_feed(document: Feed) -> dict[str, object]:
    """A feed: events by the sequence of their document."""
    return {
        "id": document.id,
        "state": document.state.value,
        "pending": list(document.pending),
        "since": instant(document.since),
        "tries": document.tries,
        "reason": document.reason,
        "next_try": instant(document.due),
        "taken_at": instant(document.taken_at),
        "given_up": [
            {"sequence": e.sequence, "id": e.event_id, "type": e.event_type, "at": instant(e.at), "reason": e.reason}
            for e in document.given_up
        ],
    }
