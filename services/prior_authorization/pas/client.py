"""The client of payers' PAS endpoints: ``{base}/{payer_id}/fhir/Claim/$submit`` and ``Claim/$inquire``.

What comes back is one of the outcomes that ``model.calling`` settles. A payer's text goes no further than this module:
outcomes carry codes alone.
"""

from __future__ import annotations

import json
import re
from urllib.parse import quote

import httpx

from services.prior_authorization.model.answers import NOT_FOUND, Answered, Rejected, Unreadable
from services.prior_authorization.model.authorization import Authorization, Submission
from services.prior_authorization.model.calling import Outcome
from services.prior_authorization.model.member import Member
from services.prior_authorization.model.subscription import Outcome as SubscriptionOutcome
from services.prior_authorization.model.subscription import Subscribed, Subscription
from services.prior_authorization.pas import reading, requests
from services.prior_authorization.pas.requests import NOTHING, Contents, Requestor, Resource
from services.prior_authorization.pas.subscriptions import Listener, subscription
from shared.kit.decisions import Refused, Unanswered
from shared.kit.document import Attempt
from shared.kit.errors import Invalid
from shared.kit.outside import ask

ANSWER_WITHIN = 15.0
"""Seconds in which a payer answers $submit, or pends (PAS 2.2.1)."""

MAX_ANSWER_BYTES = 1024 * 1024

_HEADERS = {"Content-Type": "application/fhir+json", "Accept": "application/fhir+json"}
_ID = re.compile(r"[A-Za-z0-9.-]{1,64}")
_ISSUE_CODE = re.compile(r"[a-z-]{1,40}")


class PayerClient:
    """Speaks to payers. ``base`` is where they are reached; ``requestor`` is who asks."""

    def __init__(
        self, http: httpx.AsyncClient, base: str, requestor: Requestor, listener: Listener | None = None
    ) -> None:
        self._http = http
        self._listener = listener
        self._base = base.rstrip("/")
        self._requestor = requestor

    async def submit(self, document: Authorization, member: Member, contents: Contents = NOTHING) -> Outcome:
        """Send the newest claim, which is the request itself."""
        newest = _sent(document)
        bundle = requests.initial_request(document, member, newest, self._requestor, contents)
        return await self._send(document, bundle, newest.id)

    async def update(self, document: Authorization, member: Member, contents: Contents = NOTHING) -> Outcome:
        """Send the update that waits."""
        if document.update is None:
            raise ValueError("there is no update")
        bundle = requests.update_request(document, member, document.update, self._requestor, contents)
        return await self._send(document, bundle, document.update.id)

    async def appeal(self, document: Authorization, member: Member, contents: Contents = NOTHING) -> Outcome:
        """Send the newest claim, which is an appeal."""
        newest = _sent(document)
        bundle = requests.appeal_request(document, member, newest, self._requestor, contents)
        return await self._send(document, bundle, newest.id)

    async def cancel(self, document: Authorization, member: Member, attempt: Attempt) -> Outcome:
        """Withdraw the claim that is granted, or the newest."""
        opened_at = document.cancel_opened_at or attempt.since
        bundle = requests.cancel_request(document, member, self._requestor, opened_at)
        return await self._send(document, bundle, document.cancel_id or attempt.id)

    async def subscribe(self, document: Subscription, attempt: Attempt) -> SubscriptionOutcome:
        """Register our subscription, or renew the one that the payer has."""
        if self._listener is None or document.until is None:
            return Rejected("no-address")
        resource = subscription(self._listener, document.payer_id, document.until, document.reference)
        url = f"{self._base}/{quote(document.payer_id, safe='')}/fhir/Subscription"
        method, headers = "POST", {**_HEADERS, "If-None-Exist": f"url={self._listener.endpoint(document.payer_id)}"}
        if document.reference is not None:
            url, method, headers = f"{url}/{quote(document.reference, safe='')}", "PUT", _HEADERS
        content = json.dumps(resource).encode()
        answered = await ask(
            self._http, method, url, attempt=attempt.id, timeout=ANSWER_WITHIN, content=content, headers=headers
        )
        if not isinstance(answered, httpx.Response):
            return answered
        raw = _read(answered)
        if isinstance(raw, Unreadable | Rejected):
            return raw
        reference = raw.get("id") if isinstance(raw, dict) else None
        if not isinstance(reference, str) or not _ID.fullmatch(reference):
            return Unreadable("malformed", "Subscription.id")
        return Subscribed(reference)

    async def inquire(self, document: Authorization, member: Member, attempt: Attempt) -> Outcome:
        """Ask what became of the newest claim."""
        newest = _sent(document)
        bundle = requests.inquiry(document, member, self._requestor, attempt.since)
        answered = await self._post(document, "$inquire", bundle, attempt.id)
        if not isinstance(answered, httpx.Response):
            return answered
        raw = _read(answered)
        if isinstance(raw, Unreadable | Rejected):
            return raw
        try:
            found = reading.read_inquiry(raw)
        except Invalid as refusal:
            return _unreadable(refusal)
        return Answered(next((answer for answer in found if newest.id in answer.claims), next(iter(found), None)))

    async def _send(self, document: Authorization, bundle: Resource, key: str) -> Outcome:
        answered = await self._post(document, "$submit", bundle, key)
        if not isinstance(answered, httpx.Response):
            return answered
        raw = _read(answered)
        if isinstance(raw, Unreadable | Rejected):
            return raw
        try:
            return Answered(reading.read_response(raw))
        except Invalid as refusal:
            return _unreadable(refusal)

    async def _post(
        self, document: Authorization, operation: str, bundle: Resource, key: str
    ) -> httpx.Response | Refused | Unanswered:
        url = f"{self._base}/{quote(document.payer_id, safe='')}/fhir/Claim/{operation}"
        content = json.dumps(bundle).encode()
        return await ask(self._http, "POST", url, attempt=key, timeout=ANSWER_WITHIN, content=content, headers=_HEADERS)


def _sent(document: Authorization) -> Submission:
    newest = document.newest
    if newest is None:
        raise ValueError("there is no claim")
    return newest


def _read(response: httpx.Response) -> object:
    """The JSON of a 2xx answer, Rejected for a 4xx with the first issue's code, Unreadable for anything else."""
    if response.status_code >= 400:
        return Rejected(_rejection(response))
    if response.status_code >= 300:
        return Unreadable(f"status-{response.status_code}")
    if len(response.content) > MAX_ANSWER_BYTES:
        return Unreadable("oversized")
    try:
        return response.json()
    except ValueError:
        return Unreadable("not-json")


def _rejection(response: httpx.Response) -> str:
    """A code for why the payer will not take it: the OperationOutcome's issue type, else the status."""
    code = f"status-{response.status_code}"
    try:
        raw = response.json()
        issue = raw["issue"][0]["code"]
    except (ValueError, LookupError, TypeError):
        return code
    if issue == "not-found":
        # 404 says that there is no such payer or operation; 422 that there is no such claim (PAS has no code for it).
        return NOT_FOUND if response.status_code == httpx.codes.UNPROCESSABLE_ENTITY else code
    return f"{code}-{issue}" if isinstance(issue, str) and _ISSUE_CODE.fullmatch(issue) else code


def _unreadable(refusal: Invalid) -> Unreadable:
    return Unreadable("malformed", refusal.flaws[0].path if refusal.flaws else None)
