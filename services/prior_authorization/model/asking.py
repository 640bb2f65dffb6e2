"""What coordinators ask for by themselves: a request with several items, and the update of one that a payer has.

A request that is pended or granted is changed by an update, which holds all items there ever were (PAS 2.2.1, "Updating
Authorization Requests"). A denied one may not be updated: a new one is opened that replaces it. Until the payer has an
update it stands beside the request, which goes on as it is.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from datetime import date, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from services.prior_authorization.model.authorization import Authorization, Kind, State, Submission, seal, start_clock
from services.prior_authorization.model.deciding import UPDATABLE, to_cancel
from services.prior_authorization.model.items import FIRST, Attachment, Item, Provider, ServiceKind, next_sequence
from services.prior_authorization.model.lifetime import ask_for_visits, continuity_of, granted, units
from services.prior_authorization.model.opening import assess_all, start
from services.prior_authorization.model.rules import RuleBook
from services.prior_authorization.model.wanted import WANTED, Wanted
from shared.contracts.base import Coding
from shared.kit.decisions import Facts, Ref, Want
from shared.kit.document import derived_id
from shared.kit.errors import Conflict, Flaw, Invalid

DENIED = frozenset({State.DENIED, State.APPEALING, State.DENIED_FINAL})

MOST_ITEMS = 50
MOST_UNITS = 100_000

Id = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$")]
PayerId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.-]{1,64}$")]
Number = Annotated[int, Field(ge=FIRST, le=999)]
Units = Annotated[int, Field(ge=1, le=MOST_UNITS)]
Unit = Annotated[str, StringConstraints(pattern=r"^(DA|F2|HR|MJ|MO|UN|VS)$")]
Place = Annotated[str, StringConstraints(pattern=r"^\d{2}$")]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")


class AskedCode(_Asked):
    """A code in a code system."""

    system: Annotated[str, StringConstraints(pattern=r"^(https?://|urn:)[!-~]{1,180}$")]
    code: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,40}$")]

    @property
    def coding(self) -> Coding:
        """As documents hold it."""
        return Coding(system=self.system, code=self.code)


class AskedItem(_Asked):
    """A service that is asked for; its number is given to it. See ``items.Item``."""

    service: AskedCode
    kind: ServiceKind = ServiceKind.REFERRAL
    quantity: Units = 1
    unit: Unit | None = None
    modifiers: Annotated[tuple[AskedCode, ...], Field(max_length=4)] = ()
    place: Place | None = None
    starts: date | None = None
    ends: date | None = None
    diagnoses: Annotated[tuple[Number, ...], Field(max_length=12)] = ()
    providers: Annotated[tuple[Number, ...], Field(max_length=10)] = ()

    def numbered(self, sequence: int) -> Item:
        """As the item of that number."""
        return Item(
            sequence=sequence,
            service=self.service.coding,
            kind=self.kind,
            quantity=self.quantity,
            unit=self.unit,
            modifiers=tuple(modifier.coding for modifier in self.modifiers),
            place=self.place,
            starts=self.starts,
            ends=self.ends,
            diagnoses=self.diagnoses,
            providers=self.providers,
        )


class AskedProvider(_Asked):
    """An organization that is to give the care."""

    npi: Annotated[str, StringConstraints(pattern=r"^\d{10}$")]
    name: Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True)]
    role: Annotated[str, StringConstraints(pattern=r"^[A-Z0-9]{2,3}$")] = "SJ"


class Open(_Asked):
    """Ask a payer for approval of these services. ``replaces`` names the one that this one follows: a denied one,
    or one of another payer that no longer covers the patient. ``renews`` names an approved one of the same payer that
    is used up, or over: what has units left for a visit behind its end is extended."""

    patient_id: Id
    coverage_id: Id
    payer_id: PayerId
    items: Annotated[tuple[AskedItem, ...], Field(min_length=1, max_length=MOST_ITEMS)]
    diagnoses: Annotated[tuple[AskedCode, ...], Field(max_length=12)] = ()
    providers: Annotated[tuple[AskedProvider, ...], Field(max_length=14)] = ()
    expedited: bool = False
    replaces: Id | None = None
    renews: Id | None = None

    @model_validator(mode="after")
    def _follows_one(self) -> Open:
        if self.replaces is not None and self.renews is not None:
            raise ValueError("replaces one or renews one")
        return self


class OpenAs(Open):
    """The command, with the id that the new authorization gets."""

    id: str


class ChangedItem(_Asked):
    """What an item that was asked for is to be instead. What else differs is another item (PAS 2.2.1)."""

    sequence: Number
    quantity: Units | None = None
    starts: date | None = None
    ends: date | None = None


class Update(_Asked):
    """Change what a payer was asked for: items changed, added, and no longer wanted."""

    change: Annotated[tuple[ChangedItem, ...], Field(max_length=MOST_ITEMS)] = ()
    add: Annotated[tuple[AskedItem, ...], Field(max_length=MOST_ITEMS)] = ()
    drop: Annotated[tuple[Number, ...], Field(max_length=MOST_ITEMS)] = ()


class Supplied(_Asked):
    """Which documents answer what the payer asked for: both by their numbers."""

    wanted: Number
    attachments: Annotated[tuple[Number, ...], Field(min_length=1, max_length=MOST_ITEMS)]


class Supply(_Asked):
    """Send the payer what it asked for. What is not named is answered by the documents of the types asked for."""

    supplies: Annotated[tuple[Supplied, ...], Field(max_length=MOST_ITEMS)] = ()


# -- opening --------------------------------------------------------------------------------------------------------


def replaced(command: OpenAs, document: Authorization | None) -> Iterable[Want]:
    """The authorization that the new one replaces or renews."""
    return tuple(Ref(Authorization, id) for id in (command.replaces, command.renews) if id is not None)


def open_directly(
    rules: RuleBook, document: Authorization | None, command: OpenAs, facts: Facts, now: datetime
) -> Authorization:
    """Open an authorization that no referral asked for, or one that takes the place of a denied one.

    Raises Invalid where an item points at what is not there, or ``replaces`` or ``renews`` names none of the patient's;
    Conflict where the one replaced was not denied, or the one renewed is not approved, or still in use.
    """
    items = tuple(asked.numbered(sequence) for sequence, asked in enumerate(command.items, FIRST))
    _check(items, len(command.diagnoses), len(command.providers))
    renewed = _renewed(command, facts, now)
    before = renewed or _replaced(command, facts)
    opened = Authorization(
        id=command.id,
        # Whoever relies on the one that was denied relies on this one; nobody's referral has this one's own id.
        referral_id=command.id if before is None else before.announces()["referral_id"],
        patient_id=command.patient_id,
        coverage_id=command.coverage_id,
        payer_id=command.payer_id,
        items=items,
        diagnoses=tuple(asked.coding for asked in command.diagnoses),
        providers=_numbered(command.providers),
        expedited=command.expedited,
        replaces=command.replaces,
        continuity=continuity_of(before) if before is not None and before.payer_id != command.payer_id else None,
        renews=command.renews,
        renewed_number=renewed.current.number if renewed is not None and renewed.current is not None else None,
        opened_for=command.payer_id,
        share=rules.share_of(command.payer_id, command.id),
        requested_at=now,
        terms=assess_all(
            rules, command.payer_id, None, items, now.date(), expedited=command.expedited, member_known=False
        ),
    )
    refuse_too_far_back(opened, now)
    if before is not None:
        ask_for_visits(opened, opened.referral_id, used_too=before.state in DENIED)
    return start(opened, now)


def refuse_too_far_back(opened: Authorization, now: datetime) -> None:
    """Flag a request for care that was already given. Raises Conflict where it lies before the payer's window."""
    today = opened.terms.calendar.day(now)
    given = min((item.starts for item in opened.items if item.starts is not None), default=today)
    opened.retrospective = given < today
    if (today - given).days > opened.terms.retrospective_days:
        raise Conflict(f"the payer takes requests for care given at most {opened.terms.retrospective_days} days ago")


