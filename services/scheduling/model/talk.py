"""A peer-to-peer: a clinician's talk with a payer's physician, in the clinician's calendar beside the visits.

It asks the calendar for a slot within the times that the payer offers, as an appointment does, and gives back what it
no longer wants. How long it is wanted, and what comes of it, prior authorization says, which is told of its place.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from services.scheduling.model.appointment import MOST_OPEN, Placement, months
from services.scheduling.model.calendar import Calendar, Slot, month_of
from shared.contracts.prior_authorization import AuthorizationPeerToPeerClosed, AuthorizationPeerToPeerOffered
from shared.contracts.scheduling import (
    SlotBooked,
    SlotGivenBack,
    SlotRefused,
    SlotRequested,
    SlotsPublished,
    TalkBooked,
    TalkUnplaced,
    TalkWanted,
)
from shared.kit.decisions import Facts, Want, Where
from shared.kit.document import Document, Part


class TalkState(StrEnum):
    """FHIR R4 Appointment.status, as far as a talk has them."""

    PROPOSED = "proposed"
    WAITLIST = "waitlist"
    BOOKED = "booked"
    FULFILLED = "fulfilled"
    CANCELLED = "cancelled"


LOOKING = frozenset({TalkState.PROPOSED, TalkState.WAITLIST})
LIVE = LOOKING | {TalkState.BOOKED}


class Window(Part):
    """From when until when the payer's physician can be reached."""

    start: datetime
    end: datetime

    def holds(self, start: datetime, end: datetime) -> bool:
        """Whether a talk of that time lies within it."""
        return self.start <= start and end <= self.end


class Talk(Document):
    """One talk; the id is prior authorization's. ``waiting_for`` is the clinician while a free slot would be taken."""

    collection: ClassVar[str] = "talk"
    indexes: ClassVar[tuple[str, ...]] = ("resource_id", "waiting_for")
    transitions: ClassVar[dict[TalkState, frozenset[TalkState]]] = {
        TalkState.PROPOSED: frozenset({TalkState.BOOKED, TalkState.WAITLIST, TalkState.CANCELLED}),
        TalkState.WAITLIST: frozenset({TalkState.BOOKED, TalkState.CANCELLED}),
        TalkState.BOOKED: frozenset({TalkState.PROPOSED, TalkState.FULFILLED, TalkState.CANCELLED}),
        TalkState.FULFILLED: frozenset(),
        TalkState.CANCELLED: frozenset(),
    }
    terminal: ClassVar[frozenset[TalkState]] = frozenset({TalkState.FULFILLED, TalkState.CANCELLED})

    state: TalkState = TalkState.PROPOSED
    authorization_id: str
    patient_id: str
    resource_id: str
    windows: tuple[Window, ...] = ()
    place: Placement | None = None
    asked: Placement | None = None
    waiting_for: str | None = None


# -- what prior authorization says ------------------------------------------------------------------------------------


def offered(talk: Talk | None, event: AuthorizationPeerToPeerOffered, _: Facts, __: datetime) -> Talk:
    """A talk is wanted, or at other times than before: a slot that lies outside them now goes back."""
    windows = (event.chosen,) if event.chosen is not None else event.offers
    known = talk or Talk(
        id=event.talk_id,
        authorization_id=event.authorization_id,
        patient_id=event.patient_id,
        resource_id=event.clinician_id,
        waiting_for=event.clinician_id,
    )
    if known.state not in LIVE:
        return known
    known.windows = tuple(Window(start=window.start, end=window.end) for window in windows)
    if known.place is not None and not _fits(known, known.place.start, known.place.end):
        _give_back(known, known.place.calendar_id, known.place.slot_id)
        known.place = None
        known.move(TalkState.PROPOSED)
    if known.place is None:
        known.waiting_for = known.resource_id
        _want(known)
    return known


def closed(talk: Talk, event: AuthorizationPeerToPeerClosed, _: Facts, now: datetime) -> Talk:
    """The talk is over: held, or not wanted any more, and then its slot goes back while it lies ahead."""
    held = talk.state is TalkState.BOOKED and event.outcome != "not-held"
    if talk.place is not None and talk.place.start > now:
        _give_back(talk, talk.place.calendar_id, talk.place.slot_id)
        talk.place = None
    talk.move(TalkState.FULFILLED if held else TalkState.CANCELLED)
    talk.asked = talk.waiting_for = None
    return talk


