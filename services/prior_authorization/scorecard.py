"""The command ``scorecard``: how payers decide, counted from this service's own events on its public topic."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta

from services.prior_authorization.model.scorecard import (
    COUNTED,
    Measures,
    PayerMeasures,
    Scorecard,
    ServiceMeasures,
    Share,
    Tally,
    Told,
    Track,
)
from services.prior_authorization.service import Settings
from shared.contracts.prior_authorization import AuthorizationEvent
from shared.kit.bus.envelope import Received, Unreadable, read
from shared.kit.bus.port import Batch, Bus, ReadFailed
from shared.kit.run import Tool, bus_of, clock_of, configured

WANTED = {event.type: event for event in COUNTED}


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--payer", metavar="ID", help="this payer alone")
    parser.add_argument("--from", dest="since", metavar="DAY", type=date.fromisoformat, help="received since, UTC")
    parser.add_argument("--to", dest="until", metavar="DAY", type=date.fromisoformat, help="received until, inclusive")
    parser.add_argument("--json", action="store_true", help="as JSON, with all counts")


def _run(arguments: argparse.Namespace) -> int:
    settings = configured(Settings)
    as_of = _as_of(clock_of(settings).now(), arguments.until)
    return asyncio.run(scorecard(bus_of("prior_authorization", settings), as_of, arguments))


TOOL = Tool("scorecard", "how payers decide: the measures they must publish, and more", _arguments, _run)


async def scorecard(bus: Bus, as_of: datetime, arguments: argparse.Namespace) -> int:
    """Print the scorecard; 1 where the topic cannot be read to its end, or holds what cannot be understood."""
    tally, unreadable = Tally(), 0
    try:
        async for told in heard(bus.history(AuthorizationEvent.topic)):
            if told is None:
                unreadable += 1
            else:
                tally.add(told)
    except ReadFailed as failure:
        print(f"{AuthorizationEvent.topic}: {failure}", file=sys.stderr)  # noqa: T201 - a command's answer
        return 1
    card = tally.card(as_of, payer_id=arguments.payer, since=arguments.since, until=arguments.until)
    print(card.model_dump_json(indent=2) if arguments.json else "\n".join(lines(card)))  # noqa: T201
    if unreadable:
        print(f"{unreadable} records could not be read and are not counted", file=sys.stderr)  # noqa: T201
    return 1 if unreadable else 0


async def heard(history: AsyncIterator[Batch]) -> AsyncIterator[Told | None]:
    """The events that are counted; None for each record that cannot be understood."""
    async for batch in history:
        for record in batch:
            found = read(record, WANTED)
            if isinstance(found, Received):
                yield Told(found.subject, found.sequence, found.time, found.event)
            elif isinstance(found, Unreadable):
                yield None


def _as_of(now: datetime, until: date | None) -> datetime:
    """Pends are told as they stood at the end of the period, or as they stand where it is not over."""
    end = datetime.combine(until + timedelta(days=1), time(), UTC) if until else now
    return min(end, now)


# -- as a table -----------------------------------------------------------------------------------------------------

_WIDTHS = (38, 26, 26)
_SERVICE_WIDTHS = (34, 10, 9, 9, 8, 12, 20)
_SERVICE_HEADS = ("service", "kind", "received", "approved", "denied", "overturned", "median hours")


def lines(card: Scorecard) -> Iterator[str]:
    """The scorecard for people, a block for each payer."""
    period = f"{card.since or 'the beginning'} to {card.until or 'now'}"
    yield f"Requests that payers received from {period}, UTC; pends as of {card.as_of:%Y-%m-%d %H:%M}"
    for payer in card.payers:
        yield ""
        yield from _block(payer)
    if card.not_counted:
        yield ""
        yield f"Told before rulings were, and not counted: {card.not_counted}"


def _block(payer: PayerMeasures) -> Iterator[str]:
    yield f"{payer.payer_id} ({', '.join(payer.lines_of_business)})"
    yield from _table(payer.all)
    if payer.drugs is not None:
        yield "  drugs, which the published measures leave out"
        yield from _table(payer.drugs)
    yield _row(_SERVICE_HEADS, _SERVICE_WIDTHS)
    for service in payer.services:
        yield _row(_service(service), _SERVICE_WIDTHS)


def _table(measures: Measures) -> Iterator[str]:
    yield _row(("", "standard", "expedited"), _WIDTHS)
    tracks = (measures.standard, measures.expedited)
    for name, cells in _tracks(*tracks):
        yield _row((name, *cells), _WIDTHS)
    pends = measures.pends
    ages = ", ".join(f"{name}: {count}" for name, count in pends.ages.items() if count)
    for name, text in (
        ("extended and approved", _share(measures.extended_and_approved)),
        ("approved in part or changed", _share(measures.in_part)),
        ("appeals overturned", f"{_share(measures.overturned)}, {measures.appeals} sent"),
        ("reviewed by a person", _share(measures.human_reviewed)),
        ("not answered at once", _share(pends.pended)),
        ("of those open", f"{pends.open}" + (f" ({ages}; oldest {pends.oldest_days} days)" if ages else "")),
        ("undecided", ", ".join(f"{name} {count}" for name, count in measures.undecided.items() if count) or "0"),
    ):
        yield _row((name, text), _WIDTHS)


def _tracks(*tracks: Track) -> Iterator[tuple[str, list[str]]]:
    yield "received", [str(track.received) for track in tracks]
    yield "approved", [_share(track.approved) for track in tracks]
    yield "denied", [_share(track.denied) for track in tracks]
    yield "approved after appeal", [_share(track.approved_after_appeal) for track in tracks]
    yield "mean hours to decision", [_hours(track.time.mean) for track in tracks]
    yield "median hours to decision", [_hours(track.time.median) for track in tracks]


def _service(row: ServiceMeasures) -> Iterable[str]:
    measures = row.measures
    tracks = (measures.standard, measures.expedited)
    decided = sum(track.decided for track in tracks)
    approved, denied = (sum(share.count for share in shares) for shares in _approved_and_denied(tracks))
    medians = " / ".join(_hours(track.time.median) for track in tracks)
    system = row.service.system.rstrip("/").rpartition("/")[2]
    return (
        f"{system} {row.service.code}",
        row.kind or "",
        str(measures.received),
        _percent(Share.part(approved, decided)),
        _percent(Share.part(denied, decided)),
        _percent(measures.overturned),
        medians,
    )


def _approved_and_denied(tracks: Iterable[Track]) -> Iterator[list[Share]]:
    listed = list(tracks)
    yield [track.approved for track in listed]
    yield [track.denied for track in listed]


def _share(share: Share) -> str:
    return f"{_percent(share)} ({share.count} of {share.of})" if share.of else "none"


def _percent(share: Share) -> str:
    return "-" if share.percent is None else f"{share.percent:.1f}%"


def _hours(hours: float | None) -> str:
    return "-" if hours is None else f"{hours:.2f}"


def _row(cells: Iterable[str], widths: Iterable[int]) -> str:
    return ("  " + " ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=False))).rstrip()
