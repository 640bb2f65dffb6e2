"""Due work of authorizations: what is sent to payers and asked of them, and the deadline of every wait."""

from __future__ import annotations

from collections.abc import Iterable

from services.prior_authorization.model import Authorization, Member, Payer, calling, people
from services.prior_authorization.model.calling import Outcome
from services.prior_authorization.model.payer import payer_key
from services.prior_authorization.pas.client import PayerClient
from shared.kit.decisions import Due, Facts, Ref, Want
from shared.kit.document import Attempt
from shared.kit.jobs import Jobs, call, timer


def jobs(client: PayerClient) -> tuple[Jobs, ...]:
    """The job table: each call through ``client``.

    Payers deduplicate claims by Claim.identifier, so a lost answer is asked for again. A lost answer to an inquiry is
    not: the next one follows within the payer's budget.
    """

    async def submit(document: Authorization, attempt: Attempt, facts: Facts) -> Outcome:
        return await client.submit(document, _known(document, facts))

    async def appeal(document: Authorization, attempt: Attempt, facts: Facts) -> Outcome:
        return await client.appeal(document, _known(document, facts))

    async def cancel(document: Authorization, attempt: Attempt, facts: Facts) -> Outcome:
        return await client.cancel(document, _known(document, facts), attempt)

    async def inquire(document: Authorization, attempt: Attempt, facts: Facts) -> Outcome:
        return await client.inquire(document, _known(document, facts), attempt)

    return (
        Jobs(
            Authorization,
            call(
                "submit",
                prepare=calling.prepare_submit,
                check=calling.may_submit,
                perform=submit,
                settle=calling.settle_submit,
                wants=_member,
            ),
            call(
                "appeal",
                prepare=calling.prepare_appeal,
                check=calling.may_appeal,
                perform=appeal,
                settle=calling.settle_appeal,
                wants=_member,
            ),
            call(
                "cancel",
                prepare=calling.prepare_cancel,
                check=calling.may_cancel,
                perform=cancel,
                settle=calling.settle_cancel,
                wants=_member,
            ),
            call(
                "poll",
                prepare=calling.prepare_poll,
                check=calling.may_poll,
                perform=inquire,
                settle=calling.settle_poll,
                wants=_member_and_payer,
                idempotent=False,
            ),
            timer("deadline", people.deadline),
        ),
    )


def _member(due: Due, document: Authorization) -> Iterable[Want]:
    return (Ref(Member, document.patient_id),)


def _member_and_payer(due: Due, document: Authorization) -> Iterable[Want]:
    return (Ref(Member, document.patient_id), Ref(Payer, payer_key(document.payer_id)))


def _known(document: Authorization, facts: Facts) -> Member:
    """The member; ``check`` has seen to it that there is one."""
    member = facts.get(Member, document.patient_id)
    if member is None:
        raise LookupError("the member is not known")
    return member