def _replaced(command: OpenAs, facts: Facts) -> Authorization | None:
    if command.replaces is None:
        return None
    before = facts.get(Authorization, command.replaces)
    if before is None or before.patient_id != command.patient_id:
        raise Invalid("there is nothing to replace", flaws=[Flaw("replaces", "names no authorization of the patient")])
    left = before.transferred_to is not None and before.payer_id != command.payer_id
    if before.state not in DENIED and not left:
        raise Conflict("only a denied authorization is replaced, or one of another payer; any other is updated")
    return before


def _renewed(command: OpenAs, facts: Facts, now: datetime) -> Authorization | None:
    if command.renews is None:
        return None
    before = facts.get(Authorization, command.renews)
    known = before is not None and (before.patient_id, before.payer_id) == (command.patient_id, command.payer_id)
    if before is None or not known:
        raise Invalid("there is nothing to renew", flaws=[Flaw("renews", "names none of the patient's at this payer")])
    ruling = granted(before)
    if ruling is None:
        raise Conflict("only an approved authorization is renewed")
    whole, used, _ = units(before)
    over = ruling.valid_to is not None and ruling.valid_to < before.terms.calendar.day(now)
    if used < whole and not over:
        raise Conflict("it has units left and is not over; update it instead")
    return before


def _numbered(asked: Iterable[AskedProvider]) -> tuple[Provider, ...]:
    return tuple(
        Provider(sequence=sequence, npi=each.npi, name=each.name, role=each.role)
        for sequence, each in enumerate(asked, FIRST)
    )


