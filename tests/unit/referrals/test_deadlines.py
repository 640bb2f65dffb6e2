"""Deadlines: one for each wait, of the length that the table gives, told exactly once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from services.referrals import model
from services.referrals.jobs import jobs
from services.referrals.model import APPEAL, DUTIES, Referral, State
from shared.contracts.intake import CoverageStatus
from shared.contracts.referrals import Priority, ReferralEscalated
from shared.kit.decisions import NO_FACTS, Due
from shared.kit.jobs import Timer
from tests.unit.referrals import cases
from tests.unit.referrals.cases import NOW, recorded, tell

LIVE = sorted(model.LIVE)


def fire(referral: Referral) -> Referral:
    """Let the deadline's timer fire when it is due, as the kit does: it is taken off first."""
    (table,) = jobs()
    job = table.rows["deadline"]
    assert isinstance(job, Timer)
    at = referral.timers.pop("deadline", None) or (referral.wait.deadline if referral.wait else NOW)
    decided: Referral = job.decide(referral, Due("deadline", at), NO_FACTS, at)
    return decided


@pytest.mark.parametrize("state", LIVE, ids=str)
def test_a_breach_is_told_exactly_once_per_wait_and_the_wait_goes_on(state: State) -> None:
    referral = cases.in_state(state)
    assert referral.wait is not None
    wait = referral.wait.model_copy()
    assert referral.timers == {"deadline": wait.deadline}
    fire(referral)
    assert referral.timers == {}
    fire(referral)
    assert recorded(referral, ReferralEscalated) == [
        ReferralEscalated(
            referral_id=cases.REFERRAL,
            patient_id=cases.PATIENT,
            state=state,
            since=wait.since,
            deadline=wait.deadline,
            owner=wait.owner,
        )
    ]
    assert referral.state is state
    assert [step.what for step in referral.history].count("escalated") == 1


@pytest.mark.parametrize("state", LIVE, ids=str)
def test_the_more_urgent_the_referral_the_shorter_the_wait(state: State) -> None:
    within = [DUTIES[state].within[priority] for priority in Priority]
    assert within == sorted(within, reverse=True)
    assert all(each > timedelta() for each in within)


@pytest.mark.parametrize("priority", list(Priority), ids=str)
@pytest.mark.parametrize("made", [cases.requested, cases.authorizing, cases.sent, cases.accepted])
def test_the_deadline_follows_the_table_of_state_and_priority(
    made: Callable[..., Referral], priority: Priority
) -> None:
    referral = made(priority=priority)
    assert referral.wait is not None
    assert referral.wait.owner == DUTIES[referral.state].owner
    assert referral.wait.deadline == NOW + DUTIES[referral.state].within[priority]


def test_a_deadline_that_is_not_over_tells_nothing() -> None:
    referral = cases.in_state(State.AWAITING_ACCEPTANCE)
    model.escalate(referral, Due("deadline", NOW), NO_FACTS, NOW)
    assert recorded(referral, ReferralEscalated) == []


def test_each_new_wait_may_be_told_once_again() -> None:
    referral = fire(cases.in_state(State.AWAITING_APPOINTMENT))
    tell(referral, cases.booked(start=NOW + timedelta(days=20)))
    assert referral.wait is not None
    assert referral.wait.escalated_at is None
    fire(referral)
    assert len(recorded(referral, ReferralEscalated)) == 2


def test_another_reason_for_the_same_wait_neither_tells_again_nor_gives_more_time() -> None:
    referral = tell(cases.requested(), cases.PERSON_KNOWN, stored=[cases.known(status=CoverageStatus.LAPSED)])
    fire(referral)
    assert referral.wait is not None
    before = referral.wait.model_copy()
    unverifiable = [cases.known(status=CoverageStatus.UNVERIFIABLE)]
    tell(referral, cases.PERSON_KNOWN, stored=unverifiable, now=NOW + timedelta(days=9))
    assert referral.wait.reason == model.Reason.COVERAGE_UNVERIFIABLE
    assert (referral.wait.since, referral.wait.deadline, referral.wait.escalated_at) == (
        before.since,
        before.deadline,
        before.escalated_at,
    )
    assert referral.timers == {}


def test_a_denial_and_its_appeal_have_their_own_time() -> None:
    referral = tell(cases.authorizing(), cases.DENIED, now=NOW + timedelta(days=6))
    assert referral.wait is not None
    assert referral.wait.deadline == NOW + timedelta(days=6) + APPEAL.within[Priority.ROUTINE]
    tell(referral, cases.APPEALED, now=NOW + timedelta(days=7))
    assert referral.wait.deadline == NOW + timedelta(days=7) + APPEAL.within[Priority.ROUTINE]
    tell(referral, cases.PENDED, now=NOW + timedelta(days=8))
    assert referral.wait.reason == model.Reason.APPEAL_UNDECIDED
    assert referral.wait.since == NOW + timedelta(days=7), "a pended appeal is the same appeal"


def test_a_visit_is_overdue_only_after_its_end() -> None:
    referral = cases.scheduled()
    assert referral.wait is not None
    assert referral.visit is not None
    end = referral.visit[1].end
    assert end is not None
    assert referral.wait.deadline == end + DUTIES[State.AWAITING_VISIT].within[Priority.ROUTINE]


def test_news_of_a_visit_long_past_still_leaves_time_to_say_how_it_went() -> None:
    referral = tell(cases.accepted(), cases.booked(start=NOW - timedelta(days=30)))
    assert referral.wait is not None
    assert referral.wait.deadline == NOW + DUTIES[State.AWAITING_VISIT].within[Priority.ROUTINE]
