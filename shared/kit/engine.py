"""Runs a reaction table over batches of events: load, fold, write once, know the losers, park the poison.

Without it a service would handle event by event: slower by an order, and each with its own way of losing one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from opentelemetry.trace import SpanKind
from pydantic import ValidationError

from shared.kit.bus.envelope import Received
from shared.kit.decisions import Facts, Want
from shared.kit.document import Document
from shared.kit.errors import DomainError
from shared.kit.parking import WAITS, Parking
from shared.kit.reactions import Field, OfSubject, Reaction, Reactions
from shared.kit.reading import Poisoned, Reader
from shared.kit.store.port import Found, Outcome, Unstorable
from shared.kit.store.repository import Held, Repository, hold
from shared.kit.telemetry import Telemetry, Traced, case_attributes, same_trace, where_raised


class _FactsMissing(Exception):
    """A decision wants facts that are not loaded yet."""

    def __init__(self, wants: Sequence[Want]) -> None:
        super().__init__()
        self.wants = wants


class _Poison(Exception):
    """One event cannot be decided on, or what it leads to cannot be stored."""

    def __init__(self, place: int, reason: str) -> None:
        super().__init__(reason)
        self.place = place
        self.reason = reason


@dataclass(frozen=True, slots=True)
class _Pair:
    """One event for one document; ``place`` is the event's place in the batch."""

    place: int
    id: str


@dataclass(slots=True)
class _Round:
    """One pass over the pairs that are still to be done."""

    held: dict[str, Held[Any]]
    spans: list[Traced] = field(default_factory=list)
    folded: dict[str, list[_Pair]] = field(default_factory=dict)


def _own_trace(document: Document | None, row: Reaction, item: Received) -> str | None:
    """A document's own trace, where its case goes on because of an event that belongs to another case.

    Such an event was led here by a field: the patient, the calendar, the service that this document waits for. Without
    this the rest of the case would be told in the other one's trace.
    """
    own = document.trace if document is not None else None
    if own is None or not isinstance(row.route, Field):
        return None
    return None if item.trace is not None and same_trace(own, item.trace) else own


def _halves(received: Sequence[Received]) -> list[list[Received]]:
    """These events in two, all of a key's in one of them."""
    parts: tuple[list[Received], list[Received]] = ([], [])
    for item in received:
        parts[crc32(item.record.key or b"") & 1].append(item)
    return [part for part in parts if part]