# -- updating -------------------------------------------------------------------------------------------------------


def update(document: Authorization, command: Update, facts: Facts, now: datetime) -> Authorization:
    """Have an update sent. Raises Conflict where the payer would not take one, Invalid where it asks for what is not
    there, or for nothing new."""
    _refuse_unless_updatable(document)
    items = _updated(document, command)
    _check(items, len(document.diagnoses), len(document.providers))
    _send_update(document, items, now)
    return document


def supply(document: Authorization, command: Supply, facts: Facts, now: datetime) -> Authorization:
    """Send the payer the documents it asked for: an update of the claim that changes no item (PAS 2.2.1).

    Raises Conflict where nothing is asked for, or nothing that is there answers it, Invalid for a number of nothing.
    """
    _refuse_unless_updatable(document)
    wanted = {each.sequence: each for each in document.asked_of_us}
    if not wanted:
        raise Conflict("the payer asks for nothing that it was not sent")
    named = {each.wanted: each.attachments for each in command.supplies}
    there = {each.sequence for each in document.attachments if not each.dropped}
    flaws = [
        Flaw(f"supplies[{place}]", "names what is not asked for, or a document that is not there")
        for place, each in enumerate(command.supplies)
        if each.wanted not in wanted or not there.issuperset(each.attachments)
    ]
    if flaws or len(named) < len(command.supplies):
        raise Invalid("The documents cannot be sent", flaws=flaws or [Flaw("supplies", "names one thing twice")])
    met = {number: named.get(number) or each.met_by(document.attachments) for number, each in wanted.items()}
    met = {number: attachments for number, attachments in met.items() if attachments}
    if not met:
        raise Conflict("there is no document of a type that the payer asks for")
    prior = to_cancel(document)
    known = set(prior.attached) if prior is not None else set()
    if known.issuperset(number for attachments in met.values() for number in attachments):
        raise Conflict("the payer has these documents already")
    document.attachments = tuple(
        _answering(each, [wanted[number] for number, answers in met.items() if each.sequence in answers], known)
        for each in document.attachments
    )
    _send_update(document, document.items, now)
    update_id = document.update_id
    document.wanted = tuple(
        each.model_copy(update={"supplied_by": update_id, "attachments": met[each.sequence]})
        if each.sequence in met
        else each
        for each in document.wanted
    )
    if document.wait is not None and document.wait.reason == WANTED and not document.asked_of_us:
        document.met()
        start_clock(document, now)
    return document


