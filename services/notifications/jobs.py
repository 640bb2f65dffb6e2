"""What notifications does when time comes: sends what is due, answers a STOP or a HELP, and tells of waits too long."""

from __future__ import annotations

from functools import partial

from services.notifications.model import delivery, recipient
from services.notifications.model.delivery import SEND, Delivery
from services.notifications.model.policy import Policy
from services.notifications.model.recipient import ANSWER, Recipient
from services.notifications.sender import Outside
from shared.kit.jobs import Jobs, call, timer


def jobs(policy: Policy, outside: Outside) -> tuple[Jobs, ...]:
    """The tables, by this policy.

    The kit is told that no call is idempotent, so that a lost answer comes back to ``settle``: there it is known
    which channel it was, whether that one deduplicates, and whether the message is still of use.
    """
    return (
        Jobs(
            Delivery,
            call(
                SEND,
                prepare=partial(delivery.prepare, policy),
                check=partial(delivery.check, policy),
                perform=outside.send,
                settle=partial(delivery.settle, policy),
                wants=delivery.wants_all,
                idempotent=False,
            ),
            timer("deadline", delivery.escalate),
        ),
        Jobs(
            Recipient,
            call(
                ANSWER,
                prepare=recipient.prepare_answer,
                check=recipient.check_answer,
                perform=outside.answer,
                settle=partial(recipient.settle_answer, policy),
                idempotent=False,
            ),
        ),
    )