# -- looking for a slot -----------------------------------------------------------------------------------------------


def slots_wanted(message: object, talk: Talk | None) -> Iterable[Want]:
    """The clinician's open calendars of the months in which the payer can be reached."""
    if talk is None or talk.state not in LOOKING:
        return ()
    touched = {month for window in talk.windows for month in months(window.start, window.end)}
    return [Where(Calendar, "open_in", month_of(talk.resource_id, month), MOST_OPEN) for month in sorted(touched)]


def look(talk: Talk, _: TalkWanted, facts: Facts, now: datetime) -> Talk:
    """Ask for the earliest free slot within the times offered; else wait for one."""
    return talk if talk.asked is not None else _look(talk, facts, now)


def slots_appeared(talk: Talk, event: SlotsPublished, _: Facts, __: datetime) -> Talk:
    """The clinician has free slots: look again, if any may fit."""
    if talk.asked is None and any(event.start < window.end and window.start < event.end for window in talk.windows):
        _want(talk)
    return talk


def refused(talk: Talk, event: SlotRefused, facts: Facts, now: datetime) -> Talk:
    """The slot went to somebody else: look on."""
    if talk.asked is None or talk.asked.slot_id != event.slot_id:
        return talk
    talk.asked = None
    return _look(talk, facts, now)


def booked(talk: Talk, event: SlotBooked, _: Facts, now: datetime) -> Talk:
    """The calendar gave a slot: take the place, unless the times are others by now."""
    asked = talk.asked
    if asked is None or asked.slot_id != event.slot_id:
        return not_wanted(talk, event, _, now)
    talk.asked = None
    if not _fits(talk, event.start, event.end):
        _give_back(talk, event.calendar_id, event.slot_id)
        _want(talk)
        return talk
    talk.place, talk.waiting_for = asked, None
    talk.move(TalkState.BOOKED)
    talk.record(TalkBooked(**_names(talk), start=event.start, end=event.end, timezone=asked.timezone))
    return talk


def not_wanted(talk: Talk, event: SlotBooked, _: Facts, __: datetime) -> Talk:
    """Give back a slot that came too late, unless it is the very one that it has."""
    if talk.place is None or talk.place.slot_id != event.slot_id:
        _give_back(talk, event.calendar_id, event.slot_id)
    return talk


def _look(talk: Talk, facts: Facts, now: datetime) -> Talk:
    fitting = [
        (slot.start, slot.slot_id, calendar, slot)
        for where in slots_wanted(None, talk)
        if isinstance(where, Where)
        for calendar in facts.where(Calendar, where.field, where.value, where.limit)
        for slot in calendar.slots
        if slot.free_at(now) and _fits(talk, slot.start, slot.end)
    ]
    if fitting:
        _, _, calendar, slot = min(fitting, key=lambda fit: fit[:2])
        _ask(talk, calendar, slot)
    elif talk.state is TalkState.PROPOSED:
        talk.move(TalkState.WAITLIST)
        talk.record(TalkUnplaced(**_names(talk)))
    return talk


def _ask(talk: Talk, calendar: Calendar, slot: Slot) -> None:
    talk.asked = Placement(
        calendar_id=calendar.id,
        slot_id=slot.slot_id,
        resource_id=calendar.resource_id,
        start=slot.start,
        end=slot.end,
        timezone=calendar.timezone,
    )
    talk.record(SlotRequested(calendar_id=calendar.id, slot_id=slot.slot_id, appointment_id=talk.id))


def _fits(talk: Talk, start: datetime, end: datetime) -> bool:
    return any(window.holds(start, end) for window in talk.windows)


def _want(talk: Talk) -> None:
    """Look for a slot after this was written, so that none that appears meanwhile is missed."""
    talk.record(TalkWanted(**_names(talk)))


def _give_back(talk: Talk, calendar_id: str, slot_id: str) -> None:
    talk.record(SlotGivenBack(calendar_id=calendar_id, slot_id=slot_id, appointment_id=talk.id))


def _names(talk: Talk) -> dict[str, str]:
    """The fields that every event of a talk has."""
    return {
        "talk_id": talk.id,
        "authorization_id": talk.authorization_id,
        "patient_id": talk.patient_id,
        "resource_id": talk.resource_id,
    }
