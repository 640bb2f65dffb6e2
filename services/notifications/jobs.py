"""What notifications does when time comes: has sent what is due, answers a STOP or a HELP, tells of waits too long."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from services.notifications.model import delivery, recipient
from services.notifications.model.delivery import DUE, SEND, Delivery
from services.notifications.model.policy import Policy
from services.notifications.model.recipient import ANSWER, Recipient
from services.notifications.sender import Outside
from shared.contracts.intake import Channel
from shared.contracts.notifications import DeliveryDue
from shared.kit.jobs import Jobs, call, dispatch, timer
from shared.kit.performing import Performing


def jobs(policy: Policy, outside: Outside) -> tuple[Jobs, ...]:
    """The tables of the dispatcher, by this policy.

    The kit is told that an answer is not idempotent, so that a lost one comes back to ``settle``: there it is known
    whether the gateway deduplicates, and whether the answer is still of use.
    """
    return (
        Jobs(
            Delivery,
            dispatch(SEND, prepare=partial(delivery.prepare, policy), tell=delivery.tell, wants=delivery.wants_all),
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


def senders(
    policy: Policy, outside: Outside, *, concurrency: int = 64, rate: float | None = None
) -> tuple[Performing, ...]:
    """The senders, one a channel, by this policy; see ``Performing`` for ``concurrency`` and ``rate``."""
    return tuple(_sender(policy, outside, channel, concurrency, rate) for channel in DUE)


def role_of(channel: Channel) -> str:
    """What a channel's senders are run as: ``sender-sms``."""
    return f"sender-{channel.value}"


def _sender(policy: Policy, outside: Outside, channel: Channel, concurrency: int, rate: float | None) -> Performing:
    deduplicates: Callable[[Delivery], bool] = lambda document: document.channel in policy.deduplicating  # noqa: E731
    return Performing(
        role=role_of(channel),
        event=DUE[channel],
        document=Delivery,
        name=SEND,
        of=_meant,
        check=partial(delivery.check, policy),
        perform=outside.send,
        settle=partial(delivery.settle, policy),
        late=delivery.late,
        wants=delivery.wants_all,
        deduplicates=deduplicates,
        concurrency=concurrency,
        rate=rate,
    )


def _meant(event: DeliveryDue) -> tuple[str, str]:
    return event.delivery_id, event.attempt_id