def _answering(attachment: Attachment, asked: Sequence[Wanted], known: Container[int]) -> Attachment:
    """A document as the payer that asked for it looks for it; what it has already stays as it was sent."""
    if attachment.sequence in known:
        return attachment
    control = next((each.control for each in asked if each.control is not None), attachment.control)
    report = next((each.report for each in asked if each.report is not None), attachment.report)
    return attachment.model_copy(update={"control": control, "report": report})


def _refuse_unless_updatable(document: Authorization) -> None:
    if document.state in DENIED:
        raise Conflict("a denied authorization may not be updated; open a new one that replaces it")
    if document.state not in UPDATABLE:
        raise Conflict("only what the payer has pended or approved can be updated")
    if document.update is not None:
        raise Conflict("an update is on its way; the payer's answer to it comes first")
    if document.newest is None:
        raise Conflict("the payer approved it without a claim; there is nothing to update")


def _send_update(document: Authorization, items: tuple[Item, ...], now: datetime) -> None:
    prior = to_cancel(document)
    document.updates += 1
    document.update = Submission(
        id=derived_id(document.id, "update-claim", str(document.updates)),
        kind=Kind.UPDATE,
        prior=prior.id if prior is not None else None,
        opened_at=now,
        items=items,
        attached=document.attached,
        snapshot=seal(document, items),
    )
    document.update_id = document.update.id
    document.wake("update", now)


def _updated(document: Authorization, command: Update) -> tuple[Item, ...]:
    changes = {change.sequence: change for change in command.change}
    live = {item.sequence for item in document.items if not item.dropped}
    flaws = [
        Flaw(f"{name}[{place}]", "names no item that is asked for")
        for name, sequences in (("change", [c.sequence for c in command.change]), ("drop", command.drop))
        for place, sequence in enumerate(sequences)
        if sequence not in live
    ]
    if flaws or len(changes) < len(command.change) or set(changes) & set(command.drop):
        twice = [Flaw("change", "names an item twice, or one that is dropped")]
        raise Invalid("The update cannot be sent", flaws=flaws or twice)
    kept = [_changed(item, changes.get(item.sequence), item.sequence in command.drop) for item in document.items]
    first = next_sequence(document.items)
    items = (*kept, *(asked.numbered(sequence) for sequence, asked in enumerate(command.add, first)))
    if items == document.items:
        raise Invalid("The update changes nothing", flaws=[Flaw("change", "says nothing new")])
    if all(item.dropped for item in items):
        raise Invalid("Nothing would be left to ask for", flaws=[Flaw("drop", "leaves no item: cancel instead")])
    if len(items) > MOST_ITEMS:
        raise Invalid("The update cannot be sent", flaws=[Flaw("add", f"leads to more than {MOST_ITEMS} items")])
    return items


def _changed(item: Item, change: ChangedItem | None, dropped: bool) -> Item:
    if dropped:
        return item.model_copy(update={"dropped": True})
    if change is None:
        return item
    return item.model_copy(update=change.model_dump(exclude={"sequence"}, exclude_none=True))


def _check(items: tuple[Item, ...], diagnoses: int, providers: int) -> None:
    """Refuse items that point at what is not there, or end before they begin."""
    flaws: list[Flaw] = []
    for place, item in enumerate(items):
        if any(number > diagnoses for number in item.diagnoses):
            flaws.append(Flaw(f"items[{place}].diagnoses", "points at a diagnosis that is not there"))
        if any(number > providers for number in item.providers):
            flaws.append(Flaw(f"items[{place}].providers", "points at a provider that is not there"))
        if item.starts is not None and item.ends is not None and item.ends < item.starts:
            flaws.append(Flaw(f"items[{place}].ends", "lies before it starts"))
    if flaws:
        raise Invalid("The items cannot be asked for", flaws=flaws)
