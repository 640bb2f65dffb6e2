"""Due work of authorizations: what is sent to payers and asked of them, and the deadline of every wait."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache, partial

from services.prior_authorization.model import (
    Authorization,
    Contents,
    Member,
    Payer,
    Purpose,
    RuleBook,
    calling,
    lifetime,
    people,
)
from services.prior_authorization.model.calling import Outcome
from services.prior_authorization.model.evidence import contents_id
from services.prior_authorization.model.payer import payer_key
from services.prior_authorization.model.subscription import Outcome as SubscriptionOutcome
from services.prior_authorization.model.subscription import (
    Subscription,
    may_subscribe,
    prepare_subscribe,
    settle_subscribe,
)
from services.prior_authorization.pas.client import PayerClient
from shared.kit.decisions import Due, Facts, Ref, Want
from shared.kit.document import Attempt
from shared.kit.jobs import Jobs, Pace, call, timer
from shared.kit.pacing import Allowance

POLLS, SUBMISSIONS, RARE = 160, 64, 16
"""Calls in flight of one process: together no more than its HTTP client has connections (``shared.kit.run``), and so
many that payers which do not answer, each up to its own cap, leave places for the others."""

_STRAYS = 100
"""What part of its budget a payer's requests get that stand among another payer's, having changed theirs before
anything was sent: another worker than the payer's own may have them, and does not know what that one spends."""


def jobs(client: PayerClient, rules: RuleBook) -> tuple[Jobs, ...]:
    """The job table: each call through ``client``, at the pace that ``rules`` allow by payer.

    Payers deduplicate claims by Claim.identifier, so a lost answer is asked for again. A lost answer to an inquiry is
    not: the next one follows within the payer's budget.
    """

    async def submit(document: Authorization, attempt: Attempt, facts: Facts) -> Outcome:
        return await client.submit(document, _known(document, facts), _contents(document, facts))

    async def update(document: Authorization, attempt: Attempt, facts: Facts) -> Outcome:
        return await client.update(document, _known(document, facts), _contents(document, facts))

    async def appeal(document: Authorization, attempt: Attempt, facts: Facts) -> Outcome:
        return await client.appeal(document, _known(document, facts), _contents(document, facts))

    async def cancel(document: Authorization, attempt: Attempt, facts: Facts) -> Outcome:
        return await client.cancel(document, _known(document, facts), attempt)

    async def inquire(document: Authorization, attempt: Attempt, facts: Facts) -> Outcome:
        return await client.inquire(document, _known(document, facts), attempt)

    async def subscribe(document: Subscription, attempt: Attempt, facts: Facts) -> SubscriptionOutcome:
        return await client.subscribe(document, attempt)

    sending, asking = pace_of(rules, Purpose.SUBMIT), pace_of(rules, Purpose.POLL)
    return (
        Jobs(
            Authorization,
            call(
                "submit",
                prepare=calling.prepare_submit,
                check=calling.may_submit,
                perform=submit,
                settle=calling.settle_submit,
                wants=_member_and_contents,
                concurrency=SUBMISSIONS,
                pace=sending,
            ),
            call(
                "update",
                prepare=calling.prepare_update,
                check=calling.may_update,
                perform=update,
                settle=calling.settle_update,
                wants=_member_and_contents,
                concurrency=RARE,
                pace=sending,
            ),
            call(
                "appeal",
                prepare=calling.prepare_appeal,
                check=calling.may_appeal,
                perform=appeal,
                settle=calling.settle_appeal,
                wants=_member_and_contents,
                concurrency=RARE,
                pace=sending,
            ),
            call(
                "cancel",
                prepare=calling.prepare_cancel,
                check=calling.may_cancel,
                perform=cancel,
                settle=calling.settle_cancel,
                wants=_member,
                concurrency=RARE,
                pace=sending,
            ),
            call(
                "poll",
                prepare=calling.prepare_poll,
                check=calling.may_poll,
                perform=inquire,
                settle=calling.settle_poll,
                wants=_member_and_payer,
                idempotent=False,
                inquiry=True,
                concurrency=POLLS,
                pace=asking,
            ),
            timer("deadline", people.deadline),
            timer("visit", lifetime.visit_near),
            timer("expiry", lifetime.near_its_end),
            timer("breach", people.clock_ended),
        ),
        Jobs(
            Subscription,
            call(
                "subscribe",
                prepare=partial(prepare_subscribe, rules),
                check=may_subscribe,
                perform=subscribe,
                settle=settle_subscribe,
                idempotent=False,
                concurrency=RARE,
            ),
        ),
    )


def pace_of(rules: RuleBook, purpose: Purpose) -> Pace:
    """How fast the share of a payer that a request belongs to may be called for a purpose.

    Half of what may come at once is kept back: calls that went out apart may arrive together.
    """

    @lru_cache(4096)
    def allowance(payer_id: str, stray: bool) -> Allowance:
        budget = rules.budget(payer_id, purpose)
        return Allowance(
            rate=budget.a_second / _STRAYS if stray else budget.a_second,
            burst=1.0 if stray else (1.0 + budget.burst) / 2,
            concurrency=1 if stray else budget.in_flight,
            failures=budget.failures,
            cool_down=budget.left_alone,
            whom=payer_id,
        )

    def pace(document: Authorization) -> tuple[str, Allowance]:
        if document.payer_id == document.opened_for:
            return document.slot_key(), allowance(document.payer_id, stray=False)
        return f"{document.payer_id} of {document.slot_key()}", allowance(document.payer_id, stray=True)

    return pace


def _member(due: Due, document: Authorization) -> Iterable[Want]:
    return (Ref(Member, document.patient_id),)


def _member_and_contents(due: Due, document: Authorization) -> Iterable[Want]:
    bytes_ = (Ref(Contents, contents_id(document.id, piece.sha256)) for piece in document.evidence if piece.held)
    return (Ref(Member, document.patient_id), *bytes_)


def _contents(document: Authorization, facts: Facts) -> dict[int, str]:
    """The bytes of what is attached, by the numbers of the attachments; those that were erased are left out."""
    found = {}
    for piece in document.evidence:
        kept = facts.get(Contents, contents_id(document.id, piece.sha256)) if piece.sequence is not None else None
        if piece.sequence is not None and kept is not None and kept.data is not None:
            found[piece.sequence] = kept.data
    return found


def _member_and_payer(due: Due, document: Authorization) -> Iterable[Want]:
    return (Ref(Member, document.patient_id), Ref(Payer, payer_key(document.payer_id)))


def _known(document: Authorization, facts: Facts) -> Member:
    """The member; ``check`` has seen to it that there is one."""
    member = facts.get(Member, document.patient_id)
    if member is None:
        raise LookupError("the member is not known")
    return member
