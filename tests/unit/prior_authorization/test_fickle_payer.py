"""Whatever a payer says, in whatever order, by whatever way, and whatever people do meanwhile: the state is the payer's
latest decision by its own date, nothing is lost, and nothing illegal is ever sent.

``SEED`` (a number) and ``WALKS`` (how many) choose other walks than the usual ones; a failure prints its steps.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from services.prior_authorization.model import Authorization, State, authorization_id
from services.prior_authorization.service import Settings, build
from shared.contracts.referrals import ReferralCancelled
from shared.kit.auth import Role
from shared.kit.testing.harness import Harness
from tests.unit.prior_authorization.cases import PATIENT, PAYER_ID, REFERRAL, asked, person
from tests.unit.prior_authorization.fickle import (
    FAULTS,
    GRANTS,
    START,
    VOCABULARY,
    FicklePayer,
    Letter,
    Plan,
    Words,
    flawed,
    notification,
)

SEED = int(os.environ.get("SEED", "20260302"))
WALKS = int(os.environ.get("WALKS", "60"))

ENDED = {State.CANCELLING, State.WITHDRAWN}
DENIED = {State.DENIED, State.APPEALING, State.DENIED_FINAL}
OF_ACTION = {
    **{action: {State.APPROVED} for action in GRANTS},
    "A3": DENIED,
    "C": {State.CANCELLED},
    "CT": {State.CONTACT_PAYER},
    "NA": {State.NO_ACTION},
}
WAITING = {State.AWAITING_MEMBER, State.SUBMITTING, State.PENDED, State.CONTACT_PAYER, State.DENIED, State.APPEALING}
ERRORS_ALONE = ("errors", "errors-never")
NOTIFIABLE_FAULTS = [fault for fault in FAULTS if fault not in ("timeout", "refused", "busy", "failed", "rejected")]

MINUTES = st.one_of(st.sampled_from([0, 5, 10, 20, 30, 60, 240, 600]), st.integers(0, 600))
ISSUED = st.sampled_from([None, None, None, date(2026, 3, 1), date(2026, 3, 2)])
GRANTED = [words for words in VOCABULARY if words.action in GRANTS]
NOT = [words for words in VOCABULARY if words.action == "A3"]
SAID = st.one_of(st.sampled_from(NOT), st.sampled_from(GRANTED), st.sampled_from(VOCABULARY))
ANSWERS = st.builds(Plan, words=SAID, minutes=MINUTES, issued=ISSUED)
FAILURES = st.builds(Plan, words=SAID, minutes=MINUTES, fault=st.sampled_from(FAULTS))
PLANS = st.one_of(
    ANSWERS, st.builds(Plan, words=SAID, minutes=MINUTES, first=st.tuples(SAID, MINUTES)), ANSWERS, FAILURES
)
FIRST = st.one_of(st.just(Plan(NOT[0])), st.just(Plan()), PLANS)
ANY = st.integers(0, 1000)


class Dealings(RuleBasedStateMachine):
    """One authorization, its payer, and the people around it."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = TemporaryDirectory()
        self.payer = FicklePayer()
        self.payer.deliver = self._notified
        self.letters: list[Letter] = []
        self.called_off = False
        self.accepted = False
        self.resubmitted = 0
        self.id = authorization_id(REFERRAL)
        self.numbers: dict[str, int] = {}

    @initialize(policy=st.sampled_from(["automatic", "by-person", "none"]), levels=st.integers(0, 2), first=FIRST)
    def begin(self, policy: str, levels: int, first: Plan) -> None:
        """A referral asks; the payer answers the request in one way or another."""
        rules = Path(self.folder.name) / "rules.toml"
        rules.write_text(f'[[payers]]\npayer = "*"\nappeal = "{policy}"\nappeal_levels = {levels}\n')
        self.policy, self.levels = policy, levels
        http = httpx.AsyncClient(transport=self.payer)
        self.harness = Harness(
            Settings, build, http=http, payer_url="http://payer.test", prior_authorization_rules=rules
        )
        self.payer.plans["$submit"].append(first)
        self._run(self._begin())

    # -- what the payer does ------------------------------------------------------------------------------------------

    @rule(plan=PLANS, operation=st.sampled_from(["$submit", "$inquire"]))
    def will_answer(self, plan: Plan, operation: str) -> None:
        """The next call of that kind; several may wait for their turn."""
        self.payer.plans[operation].append(plan)

    @precondition(lambda self: self.payer.claims)
    @rule(pick=ANY, words=SAID)
    def changes_its_mind(self, pick: int, words: Words) -> None:
        """A word later than all before it."""
        latest = max((letter.created for letter in self.letters), default=START)
        minutes = int((latest - START).total_seconds() / 60) + 1
        claims = list(self.payer.claims)
        self._run(self._notified(Plan(words, minutes).letter(claims[pick % len(claims)])))

    @precondition(lambda self: self.payer.claims)
    @rule(pick=ANY, words=SAID, minutes=MINUTES, issued=ISSUED, copies=st.integers(1, 2))
    def notifies(self, pick: int, words: Words, minutes: int, issued: date | None, copies: int) -> None:
        claims = list(self.payer.claims)
        letter = Plan(words, minutes, issued).letter(claims[pick % len(claims)])
        for _ in range(copies):
            self._run(self._notified(letter))

    @precondition(lambda self: self.letters)
    @rule(pick=ANY)
    def notifies_again(self, pick: int) -> None:
        self._run(self._notified(self.letters[pick % len(self.letters)]))

    @precondition(lambda self: self.payer.chain and self.payer.latest(self.payer.chain[-1]))
    @rule(minutes=MINUTES)
    def pends_after_all(self, minutes: int) -> None:
        """A pend that comes after a decision is too late to mean anything."""
        letter = Plan(Words("A4"), minutes).letter(self.payer.chain[-1])
        before = self._state_of_affairs()
        self._run(self._notified(letter))
        assert self._state_of_affairs() == before

    @precondition(lambda self: self.payer.claims)
    @rule(fault=st.sampled_from(NOTIFIABLE_FAULTS), words=SAID)
    def notifies_what_cannot_be_used(self, fault: str, words: Words) -> None:
        claim = next(iter(self.payer.claims.values()))
        letter = Letter(claim.id, words, START)
        body: Any = flawed(fault, letter, claim) if fault != "not-json" else "what?"
        status = {"resourceType": "Parameters", "parameter": [{"name": "type", "valueCode": "event-notification"}]}
        if isinstance(body, dict) and "entry" in body:
            body = {"resourceType": "Bundle", "type": "history", "entry": [{"resource": status}, *body["entry"]]}
        before, decided = self._state_of_affairs(), self._decisions()
        answered = self._run(self._post(f"/payers/{PAYER_ID}/notifications", Role.SERVICE, body))
        if fault in ERRORS_ALONE:
            # They are heard: somebody may be asked to put them right, but they decide nothing.
            assert answered.status_code == 200, answered.text
            assert self._decisions() == decided
        else:
            assert answered.status_code in (400, 404, 422), answered.text
            assert self._state_of_affairs() == before

    # -- what time and people do --------------------------------------------------------------------------------------

    @rule(hours=st.sampled_from([0.1, 0.5, 2, 12, 80, 400]))
    def time_passes(self, hours: float) -> None:
        self.harness.clock.pass_(hours * 3600)
        self._run(self.harness.settle())

    @rule()
    def the_next_due_thing_happens(self) -> None:
        self._run(self.harness.advance())

    @rule(action=st.sampled_from(["appeal", "accept-denial", "send-again", "settle-contradiction"]))
    def a_coordinator_acts(self, action: str) -> None:
        before = self._document()
        answered = self._run(self._post(f"/authorizations/{self.id}/{action}", Role.COORDINATOR))
        assert answered.status_code in (200, 409), answered.text
        if answered.status_code == 200 and action == "accept-denial":
            assert before.state is State.DENIED
            self.accepted = True
        self._run(self.harness.settle())

    @rule(code=st.sampled_from(["0P", "33", "0P"]))
    def a_coordinator_corrects(self, code: str) -> None:
        body = {"corrected": [code]}
        answered = self._run(self._post(f"/authorizations/{self.id}/resubmit", Role.COORDINATOR, body))
        assert answered.status_code in (200, 409), answered.text
        self.resubmitted += answered.status_code == 200
        self._run(self.harness.settle())

    @precondition(lambda self: not self.called_off)
    @rule(by_referral=st.booleans(), seldom=st.integers(0, 5))
    def it_is_called_off(self, by_referral: bool, seldom: int) -> None:
        if seldom:
            return
        if by_referral:
            event = ReferralCancelled(referral_id=REFERRAL, patient_id=PATIENT, reason="patient")
            self._run(self._arrive(event, REFERRAL))
        else:
            self._run(self._post(f"/authorizations/{self.id}/cancel", Role.COORDINATOR))
        self.called_off = self._document().state in ENDED
        self._run(self.harness.settle())

    # -- what holds ---------------------------------------------------------------------------------------------------

    @invariant()
    def the_state_is_the_payers_latest_decision(self) -> None:
        document = self._document()
        if self.called_off:
            return
        standing = self.payer.standing()
        if standing is None:
            self._undecided(document)
            return
        anew = {State.SUBMITTING} if standing.words.action == "A3" and self.resubmitted else set()
        assert document.state in OF_ACTION[standing.words.action] | anew, self._told(document, standing)
        assert document.current is not None
        said = (document.current.action, document.current.number, document.current.reasons)
        assert said == (standing.words.action, standing.words.number, standing.words.reasons)
        if standing.words.units is not None:
            assert document.current.units == standing.words.units

    def _undecided(self, document: Authorization) -> None:
        """Nothing that was heard decides: it is being sent, or pended, or an appeal of a denial is."""
        chain = self.payer.chain
        if not chain or (self.resubmitted and document.state is State.SUBMITTING):
            assert document.state is State.SUBMITTING, document.state
        elif self.payer.claims[chain[-1]].certification == "I":
            assert document.state is (State.DENIED_FINAL if self.accepted else State.PENDED), document.state
        else:
            assert document.state is (State.DENIED_FINAL if self.accepted else State.APPEALING), document.state

    @invariant()
    def a_denial_is_corrected_appealed_or_ends_as_agreed(self) -> None:
        document, standing = self._document(), self.payer.standing()
        if self.called_off or standing is None or standing.words.action != "A3" or self.accepted:
            return
        sent = self.payer.claims
        appeals = sum(1 for claim in self.payer.chain if sent[claim].certification != "I")
        open_level = self.policy != "none" and appeals < self.levels
        wrong_data = standing.words.reasons == ("0P",)
        heard = self.payer.heard[standing.claim].letters
        otherwise = any(each.words.action == "A3" and each.words.reasons != ("0P",) for each in heard)
        if wrong_data and document.state is State.DENIED_FINAL and otherwise:
            return  # It had ended with other reasons, and others were told that it had.
        if wrong_data and self.resubmitted < 2:
            assert document.state in (State.DENIED, State.APPEALING, State.SUBMITTING)
        elif document.state is State.SUBMITTING:
            assert self.resubmitted
        elif wrong_data and self.resubmitted == 2 and document.state is State.DENIED:
            assert document.wait is not None
        elif not open_level:
            assert document.state is State.DENIED_FINAL
        else:
            assert document.state in (State.DENIED, State.APPEALING)

    @invariant()
    def every_claim_knows_its_own_latest_decision_and_the_history_all_that_counted(self) -> None:
        document = self._document()
        if document.state is State.WITHDRAWN:
            return
        for submission in document.submissions:
            latest, ruling = self.payer.latest(submission.id), submission.ruling
            assert (ruling is None) == (latest is None)
            if latest is not None and ruling is not None:
                words = (latest.words.action, latest.words.number)
                assert (ruling.action, ruling.number) == words
                assert (latest.claim, *words) in {(r.claim_id, r.action, r.number) for r in document.history}

    @invariant()
    def nothing_illegal_was_sent(self) -> None:
        assert self.payer.illegal == []

    @invariant()
    def a_contradiction_is_shown_to_a_person(self) -> None:
        document = self._document()
        if document.state in ENDED or not document.contradictions:
            return
        shown = self._run(self._get(f"/authorizations/{self.id}"))
        assert shown["contradicted"]
        assert len(shown["contradictions"]) == len(document.contradictions)

    @invariant()
    def what_was_called_off_ends_when_the_payer_can_have_it_no_more(self) -> None:
        document = self._document()
        if not self.called_off:
            assert document.state not in ENDED
            return
        assert document.state in ENDED
        if self.payer.cancelled:
            assert document.state is State.WITHDRAWN

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        document = self._document()
        if document.state in WAITING | {State.CANCELLING}:
            assert document.wait is not None
            assert document.wait.escalated_at is not None or "deadline" in document.timers

    # -- how ----------------------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        await self._arrive(person("MEMBER-1"), PATIENT)
        await self._arrive(asked(), REFERRAL)
        await self.harness.settle()

    async def _arrive(self, event: Any, subject: str) -> None:
        self.numbers[f"{event.topic}/{subject}"] = number = self.numbers.get(f"{event.topic}/{subject}", 0) + 1
        await self.harness.arrive(event, subject, number)
        await self.harness.settle()

    async def _notified(self, letter: Letter) -> None:
        """The payer notifies; what the service acknowledges it has heard. A contradiction is told to a person."""
        claim = self.payer.claims[letter.claim]
        before = self.payer.latest(letter.claim)
        document = await self.harness.stored(Authorization, self.id)
        body = notification(letter, claim)
        answered = await self._post(f"/payers/{PAYER_ID}/notifications", Role.SERVICE, body)
        assert answered.status_code == 200, answered.text
        self.letters.append(letter)
        assert document is not None
        if document.state is State.WITHDRAWN:
            return
        self.payer.hear(letter)
        differs = before is not None and letter.decides and before.age == letter.age and before.words != letter.words
        if differs and document.state not in ENDED:
            after = await self.harness.stored(Authorization, self.id)
            assert after is not None
            assert after.state is document.state
            assert any(ruling.action == letter.words.action for ruling in after.contradictions)
            assert after.wait is not None
            assert after.wait.escalated_at is not None, "a person is called"

    async def _post(self, path: str, role: Role, body: Any = None) -> httpx.Response:
        async with self.harness.client(role, subject="payer-simulator") as client:
            return await client.post(path, json=body if body is not None else {}, headers=self.harness.key())

    async def _get(self, path: str) -> Any:
        async with self.harness.client(Role.COORDINATOR) as client:
            return (await client.get(path)).json()

    def _run(self, doing: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(doing)

    def _document(self) -> Authorization:
        found: Authorization | None = self._run(self.harness.stored(Authorization, self.id))
        assert found is not None
        return found

    def _state_of_affairs(self) -> dict[str, Any]:
        """All of the authorization that a word which changes nothing must not change."""
        told = {"version", "requests", "failures", "refusals", "applied", "troubles", "changed_at"}
        return {**self._document().model_dump(exclude=told), "events": len(self.harness.published())}

    def _decisions(self) -> dict[str, Any]:
        """What was decided, and what was asked of the payer."""
        found = self._document()
        decided = found.model_dump(include={"state", "current", "history", "contradictions"})
        return {**decided, "rulings": [(sent.id, sent.ruling) for sent in found.submissions]}

    def _told(self, document: Authorization, standing: Letter) -> str:
        return f"{document.state} where the payer says {standing.words} of {standing.created}"

    def teardown(self) -> None:
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()
        self.folder.cleanup()


def test_the_state_is_the_payers_latest_decision_and_nothing_illegal_is_sent() -> None:
    print(f"SEED={SEED}")
    run_state_machine_as_test(
        seed(SEED)(Dealings),
        settings=settings(
            max_examples=WALKS,
            stateful_step_count=30,
            deadline=None,
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
