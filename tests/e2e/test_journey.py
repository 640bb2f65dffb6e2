"""One referral on real wires, from the clinician's request to its closing: its story, its books, its one trace."""

from __future__ import annotations

from collections.abc import Sequence

import httpx

from deploy.demo import traces
from deploy.demo.api import Api
from deploy.demo.cases import DEFAULT_FOLDER, Case, load
from deploy.demo.conductor import Conductor
from deploy.demo.player import Story, play
from deploy.demo.world import furnish
from deploy.embedded import Stack
from shared.kit.clock import OffsetClock
from tests.checks import care
from tests.e2e.evidence import PATIENCE, Books, topics

PENDED = "04-pended-then-notified"
"""It waits for the payer, and is told: the longest way through five services that ends well."""

STATES = [
    "awaiting-authorization",
    "awaiting-acceptance",
    "awaiting-appointment",
    "awaiting-visit",
    "awaiting-report",
    "closed",
]
SERVICES = {"intake", "referrals", "prior_authorization", "scheduling", "notifications"}


class ClinicsSystem:
    """Hands the trace context that the registration was answered with on to the order, as a traced caller does."""

    def __init__(self) -> None:
        self.context: str | None = None

    async def asked(self, request: httpx.Request) -> None:
        """A request goes out."""
        if self.context is not None and request.url.path == "/fhir/ServiceRequest":
            request.headers["traceparent"] = self.context

    async def answered(self, response: httpx.Response) -> None:
        """An answer came."""
        if response.request.url.path == "/registrations":
            self.context = response.headers["traceparent"]

    def client(self) -> httpx.AsyncClient:
        """The HTTP client of this system."""
        hooks = {"request": [self.asked], "response": [self.answered]}
        return httpx.AsyncClient(timeout=30, trust_env=False, event_hooks=hooks)


async def test_one_referral_from_its_request_to_its_closing_is_one_story_and_one_trace(
    stack: Stack, books: Books
) -> None:
    (case,) = [case for case in load(DEFAULT_FOLDER) if case.name == PENDED]
    clinic = ClinicsSystem()
    async with clinic.client() as http:
        api = Api(stack.addresses, stack.token, http, patience=PATIENCE)
        story = await _play(case.copy(900), api, stack)
        told = await api.get("referrals", f"/referrals/{story.line.referral_id}/history", "coordinator")
    _timeline_is_as_expected(told["history"])
    await _ledgers_agree(story, books)
    assert clinic.context is not None
    await _every_event_is_in_the_trace(stack, story.line.referral_id, clinic.context.split("-")[1])
    _spans_form_one_tree(stack, story.line.referral_id, clinic.context.split("-")[1])


async def _play(case: Case, api: Api, stack: Stack) -> Story:
    conductor = Conductor(api, OffsetClock(stack.clock_offset_file), patience=PATIENCE)
    await furnish(api, conductor.now(), "journey")
    story = await play(case, api, conductor)
    await conductor.settle()
    assert [line.faults for line in story.lines] == [[]]
    assert story.line.as_expected
    return story


def _timeline_is_as_expected(history: Sequence[dict[str, str]]) -> None:
    states = [step["state"] for step in history if "state" in step]
    passed = [state for number, state in enumerate(states) if number == 0 or states[number - 1] != state]
    assert [state for state in passed if state in STATES] == STATES, passed
    times = [step["at"] for step in history]
    assert times == sorted(times)


async def _ledgers_agree(story: Story, books: Books) -> None:
    held = await books.held()
    payer, gateway = await books.ledgers()
    care.check_care(held, payer, gateway, books.clock.now(), may_be_unknown=lambda delivery: False)
    (asked,) = [one for one in held.authorizations if one.referral_id == story.line.referral_id]
    (entry,) = [entry for entry in payer.authorizations if entry.id == asked.claim_id]
    assert [ruling.action.value for ruling in entry.history] == ["A4", "A1"]
    assert [notified.accepted for notified in entry.notifications] == [True]
    sent = [one.id for one in held.deliveries if one.patient_id == story.patient_id and gateway.references[one.id]]
    assert len(sent) >= 2, "a confirmation and a reminder at least"


async def _every_event_is_in_the_trace(stack: Stack, referral_id: str, trace: str) -> None:
    records = (await topics(stack))["referrals.events"]
    ours = [record for record in records if record.published.subject == referral_id]
    assert ours[0].type == "referral.requested.v1"
    assert ours[-1].type == "referral.closed.v1"
    assert {record.type: record.trace_id for record in ours} == {record.type: trace for record in ours}


def _spans_form_one_tree(stack: Stack, referral_id: str, trace: str) -> None:
    spans = [span for span in traces.read(stack.traces) if span.trace == trace]
    assert set(traces.services(spans)) >= SERVICES
    known = {span.id for span in spans}
    orphans = [(span.service, span.name) for span in spans if span.parent is not None and span.parent not in known]
    assert not orphans
    assert [span.name for span in spans if span.parent is None] == ["POST /registrations"]
    of_the_referral = {span.name for span in spans if referral_id in span.attributes.values()}
    assert any(name.startswith("decide ") for name in of_the_referral), of_the_referral
    assert len(known) == len(spans)
