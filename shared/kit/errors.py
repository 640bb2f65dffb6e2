"""Refusals as values of the domain. The API maps each to RFC 9457 problem details; none may echo personal data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Flaw:
    """What is wrong at one place of the input: a path in the sender's own terms, and a reason without its value."""

    path: str
    reason: str


class DomainError(Exception):
    """A decision's refusal.

    ``slug`` names the problem type for ever, ``status`` is the HTTP status, ``title`` says it in one line.
    ``flaws`` name the fields. Nothing here may hold a value that came from outside, but ids and codes.
    """

    slug = "refused"
    status = 409
    title = "The request was refused"

    def __init__(self, detail: str = "", *, flaws: Sequence[Flaw] = ()) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.flaws = tuple(flaws)


class IllegalTransition(DomainError):
    """The document's state has no such way on."""

    slug = "illegal-transition"
    title = "The state does not allow this"

    def __init__(self, document: str, state: str, wanted: str) -> None:
        super().__init__(f"{document} in state {state} cannot become {wanted}")
        self.document, self.state, self.wanted = document, state, wanted


class Invalid(DomainError):
    """The input is well formed but means nothing that can be done; ``flaws`` say where."""

    slug = "invalid"
    status = 422
    title = "The request is not valid"


class Malformed(DomainError):
    """The input could not be read at all."""

    slug = "malformed"
    status = 400
    title = "The request could not be read"


class Unauthenticated(DomainError):
    """No token, or one that does not hold."""

    slug = "unauthenticated"
    status = 401
    title = "A valid bearer token is needed"


class Forbidden(DomainError):
    """The token holds, but its roles do not reach this far."""

    slug = "forbidden"
    status = 403
    title = "Your roles do not allow this"


class NotFound(DomainError):
    """No such document."""

    slug = "not-found"
    status = 404
    title = "There is no such thing"


class Gone(DomainError):
    """It ended long ago, and only its state is still kept."""

    slug = "gone"
    status = 410
    title = "Only its ending is still known"


class Conflict(DomainError):
    """Another fact stands against it (a slot that went to somebody else)."""

    slug = "conflict"
    status = 409
    title = "This conflicts with what already is"


class Stale(DomainError):
    """If-Match names a version that is no longer the newest."""

    slug = "stale"
    status = 412
    title = "The document has changed since you read it"


class KeyReused(DomainError):
    """The idempotency key was used before with another body."""

    slug = "idempotency-key-reused"
    status = 422
    title = "This idempotency key was used with another request"


class TooLarge(DomainError):
    """The body, the document or the event is over its limit."""

    slug = "too-large"
    status = 413
    title = "This is larger than what is taken"


class Busy(DomainError):
    """Every place is taken; come back after ``retry_after`` seconds."""

    slug = "busy"
    status = 429
    title = "Too busy to take more"

    def __init__(self, detail: str = "", *, retry_after: int = 1) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class Unavailable(DomainError):
    """The store cannot be reached; nothing was changed, or it will be found under the same idempotency key."""

    slug = "unavailable"
    status = 503
    title = "The store cannot be reached just now"