class Reactor(Reader):
    """One consumer group: the reaction table of one document type."""

    def __init__(
        self,
        service: str,
        table: Reactions,
        repository: Repository,
        parking: Parking,
        telemetry: Telemetry,
    ) -> None:
        events = [row.event for row in table.rows.values()]
        super().__init__(f"{service}.{table.document.collection}", events, repository, parking, telemetry)
        self.table = table
        self.apart = 100
        """So many events, or more, are applied in two parts side by side: of fewer, a round trip counts for more."""

    async def apply(self, received: Sequence[Received]) -> Poisoned:
        """Decide on these events and write. Returns of each subject the records from the first poison one on."""
        poisoned: dict[str, Poisoned] = {}
        for segment in self._segments(received):
            going_on = []
            for item in segment:
                if item.subject in poisoned:
                    poisoned[item.subject].append((item.record, WAITS))
                else:
                    going_on.append(item)
            poisoned |= await (self._apply(going_on) if len(going_on) < self.apart else self._halved(going_on))
        return [each for records in poisoned.values() for each in records]

    def _segments(self, received: Sequence[Received]) -> list[list[Received]]:
        """Cut the batch before an event routed by a field, where an earlier one may create what it should find."""
        segments: list[list[Received]] = [[]]
        creates = False
        for item in received:
            row = self._row(item)
            if creates and isinstance(row.route, Field):
                segments.append([])
                creates = False
            segments[-1].append(item)
            creates = creates or row.creates
        return segments

    async def _halved(self, received: Sequence[Received]) -> dict[str, Poisoned]:
        """Apply two halves that have no key in common: while one waits for the store, the other computes.

        Where both lead to one document, one of them loses, and decides again. A half that fails does not leave the
        other at work behind it.
        """
        poisoned: dict[str, Poisoned] = {}
        for found in await asyncio.gather(*map(self._apply, _halves(received)), return_exceptions=True):
            if isinstance(found, BaseException):
                raise found
            for subject, records in found.items():
                poisoned.setdefault(subject, []).extend(records)
        return poisoned

    async def _apply(self, received: Sequence[Received]) -> dict[str, Poisoned]:
        if not received:
            return {}
        pending: list[_Pair] = []
        poisoned: dict[str, tuple[int, str]] = {}
        for place, route in enumerate(await self._routes(received)):
            key = received[place].subject
            if key in poisoned:
                continue
            if isinstance(route, _Poison):
                poisoned[key] = (place, route.reason)
            else:
                pending.extend(_Pair(place, id) for id in route)
        careful = False
        while pending:
            stored = await self._repository.raw(self.table.document, list(dict.fromkeys(pair.id for pair in pending)))
            facts: dict[Want, list[Any]] = {}
            try:
                round = await self._fold(received, pending, stored, facts, careful)
                pending, careful = await self._write(round, careful)
            except _Poison as poison:
                key = received[poison.place].subject
                poisoned[key] = (poison.place, poison.reason)
                pending = [
                    pair for pair in pending if not (pair.place >= poison.place and received[pair.place].subject == key)
                ]
        return {
            key: [(received[place].record, reason)]
            + [(r.record, WAITS) for r in received[place + 1 :] if r.subject == key]
            for key, (place, reason) in poisoned.items()
        }

    async def _routes(self, received: Sequence[Received]) -> list[list[str] | _Poison]:
        """The ids of the documents that each event concerns; one query per indexed field."""
        rows = [self._row(item) for item in received]
        by_field: dict[str, dict[str, list[str]]] = {}
        routes: list[list[str] | _Poison] = []
        for place, (item, row) in enumerate(zip(received, rows, strict=True)):
            try:
                if isinstance(row.route, Field):
                    value = row.route.value(item.event)
                    routes.append(
                        [] if value is None else by_field.setdefault(row.route.name, {}).setdefault(value, [])
                    )
                elif isinstance(row.route, OfSubject):
                    routes.append([row.route.id(item.record.topic, item.subject)])
                else:
                    routes.append(list(dict.fromkeys(row.route(item.event))))
            except Exception as error:
                routes.append(_Poison(place, f"{item.event.type}: {where_raised(error)}"))
        for name, found in by_field.items():
            await self._find(name, found)
        return routes

    async def _find(self, name: str, found: dict[str, list[str]]) -> None:
        """Add to each value of an indexed field the ids of all documents that hold it, page by page."""
        async for page in self._repository.pages(self.table.document, {name: {"$in": list(found)}}, fields=(name,)):
            for raw in page:
                values = raw[name] if isinstance(raw[name], list) else [raw[name]]
                for value in values:
                    if value in found:
                        found[value].append(raw["_id"])

    def _row(self, item: Received) -> Reaction:
        return self.table.rows[item.event.type]

    async def _fold(
        self,
        received: Sequence[Received],
        pending: Sequence[_Pair],
        stored: dict[str, Found | None],
        facts: dict[Want, list[Any]],
        careful: bool,
    ) -> _Round:
        """Fold all pairs, loading the facts that decisions turn out to want. Raises _Poison at the first that fails.

        What they want of the documents as stored is loaded at once; only what a fold makes them want besides costs
        another pass.
        """
        round = _Round(self._held(pending, stored))
        await self._repository.facts(self._foreseen(received, pending, round.held), facts)
        while True:
            try:
                for pair in pending:
                    self._decide(received[pair.place], pair, round, facts, careful)
            except _FactsMissing as missing:
                await self._repository.facts(missing.wants, facts)
                round = _Round(self._held(pending, stored))
            else:
                return round

    def _held(self, pending: Sequence[_Pair], stored: dict[str, Found | None]) -> dict[str, Held[Any]]:
        held: dict[str, Held[Any]] = {}
        for pair in pending:
            if pair.id in held:
                continue
            try:
                held[pair.id] = hold(self.table.document, pair.id, stored[pair.id])
            except ValidationError as error:
                raise _Poison(pair.place, f"{self.table.document.__name__} as stored does not fit its model") from error
        return held

    def _foreseen(
        self, received: Sequence[Received], pending: Sequence[_Pair], held: dict[str, Held[Any]]
    ) -> list[Want]:
        """The facts that these pairs want of their documents as stored."""
        wanted: list[Want] = []
        for pair in pending:
            row, document = self._row(received[pair.place]), held[pair.id].document
            if row.wants is not None and row.decision_for(document) is not None:
                with contextlib.suppress(Exception):  # It is raised again where it is this event's poison.
                    wanted.extend(row.wants(received[pair.place].event, document))
        return wanted

    def _decide(self, item: Received, pair: _Pair, round: _Round, facts: dict[Want, list[Any]], careful: bool) -> None:
        row = self._row(item)
        held = round.held[pair.id]
        document: Document | None = held.document
        if document is not None and document.shrunk:
            return
        if document is not None and document.applied.get(item.mark, 0) >= item.sequence:
            return
        decide = row.decision_for(document)
        if decide is None and (document is None or document.ended):
            return
        if decide is not None:
            own = _own_trace(document, row, item)
            traced = self._telemetry.start(
                f"process {item.event.type}",
                own or item.trace,
                lambda: {
                    **self.messaging(item.record),
                    "carerelay.document.type": self.table.document.__name__,
                    "carerelay.document.id": pair.id,
                    **case_attributes(item.event),
                },
                kind=SpanKind.CONSUMER,
                links=[item.trace] if own else [],
            )
            try:
                known = self._facts_for(row, pair.id, item, document, facts)
                decided = decide(document, item.event, known, self._repository.clock.now())
                if decided is None and document is None:
                    return
                if decided is not None:
                    document = decided
                if document is None or document.id != pair.id:
                    raise _Poison(pair.place, f"{item.event.type}: the decision made another document than its route")
            except DomainError as refusal:
                raise _Poison(pair.place, f"{item.event.type}: {refusal.slug}: {refusal.detail}") from refusal
            except (_Poison, _FactsMissing):
                raise
            except Exception as error:
                raise _Poison(pair.place, f"{item.event.type}: {where_raised(error)}") from error
            held.document = document
            held.take_events(traced.context)
            if document.trace is None:
                document.trace = traced.context
            round.spans.append(traced)
        assert held.document is not None  # noqa: S101 - an absent document without a decision was left above
        held.document.applied[item.mark] = item.sequence
        held.touched = True
        round.folded.setdefault(pair.id, []).append(pair)
        if careful:
            self._check_storable(held, pair)

    def _facts_for(
        self, row: Reaction, id: str, item: Received, document: Document | None, facts: dict[Want, list[Any]]
    ) -> Facts:
        wants = list(row.wants(item.event, document)) if row.wants is not None else []
        missing = [want for want in wants if want not in facts]
        if missing:
            raise _FactsMissing(missing)
        return Facts({want: facts[want] for want in wants}, id, item.envelope)

    def _check_storable(self, held: Held[Any], pair: _Pair) -> None:
        """In a careful round each event's result is encoded at once, so that the one at fault is found."""
        assert held.document is not None  # noqa: S101 - it was just decided on
        sequence = held.document.sequence
        try:
            write = self._repository.stage(held)
            if write is not None:
                self._repository.check(write)
        except Unstorable as refusal:
            raise _Poison(pair.place, f"{self.table.document.__name__} {refusal}") from refusal
        finally:
            held.document.sequence = sequence

    async def _write(self, round: _Round, careful: bool) -> tuple[list[_Pair], bool]:
        """Write what was folded. Returns the pairs to decide again on fresh documents, and whether carefully."""
        batch = []
        again: list[_Pair] = []
        for held in round.held.values():
            if not held.touched:
                continue
            try:
                write = self._repository.stage(held)
            except Unstorable:
                again.extend(round.folded[held.id])
                careful = True
                continue
            if write is not None:
                batch.append((held, write))
        outcomes = await self._repository.write(self.table.document, batch) if batch else []
        for (held, _), outcome in zip(batch, outcomes, strict=True):
            pairs = round.folded[held.id]
            if outcome is Outcome.WON:
                self._telemetry.decided.add(len(pairs), {"carerelay.document.type": self.table.document.__name__})
                continue
            if isinstance(outcome, Unstorable):
                if careful:
                    raise _Poison(pairs[-1].place, f"{self.table.document.__name__} {outcome}")
                careful = True
            else:
                self._telemetry.conflicts.add(1, {"carerelay.document.type": self.table.document.__name__})
            again.extend(pairs)
        for traced in round.spans:
            traced.end()
        return sorted(again, key=lambda pair: pair.place), careful
