"""How far a look for what is due reaches: no further ahead than it must to find enough.

A store may read all that a range of times holds before it counts to a limit: the compiled store of the native stack
takes 170 ms of processor for the first ten of 20,000 due documents. With a backlog each look would cost as much as the
backlog is long; so a look ends where enough was found the last time, and goes on only where that is not enough.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from shared.kit.store.port import EPOCH, Found, Store

_STEP = timedelta(seconds=1)

Within = int | tuple[int, str] | None
"""What is looked into: a slot, what calls somebody in it, or all."""


def _slot(within: int | tuple[int, str]) -> int:
    return within if isinstance(within, int) else within[0]


@dataclass(frozen=True, slots=True)
class Look:
    """Where is looked: in a collection, by a field that says when, up to now."""

    store: Store
    collection: str
    time: str
    now: datetime


class Horizon:
    """The last time that looks reached to, by a slot, by who is called in it, and for all slots together under None."""

    def __init__(self) -> None:
        self._upto: dict[Within, datetime] = {}

    def retain(self, slots: Collection[int]) -> None:
        """Forget slots that are not ours any more."""
        for within in [within for within in self._upto if within is not None and _slot(within) not in slots]:
            del self._upto[within]

    async def first(
        self,
        look: Look,
        within: Within,
        where: Mapping[str, Any],
        *,
        limit: int,
        enough: int,
        fields: Sequence[str] | None = None,
    ) -> tuple[list[Found], bool]:
        """The first due documents, at most ``limit``; and whether there are no others.

        At least ``enough`` of them, where there are so many.
        """
        upto = self._upto.get(within, look.now)
        while True:
            upto = min(upto, look.now)
            reach = {**where, look.time: {"$gte": EPOCH, "$lte": upto}}
            found = await look.store.find(look.collection, reach, sort=look.time, limit=limit, fields=fields)
            if len(found) >= enough:
                self._upto[within] = found[-1][look.time]
                return found, len(found) < limit and upto >= look.now
            if upto >= look.now:
                self._upto.pop(within, None)
                return found, True
            upto += max(_STEP, 2 * (upto - found[0][look.time]) if found else _STEP, (look.now - upto) / 16)
