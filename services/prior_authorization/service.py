"""Wires prior authorization together, and says what its processes are run as."""

from __future__ import annotations

from pathlib import Path

import httpx
from pydantic import Field, SecretStr

from services.prior_authorization.api import routes
from services.prior_authorization.fhir import Asker
from services.prior_authorization.jobs import jobs
from services.prior_authorization.model import Authorization, Contents, Member, Payer, RuleBook
from services.prior_authorization.model.refused import BadInput
from services.prior_authorization.model.rules import RulesError
from services.prior_authorization.model.subscription import Subscription
from services.prior_authorization.model.visits import ReferralVisits
from services.prior_authorization.pas.client import PayerClient
from services.prior_authorization.pas.requests import Requestor
from services.prior_authorization.pas.subscriptions import Listener, Secrets
from services.prior_authorization.reactions import reactions
from shared.kit.document import queue_key
from shared.kit.pausing import Pausable
from shared.kit.service import Part, Service
from shared.kit.settings import KitSettings

SHIPPED_RULES = Path(__file__).with_name("rules.toml")


class Settings(KitSettings):
    """What prior authorization needs beside the kit's settings."""

    payer_url: str = Field("http://127.0.0.1:8090", description="payers are at {payer_url}/{payer_id}/fhir")
    prior_authorization_rules: Path = Field(SHIPPED_RULES, description="the rules file, TOML")
    notify_url: str | None = Field(
        None, description="where payers notify us, with {payer_id} in it; none: no subscription is registered"
    )
    payer_notifier: str = Field(
        "payer-simulator",
        min_length=1,
        description="the subject of tokens that may notify for any payer; a payer's own is payer:{payer_id}",
    )
    notify_secret_key: SecretStr | None = Field(
        None, description="keys the secrets of subscriptions; the same in every process, kept secret"
    )
    requestor_name: str = Field("CareRelay Coordination", description="the organization that asks payers")
    requestor_npi: str = Field("1234567893", pattern=r"^\d{10}$", description="its National Provider Identifier")


def rules_of(settings: Settings) -> RuleBook:
    """The rules that the settings name. Raises RulesError where they cannot be used, OSError where they are missing."""
    return RuleBook.parse(settings.prior_authorization_rules.read_text(encoding="utf-8"))


def secrets_of(settings: Settings, rules: RuleBook) -> Secrets:
    """The secrets of subscriptions. Raises RulesError where a payer is to send one and no key is set."""
    key = settings.notify_secret_key
    if key is None and rules.has_secrets:
        raise RulesError("a payer's row says notify_secret, and NOTIFY_SECRET_KEY is not set")
    return Secrets(key.get_secret_value().encode() if key is not None else b"", rules.has_secret)


DOCUMENTS = (Authorization, BadInput, Contents, Member, Payer, ReferralVisits, Subscription)

ROLES = {
    "submitter": Part(queues=frozenset(document.collection for document in DOCUMENTS)),
    "poller": Part(queues=frozenset({queue_key(Authorization.collection, Authorization.queues["poll"])})),
}
"""What the due work's processes are run as, each scaled by itself: who sends to payers, and who asks them."""


PAYERS = Pausable("payer", of={Authorization: lambda each: each.payer_id, Subscription: lambda each: each.payer_id})
"""Whom operators may pause: a payer, by its id, for everything that is sent to it or asked of it here."""


def build(settings: Settings, http: httpx.AsyncClient) -> Service:
    """Prior authorization's documents, reactions, jobs and routes; payers are called through ``http``."""
    requestor = Requestor(settings.requestor_name, settings.requestor_npi)
    rules = rules_of(settings)
    secrets = secrets_of(settings, rules)
    listener = None if settings.notify_url is None else Listener(settings.notify_url, settings.requestor_npi, secrets)
    client = PayerClient(http, settings.payer_url, requestor, listener)
    asker = Asker(settings.requestor_npi, settings.payer_url)
    return Service(
        name="prior_authorization",
        documents=DOCUMENTS,
        reactions=reactions(rules),
        jobs=jobs(client, rules),
        routes=routes(rules, settings.payer_notifier, asker, secrets),
        roles=ROLES,
        pausable=(PAYERS,),
    )
