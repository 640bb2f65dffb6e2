"""Whether approval is needed, and on what terms, follows from the rules file alone."""

from __future__ import annotations

from datetime import date

import pytest

from services.prior_authorization.jobs import pace_of
from services.prior_authorization.model.rules import AppealPolicy, Purpose, RuleBook, RulesError
from shared.contracts.base import Coding
from tests.unit.prior_authorization.cases import CONSULT, CPT, OFFICE_VISIT, SNOMED, opened, shipped, uid

DAY = date(2026, 3, 2)


def assess(book: RuleBook, service: Coding, *, payer: str = "acme", plan: str | None = None, on: date = DAY) -> str:
    return book.assess(payer, plan, service, on=on, expedited=False).why


@pytest.mark.parametrize(
    ("service", "why", "needed"),
    [
        (OFFICE_VISIT, "office-visits-need-none", False),
        (Coding(system=CPT, code="99202"), "office-visits-need-none", False),
        (Coding(system=CPT, code="99215"), "office-visits-need-none", False),
        (Coding(system=CPT, code="99216"), "default", True),
        (Coding(system=SNOMED, code="99213"), "default", True),
        (Coding(system=SNOMED, code="385805005"), "diabetes-education-needs-none", False),
        (Coding(system=SNOMED, code="103696004"), "default", True),
        (Coding(system="urn:any", code="SBX-NOAUTH-7"), "sandbox-needs-none", False),
        (CONSULT, "default", True),
    ],
)
def test_the_shipped_rules_say_by_service_code_what_needs_no_approval(service: Coding, why: str, needed: bool) -> None:
    terms = shipped().assess("any-payer", None, service, on=DAY, expedited=False)
    assert (terms.why, terms.needed) == (why, needed)


def test_a_range_covers_codes_of_its_own_length_only() -> None:
    book = RuleBook.parse('[[rules]]\nwhy = "r"\nneeded = false\ncodes = ["100..200"]\n')
    assert assess(book, Coding(system="s", code="150")) == "r"
    assert assess(book, Coding(system="s", code="1500")) == "default"


def test_the_first_rule_that_matches_payer_plan_and_date_decides() -> None:
    book = RuleBook.parse(
        """
        [[rules]]
        why = "gold plan"
        payer = "acme"
        plan = "gold"
        needed = false
        from = 2026-01-01
        until = 2026-07-01
        [[rules]]
        why = "acme"
        payer = "acme"
        needed = true
        """
    )
    assert assess(book, CONSULT, plan="gold") == "gold plan"
    assert assess(book, CONSULT, plan="gold", on=date(2025, 12, 31)) == "acme"
    assert assess(book, CONSULT, plan="gold", on=date(2026, 7, 1)) == "acme"
    assert assess(book, CONSULT, plan=None) == "acme"
    assert assess(book, CONSULT, payer="other") == "default"


def test_terms_of_a_named_payer_come_before_those_for_all() -> None:
    for_all, for_acme = '[[payers]]\nappeal = "automatic"\n', '[[payers]]\npayer = "acme"\nappeal = "none"\n'
    book = RuleBook.parse(for_all + for_acme)
    assert book.assess("acme", None, CONSULT, on=DAY, expedited=False).appeal is AppealPolicy.NONE
    assert book.assess("other", None, CONSULT, on=DAY, expedited=False).appeal is AppealPolicy.AUTOMATIC


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[[rules]\n", "TOML"),
        ('[[rules]]\nwhy = "x"\n', "rules.0: .*needed"),
        ('[[payers]]\ntimezone = "Mars/Olympus"\n', "payers.0.timezone"),
        ('[[payers]]\nappeal = "sometimes"\n', "payers.0.appeal"),
        ('[[rules]]\nwhy = "x"\nneeded = true\ncolour = "red"\n', "rules.0.colour"),
    ],
)
def test_a_rules_file_that_cannot_be_used_says_where(text: str, place: str) -> None:
    with pytest.raises(RulesError, match=place):
        RuleBook.parse(text)


SPLIT = """
[[payers]]
payer = "*"
poll = { a_second = 3, burst = 6, in_flight = 4 }
[[payers]]
payer = "giant"
shares = 4
submit = { a_second = 40, burst = 8, in_flight = 16 }
poll = { a_second = 20, burst = 4, in_flight = 4, failures = 2, left_alone = 60 }
"""


def test_a_payer_that_is_not_named_has_a_budget_of_its_own() -> None:
    budget = RuleBook().budget("unheard-of", Purpose.POLL)
    assert (budget.a_second, budget.in_flight, budget.failures, budget.left_alone) == (10, 8, 5, 30)
    assert RuleBook.parse(SPLIT).budget("unheard-of", Purpose.POLL).a_second == 3


def test_the_shares_of_a_payer_together_have_its_budget() -> None:
    book = RuleBook.parse(SPLIT)
    submit, poll = book.budget("giant", Purpose.SUBMIT), book.budget("giant", Purpose.POLL)
    assert (submit.a_second, submit.burst, submit.in_flight) == (10, 2, 4)
    assert (poll.a_second, poll.burst, poll.in_flight, poll.failures, poll.left_alone) == (5, 1, 1, 2, 60)


def test_what_cannot_be_split_so_far_is_refused() -> None:
    with pytest.raises(RulesError, match="shares"):
        RuleBook.parse('[[payers]]\npayer = "giant"\nshares = 9\n')


def test_a_request_keeps_the_share_it_was_opened_in() -> None:
    book = RuleBook.parse(SPLIT)
    found = [opened(book, referral_id=uid("split", str(n)), payer_id="giant") for n in range(200)]
    assert {document.share for document in found} == {0, 1, 2, 3}
    assert len({document.slot_key() for document in found}) == 4
    assert all(document.slot_key() == "giant" for document in found if document.share == 0), "as before it was split"
    whole = opened(book, payer_id="small")
    assert (whole.share, whole.slot_key()) == (0, "small")


def test_each_share_is_paced_by_itself_and_what_strayed_from_another_payer_hardly_at_all() -> None:
    book = RuleBook.parse(SPLIT)
    pace = pace_of(book, Purpose.POLL)
    keys = {pace(opened(book, referral_id=uid("split", str(n)), payer_id="giant"))[0] for n in range(200)}
    assert keys == {"giant", "giant#1", "giant#2", "giant#3"}
    stray = opened(book, payer_id="small").model_copy(update={"payer_id": "giant"})
    key, allowance = pace(stray)
    assert key not in keys
    assert (allowance.rate, allowance.burst, allowance.concurrency) == (0.05, 1, 1)
