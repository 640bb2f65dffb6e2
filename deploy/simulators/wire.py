"""What the simulators' HTTP doors share: a body read within a limit, a JSON answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict, ValidationError

from deploy.simulators.ledger import Fact, stamp
from shared.kit.errors import Flaw, Invalid, Malformed, TooLarge

T = TypeVar("T", bound=BaseModel)


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body. Raises TooLarge past ``limit`` bytes, without reading on."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise TooLarge(f"at most {limit} bytes are taken")
    return bytes(body)


def read_json(body: bytes) -> object:
    """Parsed JSON. Raises Malformed."""
    try:
        parsed: object = json.loads(body)
    except (ValueError, RecursionError):
        raise Malformed("the body is not JSON") from None
    return parsed


class Order(BaseModel):
    """The body of a control request; fields it does not know are refused."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


def flaws_of(refusal: ValidationError) -> list[Flaw]:
    """Where and why, without the values."""
    return [
        Flaw(".".join(str(step) for step in error["loc"]), error["type"].replace("_", "-"))
        for error in refusal.errors(include_url=False, include_input=False)
    ]


def read_order(kind: type[T], body: bytes) -> T:
    """A control request or message of the given kind. Raises Malformed, or Invalid with flaws."""
    raw = read_json(body)
    try:
        return kind.model_validate(raw)
    except ValidationError as refusal:
        raise Invalid(flaws=flaws_of(refusal)) from None


def answer(body: object, status: int = 200, media: str = "application/json", **headers: str) -> Response:
    """A JSON answer. Header names are given with underscores."""
    content = body.model_dump_json(by_alias=True) if isinstance(body, Fact) else json.dumps(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(content, status, named, media)


def due_answer(next_due: Callable[[], datetime | None]) -> Response:
    """The answer of ``GET /next-due``."""
    at = next_due()
    return answer({"at": stamp(at) if at is not None else None})
