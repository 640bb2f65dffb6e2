"""Wires notifications together, and says what its processes are run as."""

from __future__ import annotations

from datetime import time, timedelta
from typing import Annotated

import httpx
from pydantic import AfterValidator, Field, SecretStr

from services.notifications.api import routes
from services.notifications.jobs import jobs, role_of, senders
from services.notifications.mail import Mail
from services.notifications.model.delivery import DUE, Delivery
from services.notifications.model.policy import Policy
from services.notifications.model.recipient import Recipient
from services.notifications.model.stray import Stray
from services.notifications.model.visit import Visit
from services.notifications.reactions import reactions
from services.notifications.sender import Outside
from services.notifications.templates import CLINIC_SEPTETS, PHONE_SEPTETS, Sender, septets, to_gsm7
from shared.contracts.intake import Channel
from shared.contracts.notifications import (
    DeliveryAccepted,
    DeliveryDelivered,
    DeliveryDropped,
    DeliveryEscalated,
    DeliveryEvent,
    DeliveryFailed,
    DeliveryUnknown,
)
from shared.kit import metrics
from shared.kit.metrics import Attributes, Counted
from shared.kit.pausing import Pausable
from shared.kit.service import Part, Service
from shared.kit.settings import KitSettings


def _fits(limit: int) -> AfterValidator:
    def check(text: str) -> str:
        if septets(to_gsm7(text)) > limit:
            raise ValueError(f"takes more than {limit} of the 160 septets of a text")
        return text

    return AfterValidator(check)


class Settings(KitSettings):
    """What notifications needs beside the kit's settings; environment variables named as the fields in capitals."""

    gateway_url: str = "http://127.0.0.1:8090"
    public_url: str = Field("http://127.0.0.1:8000", description="where the gateway reaches this service")
    gateway_number: str = Field("+15550100100", description="the number that texts and calls come from")
    deduplicating_channels: frozenset[Channel] = Field(
        frozenset({Channel.SMS, Channel.VOICE, Channel.LETTER}),
        description="channels whose gateway takes a message once per Idempotency-Key; e-mail never does",
    )
    smtp_host: str = "127.0.0.1"
    smtp_port: int = Field(25, ge=1, le=65535)
    smtp_start_tls: bool | None = Field(None, description="true insists, false forbids, absent: where it is offered")
    smtp_user: str | None = None
    smtp_password: SecretStr | None = None
    mail_sender: str = "no-reply@carerelay.example"
    clinic_name: Annotated[str, _fits(CLINIC_SEPTETS)] = "CareRelay Clinic"
    clinic_phone: Annotated[str, _fits(PHONE_SEPTETS)] = "555-010-0100"
    number_hash_key: SecretStr = Field(
        SecretStr("development only"), description="keys the hashes of numbers; the same in every process, kept secret"
    )
    reminders: tuple[timedelta, ...] = (timedelta(days=7), timedelta(days=2), timedelta(hours=3))
    window_opens: time = time(8)
    window_closes: time = time(21)
    window_spread: timedelta = timedelta(minutes=45)
    texts_a_day: int = Field(1, ge=1)
    texts_a_week: int = Field(3, ge=1)
    letter_takes: timedelta = timedelta(days=3)
    recipient_within: timedelta = Field(timedelta(hours=24), description="how long a recipient may be unheard of")
    sends_at_once: int = Field(64, ge=1, description="messages in flight of one sender process")
    sends_per_second: float = Field(
        200.0,
        ge=0,
        description="messages a second that one sender begins at most, as after an outage; 0: no limit",
    )
    unknown_within: timedelta = Field(timedelta(hours=24), description="how soon somebody looks into a lost answer")


def policy_of(settings: Settings) -> Policy:
    """The policy that these settings make."""
    return Policy(
        reminders=settings.reminders,
        opens=settings.window_opens,
        closes=settings.window_closes,
        spread=settings.window_spread,
        a_day=settings.texts_a_day,
        a_week=settings.texts_a_week,
        letter_takes=settings.letter_takes,
        deduplicating=settings.deduplicating_channels - {Channel.EMAIL},
        recipient_within=settings.recipient_within,
        unknown_within=settings.unknown_within,
        number_key=settings.number_hash_key.get_secret_value().encode(),
    )


def outside_of(settings: Settings, http: httpx.AsyncClient) -> Outside:
    """The gateway and the mail server that these settings name."""
    password = settings.smtp_password
    return Outside(
        http=http,
        gateway_url=settings.gateway_url.rstrip("/"),
        callback_url=f"{settings.public_url.rstrip('/')}/callbacks/status",
        number=settings.gateway_number,
        speaker=Sender(settings.clinic_name, settings.clinic_phone),
        mail=Mail(
            host=settings.smtp_host,
            port=settings.smtp_port,
            sender=settings.mail_sender,
            start_tls=settings.smtp_start_tls,
            user=settings.smtp_user,
            password=None if password is None else password.get_secret_value(),
        ),
    )


OUTCOMES: dict[type[DeliveryEvent], str] = {
    DeliveryAccepted: "accepted",
    DeliveryDelivered: "delivered",
    DeliveryFailed: "failed",
    DeliveryDropped: "dropped",
    DeliveryUnknown: "unknown",
    DeliveryEscalated: "escalated",
}


def counted(event: type[DeliveryEvent], outcome: str) -> Counted:
    """How often messages come to an outcome, by channel: none where none was chosen yet."""

    def about(told: DeliveryEvent) -> Attributes:
        return {metrics.OUTCOME: outcome, metrics.CHANNEL: told.channel.value if told.channel else "none"}

    return Counted(event, metrics.DELIVERIES, about)


ROLES = {
    "planner": Part(reactions=frozenset({Visit.collection, Recipient.collection, Delivery.collection})),
    "dispatcher": Part(queues=frozenset(kind.collection for kind in (Visit, Recipient, Delivery, Stray))),
    **{role_of(channel): Part(performing=frozenset({role_of(channel)})) for channel in DUE},
}
"""What the reminder path's processes are run as, each scaled by itself."""


CHANNELS = Pausable(
    "channel",
    of={
        Delivery: lambda each: each.channel,
        Recipient: lambda _: Channel.SMS.value,
    },  # a STOP or HELP is answered by text
    performing={role_of(channel): channel.value for channel in DUE},
    names=frozenset(channel.value for channel in DUE),
)
"""Whom operators may pause: a channel. What is due is still handed to its senders, and waits on their topic."""


def build(settings: Settings, http: httpx.AsyncClient) -> Service:
    """Notifications' documents, reactions, jobs and routes."""
    policy = policy_of(settings)
    outside = outside_of(settings, http)
    rate = settings.sends_per_second or None
    return Service(
        name="notifications",
        documents=(Visit, Recipient, Delivery, Stray),
        reactions=reactions(policy),
        jobs=jobs(policy, outside),
        routes=routes(policy),
        performing=senders(policy, outside, concurrency=settings.sends_at_once, rate=rate),
        roles=ROLES,
        counts=tuple(counted(event, outcome) for event, outcome in OUTCOMES.items()),
        pausable=(CHANNELS,),
    )
