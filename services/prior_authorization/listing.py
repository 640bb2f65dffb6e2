"""A page of authorizations: found by the one index that narrows most, full where there is more.

A store goes by one index for a look, and some read everything where no single one holds all that is asked for. So the
rest is looked at here, and what does not fit is made up for by reading on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from services.prior_authorization.model import Authorization
from services.prior_authorization.model.authorization import CLAIM_FIELDS
from shared.kit.api import CallContext

MOST = 200
"""Authorizations on a page."""

LOOKED_AT = 2000
"""So many are looked at for one page at most: a page is shorter than asked for where there is no more, or where so many
in a row did not fit; then the next one goes on behind them."""

LOOKS: tuple[tuple[str, ...], ...] = (
    ("_id",),
    *((field,) for field in CLAIM_FIELDS),
    ("referral_id",),
    ("patient_id",),
    ("payer_id", "state"),
    ("payer_id",),
    ("state",),
)
"""The fields that an authorization is found by, what narrows most first; each has an index."""


def anything(document: Authorization) -> bool:
    """Fits whatever it is."""
    return True


async def page(
    call: CallContext,
    asked: Mapping[str, str],
    *,
    limit: int,
    after: str | None,
    fits: Callable[[Authorization], bool] = anything,
) -> tuple[list[Authorization], str | None]:
    """Up to ``limit`` that hold what is ``asked``, by field, and fit, by id; and behind which id there is more, if any.

    What is read is audited. ``asked`` names at least one of ``LOOKS``.
    """
    look = next(fields for fields in LOOKS if all(field in asked for field in fields))
    conditions = {field: asked[field] for field in look}
    rest = {field: value for field, value in asked.items() if field not in look}
    found: list[Authorization] = []
    looked_at, some = 0, limit + 1
    while True:
        documents = await call.page(Authorization, conditions, limit=some, after=None if "_id" in look else after)
        for document in documents:
            if _holds(document, rest) and fits(document):
                if len(found) == limit:
                    return found, found[-1].id
                found.append(document)
        looked_at += len(documents)
        if len(documents) < some:
            return found, None
        after, some = documents[-1].id, min(2 * some, MOST)
        if looked_at >= LOOKED_AT:
            return found, after


def _holds(document: Authorization, asked: Mapping[str, str]) -> bool:
    held = {field: getattr(document, field) for field in asked}
    return all(
        value in held[field] if isinstance(held[field], tuple) else value == held[field]
        for field, value in asked.items()
    )
