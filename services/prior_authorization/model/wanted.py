"""What a payer asks for before it decides: kept with the claim it is about, told once, supplied by an update.

A payer asks with its pend (CommunicationRequest, Task). What is asked for is supplied where documents are there and an
update takes them along (PAS 2.2.1: supportingInfo of a Claim update, flagged as added).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from services.prior_authorization.model.answers import AskAnswer
from services.prior_authorization.model.evidence import LOINC
from services.prior_authorization.model.items import Attachment
from shared.contracts.base import Coding
from shared.contracts.prior_authorization import AuthorizationInformationRequested, InformationAsked
from shared.kit.document import Part

if TYPE_CHECKING:
    from services.prior_authorization.model.authorization import Authorization

REPORT_TYPE = "https://codesystem.x12.org/005010/755"

WANTED = "information-wanted"
"""What a coordinator is waited for."""

WITHIN = timedelta(days=3)
WITHIN_EXPEDITED = timedelta(hours=12)
"""How long a coordinator has where the payer does not say until when."""

MOST = 50
"""So much a payer may ask for of one authorization; what goes beyond is noted, not kept."""

_LOINC = re.compile(r"[0-9]{1,7}-[0-9]")
_REPORT = re.compile(r"[A-Z0-9]{2}")
_NAMED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/|=-]{0,199}")
_CONTROL = re.compile(r"[A-Za-z0-9._/-]{1,50}")
_URL = re.compile(r"https?://[A-Za-z0-9.:_/-]{1,300}")
"""What must look so to be kept: codes, identifiers and addresses, never text about a person."""


class Wanted(Part):
    """One thing that the payer asks for. ``codes`` are LOINC or X12 755; none: it cannot be read, and is to be asked.

    ``sequence`` is our number of it, ``item`` the item's (None: the whole claim), ``modifiers`` LOINC codes of which
    of it, ``questionnaire`` the one to be answered, ``control`` the payer's number for what is sent, ``url`` where it
    takes attachments. ``supplied_by`` is the claim that takes it along, ``attachments`` are the numbers of what it has.
    """

    sequence: int
    claim_id: str
    item: int | None = None
    codes: tuple[Coding, ...] = ()
    modifiers: tuple[str, ...] = ()
    questionnaire: str | None = None
    control: str | None = None
    until: datetime | None = None
    url: str | None = None
    asked_at: datetime
    supplied_by: str | None = None
    attachments: tuple[int, ...] = ()

    @property
    def types(self) -> tuple[str, ...]:
        """The LOINC codes asked for."""
        return tuple(coding.code for coding in self.codes if coding.system == LOINC)

    @property
    def report(self) -> str | None:
        """The X12 755 report type asked for."""
        return next((coding.code for coding in self.codes if coding.system == REPORT_TYPE), None)

    def met_by(self, attachments: Iterable[Attachment]) -> tuple[int, ...]:
        """The numbers of the documents that are of a type asked for."""
        return tuple(each.sequence for each in attachments if not each.dropped and each.type.code in self.types)

    def same(self, ask: AskAnswer, claim_id: str) -> bool:
        """Whether the payer asks for this again."""
        other = _kept(ask, 0, claim_id, self.asked_at)
        mine = (self.claim_id, self.item, self.codes, self.modifiers, self.questionnaire, self.control)
        return mine == (other.claim_id, other.item, other.codes, other.modifiers, other.questionnaire, other.control)


@dataclass(frozen=True, slots=True)
class Added:
    """What of an answer was not asked for before."""

    wanted: tuple[Wanted, ...]

    @property
    def until(self) -> datetime | None:
        """The first day on which any of it must be there."""
        return min((each.until for each in self.wanted if each.until is not None), default=None)


def take_asks(document: Authorization, claim_id: str, asks: Iterable[AskAnswer], told: datetime) -> Added:
    """Keep what the payer asks for with its word on a claim, and tell of what is new."""
    new: list[Wanted] = []
    for ask in asks:
        known = (*document.wanted, *new)
        if len(known) < MOST and not any(each.same(ask, claim_id) for each in known):
            new.append(_kept(ask, max((each.sequence for each in known), default=0) + 1, claim_id, told))
    if new:
        document.wanted = (*document.wanted, *new)
        document.record(
            AuthorizationInformationRequested(
                **document.announces(),
                payer_id=document.payer_id,
                claim_id=claim_id,
                asked=tuple(
                    InformationAsked(item=each.item, codes=each.codes, modifiers=each.modifiers, until=each.until)
                    for each in new
                ),
            )
        )
    return Added(tuple(new))


def _kept(ask: AskAnswer, sequence: int, claim_id: str, told: datetime) -> Wanted:
    """What is asked for as it is kept: codes that are codes, and nothing that could be text."""
    return Wanted(
        sequence=sequence,
        claim_id=claim_id,
        item=ask.item,
        codes=tuple(coding for coding in ask.codes if _is_code(coding)),
        modifiers=tuple(code for code in ask.modifiers if _LOINC.fullmatch(code)),
        questionnaire=_fitting(_NAMED, ask.questionnaire),
        control=_fitting(_CONTROL, ask.control),
        until=ask.until,
        url=_fitting(_URL, ask.url),
        asked_at=told,
    )


def _is_code(coding: Coding) -> bool:
    form = {LOINC: _LOINC, REPORT_TYPE: _REPORT}.get(coding.system)
    return form is not None and form.fullmatch(coding.code) is not None


def _fitting(form: re.Pattern[str], text: str | None) -> str | None:
    return text if text is not None and form.fullmatch(text) else None
