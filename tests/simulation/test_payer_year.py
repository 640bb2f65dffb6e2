"""After a year of 10,000 requests the scorecard equals an independent recount from the payers' own ledger."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from statistics import mean, median

import pytest

from deploy.simulators.ledger import PayerLedger
from services.prior_authorization import scorecard as tool
from services.prior_authorization.model.scorecard import Measures, Scorecard, Share, Tally
from shared.kit.testing.memory_bus import MemoryBus
from tests.simulation.payer_recount import Asked, Numbers, recount
from tests.simulation.payer_year import Year

SEED = int(os.environ.get("FIRST_SEED", "4"))
REQUESTS = int(os.environ.get("YEAR_REQUESTS", "10000"))


@pytest.fixture
def calm() -> Iterator[None]:
    """A year makes millions of objects that live as long as it does: looking for cycles among them is most of the time
    that it would take."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def scored(year: Year) -> Scorecard:
    """What the command counts from the topic."""
    tally = Tally()
    async for told in tool.heard(MemoryBus(year.broker).history("prior_authorization.events")):
        assert told is not None
        tally.add(told)
    return tally.card(year.now)


def asked_for(year: Year) -> dict[str, Asked]:
    """What each case was about, by the identifier of its first claim."""
    found = {}
    for id, event in year.asked.items():
        claim = year.kept[id].document.claim_id
        line = "other" if event.payer_id == "payer-1" else "medicare-advantage"
        if claim is not None:
            found[claim] = Asked(event.payer_id, line, year.services[id], event.expedited)
    return found


def share(count: int, of: int) -> Share:
    return Share(count=count, of=of, percent=round(100 * count / of, 1) if of else None)


def agree(scored: Measures, counted: Numbers) -> None:
    """Every measure is the same, however it was counted."""
    assert scored.received == counted.received
    for expedited, track in ((False, scored.standard), (True, scored.expedited)):
        yes, no, hours = counted.approved[expedited], counted.denied[expedited], counted.hours[expedited]
        assert track.approved == share(yes, yes + no)
        assert track.denied == share(no, yes + no)
        assert track.approved_after_appeal == share(counted.won[expedited], yes + no)
        assert track.time.decided == len(hours)
        if hours:
            assert track.time.mean == pytest.approx(mean(hours), abs=0.006)
            assert track.time.median == pytest.approx(median(hours), abs=0.006)
    decided = sum(counted.approved.values()) + sum(counted.denied.values())
    assert scored.extended_and_approved == share(counted.late_yes, decided)
    assert scored.in_part == share(counted.in_part, sum(counted.approved.values()))
    assert scored.appeals == counted.appeals
    assert scored.overturned == share(counted.appeals_won, counted.appeals_decided)
    assert scored.human_reviewed == share(counted.person, counted.person_told)
    assert scored.pends.pended == share(counted.pended, counted.sent)
    assert scored.pends.open == len(counted.open_days)
    for (low, high), count in zip(
        ((-1, 1), (1, 3), (3, 7), (7, 14), (14, 1e9)), scored.pends.ages.values(), strict=True
    ):
        assert count == sum(low < age <= high for age in counted.open_days)


def all_agree(card: Scorecard, ledger: PayerLedger, asked: dict[str, Asked], year: Year) -> None:
    def counted(which: Callable[[Asked], int]) -> Numbers:
        return recount(ledger, asked, year.now, which)

    assert {payer.payer_id for payer in card.payers} == {about.payer for about in asked.values()}
    for payer in card.payers:
        agree(payer.all, counted(lambda about, payer=payer: about.payer == payer.payer_id))  # type: ignore[misc]
        for row in payer.services:
            wanted, code = payer.payer_id, row.service.code
            items = counted(
                lambda about, wanted=wanted, code=code: about.services.count(code) if about.payer == wanted else 0  # type: ignore[misc]
            )
            agree(row.measures, items)


async def test_the_scorecard_of_a_year_equals_a_recount_from_the_payers_ledger(calm: None) -> None:
    print(f"seed {SEED}, {REQUESTS} requests")
    year = Year(SEED, REQUESTS)
    await year.run()
    card = await scored(year)
    asked = asked_for(year)
    assert len(asked) == REQUESTS
    assert sum(len(about.services) > 1 for about in asked.values()) > REQUESTS / 20
    all_agree(card, year.payer.ledger, asked, year)
    whole = recount(year.payer.ledger, asked, year.now, lambda about: True)
    for number in (
        *whole.approved.values(), *whole.denied.values(), *whole.won.values(), whole.late_yes, whole.in_part,
        whole.appeals_decided - whole.appeals_won, whole.person, whole.pended, len(whole.open_days),
    ):  # fmt: skip
        assert number > 0, "a year in which something never happened shows nothing of it"
