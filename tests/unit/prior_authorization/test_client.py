"""The client tells honestly what came of a call: answered, refused, rejected, unreadable, or nobody knows."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx
import pytest

from deploy.simulators import payer
from deploy.simulators.payer import InquiryAnswer
from services.prior_authorization.model import Authorization, calling
from services.prior_authorization.model.answers import Answered, Rejected, Unreadable
from services.prior_authorization.pas.client import PayerClient
from services.prior_authorization.pas.requests import Requestor
from shared.contracts.prior_authorization import ReviewAction
from shared.kit.decisions import Refused, Unanswered
from shared.kit.document import Attempt
from tests.unit.prior_authorization.cases import A3, A4, NOW, PAYER_ID, answered, due, facts, member, sent

ATTEMPT = Attempt(id="00000000-0000-4000-8000-000000000001", number=1, since=NOW)


def client_of(transport: httpx.AsyncBaseTransport) -> PayerClient:
    http = httpx.AsyncClient(transport=transport)
    return PayerClient(http, "http://payer.test", Requestor("CareRelay Coordination", "1234567893"))


def simulated(inquiry: InquiryAnswer = InquiryAnswer.BUNDLE) -> PayerClient:
    app = payer.app(now=lambda: NOW, http=httpx.AsyncClient(), inquiry=inquiry)
    return client_of(httpx.ASGITransport(app=app))


def answering(answer: Callable[[httpx.Request], httpx.Response]) -> PayerClient:
    return client_of(httpx.MockTransport(answer))


def action(outcome: object) -> ReviewAction | None:
    assert isinstance(outcome, Answered)
    assert outcome.answer is not None
    return outcome.answer.items[0].action


async def test_a_request_is_answered_and_answers_the_same_claim() -> None:
    document = sent()
    outcome = await simulated().submit(document, member())
    assert action(outcome) is ReviewAction.CERTIFIED
    assert isinstance(outcome, Answered)
    assert outcome.answer is not None
    assert document.claim_id in outcome.answer.claims


async def test_an_appeal_is_answered_for_itself() -> None:
    speaker, denied = simulated(), member(member_id="SBX-DENY-OVERTURN-1")
    document = sent()
    assert action(await speaker.submit(document, denied)) is ReviewAction.NOT_CERTIFIED
    document = calling.prepare_appeal(answered(document, A3), due("appeal"), facts(denied), NOW)
    assert action(await speaker.appeal(document, denied)) is ReviewAction.CERTIFIED


@pytest.mark.parametrize("inquiry", list(InquiryAnswer))
async def test_an_inquiry_is_answered_in_either_wrapping_or_finds_nothing(inquiry: InquiryAnswer) -> None:
    speaker, document = simulated(inquiry), answered(sent(), A4)
    assert await speaker.inquire(document, member(), ATTEMPT) == Answered(None)
    await speaker.submit(document, member())
    assert action(await speaker.inquire(document, member(), ATTEMPT)) is ReviewAction.CERTIFIED


async def test_a_cancellation_of_what_the_payer_never_had_is_rejected_as_unknown() -> None:
    document = answered(sent(), A4)
    document.cancel_id = ATTEMPT.id
    outcome = await simulated().cancel(document, member(), ATTEMPT)
    assert isinstance(outcome, Rejected)
    assert outcome.unknown_claim


async def test_a_payer_that_nobody_knows_is_no_unknown_claim() -> None:
    document = sent()
    document.payer_id = "unknown-payer"
    outcome = await simulated().submit(document, member())
    assert isinstance(outcome, Rejected)
    assert not outcome.unknown_claim


async def test_every_attempt_carries_the_claims_identifier_as_its_key() -> None:
    seen: list[httpx.Request] = []

    def busy(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(429, headers={"Retry-After": "7"})

    document: Authorization = sent()
    assert await answering(busy).submit(document, member()) == Refused("status-429", 7.0)
    assert seen[0].headers["Idempotency-Key"] == document.claim_id
    assert seen[0].url.path == f"/{PAYER_ID}/fhir/Claim/$submit"
    assert "SBX" not in str(seen[0].url)


def _broken(_: httpx.Request) -> httpx.Response:
    raise httpx.ReadTimeout("slow")


def _closed(_: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("closed")


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (_broken, Unanswered("ReadTimeout")),
        (_closed, Refused("ConnectError")),
        (lambda _: httpx.Response(502), Unanswered("status-502")),
        (lambda _: httpx.Response(200, content=b"<html>"), Unreadable("not-json")),
        (lambda _: httpx.Response(200, content=b"x" * (1024 * 1024 + 1)), Unreadable("oversized")),
        (lambda _: httpx.Response(302), Unreadable("status-302")),
        (lambda _: httpx.Response(200, json={"resourceType": "Bundle"}), Unreadable("malformed", "Bundle.type")),
        (lambda _: httpx.Response(401, json={}), Rejected("status-401")),
        (lambda _: httpx.Response(422, json={"issue": [{"code": "Tess Canaria"}]}), Rejected("status-422")),
        (lambda _: httpx.Response(422, json={"issue": [{"code": "required"}]}), Rejected("status-422-required")),
    ],
)
async def test_whatever_a_payer_does_has_its_outcome(
    reply: Callable[[httpx.Request], httpx.Response], outcome: object
) -> None:
    assert await answering(reply).submit(sent(), member()) == outcome


@pytest.mark.parametrize("wrapped", ["Bundle", "Parameters", "bare"])
async def test_a_refusal_in_an_inquirys_answer_is_not_taken_for_a_claim_that_the_payer_does_not_have(
    wrapped: str,
) -> None:
    issue: dict[str, object] = {
        "resourceType": "OperationOutcome",
        "issue": [{"severity": "error", "code": "throttled"}],
    }
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": issue}]}
    found = {
        "bare": issue,
        "Bundle": bundle,
        "Parameters": {"resourceType": "Parameters", "parameter": [{"name": "return", "resource": bundle}]},
    }
    reply = httpx.Response(200, json=found[wrapped])
    document = answered(sent(), A4)
    outcome = await answering(lambda _: reply).inquire(document, member(), ATTEMPT)
    assert isinstance(outcome, Unreadable)
    document = calling.prepare_poll(document, due("poll"), facts(member()), NOW)
    document = calling.settle_poll(document, outcome, facts(member()), NOW)
    assert [trouble.reason for trouble in document.troubles] == ["malformed"]


async def test_a_payer_id_stays_one_part_of_the_path() -> None:
    seen: list[str] = []

    def note(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.raw_path.decode())
        return httpx.Response(404, content=json.dumps({}).encode())

    document = sent()
    document.payer_id = "a/../b?c"
    await answering(note).submit(document, member())
    assert seen == ["/a%2F..%2Fb%3Fc/fhir/Claim/$submit"]
