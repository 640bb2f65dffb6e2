"""One referral on real wires, from the clinician's request to its closing: its story, its books, its one trace."""

from __future__ import annotations

from collections.abc import Sequence

from deploy.demo import traces
from deploy.demo.cases import DEFAULT_FOLDER, load
from deploy.demo.player import Story, play
from deploy.embedded import Stack
from tests.checks import care
from tests.e2e.evidence import Books, furnish_anew, outside, topics
from tests.integration.chair import Carectl

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


async def test_one_referral_from_its_request_to_its_closing_is_one_story_and_one_trace(
    stack: Stack, books: Books
) -> None:
    (case,) = [case for case in load(DEFAULT_FOLDER) if case.name == PENDED]
    async with outside(stack) as (api, conductor):
        await furnish_anew(stack, api, conductor, "journey")
        story = await play(case.copy(900), api, conductor)
        await conductor.settle()
        told = await api.get("referrals", f"/referrals/{story.line.referral_id}/history", "coordinator")
    assert [line.faults for line in story.lines] == [[]]
    assert story.line.as_expected
    _timeline_is_as_expected(told["history"])
    await _ledgers_agree(story, books)
    trace = await _trace_of_every_event(stack, story.line.referral_id)
    _spans_form_one_tree(stack, story.line.referral_id, trace)
    await _an_operator_sees_it(stack, story, trace)


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


async def _trace_of_every_event(stack: Stack, referral_id: str) -> str:
    """The one trace in which the referral told everything, from request to closing."""
    records = (await topics(stack))["referrals.events"]
    ours = [record for record in records if record.published.subject == referral_id]
    assert ours[0].type == "referral.requested.v1"
    assert ours[-1].type == "referral.closed.v1"
    trace = ours[0].trace_id
    assert trace is not None
    assert {record.type: record.trace_id for record in ours} == {record.type: trace for record in ours}
    return trace


def _spans_form_one_tree(stack: Stack, referral_id: str, trace: str) -> None:
    spans = [span for span in traces.read(stack.traces) if span.trace == trace]
    known = {span.id: span for span in spans}
    assert len(known) == len(spans)
    asked = [span for span in spans if span.parent not in known]
    assert len({span.parent for span in asked}) == 1, "every span hangs under the one that the clinic's system began"
    assert {span.name.partition(" ")[0] for span in asked} <= {"GET", "POST"}, "only requests come from outside"
    referral = [span for span in spans if referral_id in span.attributes.values()]
    assert set(traces.services(referral)) >= SERVICES - {"intake"}
    assert set(traces.services(spans)) >= SERVICES


async def _an_operator_sees_it(stack: Stack, story: Story, trace: str) -> None:
    """carectl, which finds the stack by its folder, shows the same trace whole, and the story over all services."""
    carectl = Carectl({"CARECTL_STACK": str(stack.folder)})
    shown = await carectl.told("trace", story.line.referral_id)
    assert shown["trace_id"] == trace
    spans = [span for span in traces.read(stack.traces) if span.trace == trace]
    assert shown["spans"] == len(spans) == sum(episode["count"] for episode in shown["episodes"])
    assert {span["service"] for episode in shown["episodes"] for span in episode["spans"]} >= SERVICES
    told = await carectl.told("story", story.patient_id or "")
    assert told["complete"]
    assert {each["service"] for each in told["documents"]} >= SERVICES
    happened = [event["type"] for event in told["events"]]
    assert happened[0] == "patient.registered.v1"
    assert [type for type in happened if type.startswith("referral.")][-1] == "referral.closed.v1"
    for words in (("story", story.patient_id or ""), ("trace", story.line.referral_id)):
        status, said = await carectl(*words)
        assert status == 0, said
        assert "referral" in said
