"""Plays cases through the public APIs of a running stack: what people do, when they can do it, and how it ended.

Nothing here shows anything; ``show`` does. ``play_all`` drives many stories by one shared clock, ``play`` one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import NAMESPACE_URL, uuid4, uuid5

from deploy.demo.api import Api, Flaw, Json, NoAnswer, Refusal
from deploy.demo.cases import Action, Case, Do, Ending, Scenario, resources
from deploy.demo.conductor import Conductor

ORDER_INTENTS = frozenset({"order", "original-order", "reflex-order", "filler-order", "instance-order"})
TERMINAL = frozenset({"closed", "rejected", "cancelled", "failed", "entered-in-error"})

LONGEST = timedelta(days=120)
"""Domain time within which a story must have come to its end."""

AT_ONCE = 8
"""Stories that ask at one time, so that the services' gates stay open."""

_SENT = frozenset({"accepted", "delivered"})


@dataclass(slots=True)
class Line:
    """One referral of a story: where it stands, and whether that is how it should end."""

    case: str
    title: str
    referral_id: str
    expected: Ending | None
    seen: Json = field(default_factory=dict)
    ended: bool = False
    faults: list[str] = field(default_factory=list)

    @property
    def state(self) -> str:
        """Its state, in the API's words."""
        return str(self.seen.get("state", "requested"))

    @property
    def reason(self) -> str | None:
        """Why it waits, or ended."""
        wait = self.seen.get("wait")
        return wait["reason"] if wait else self.seen.get("ending")

    @property
    def deadline(self) -> str | None:
        """Until when it may wait."""
        wait = self.seen.get("wait")
        return wait["deadline"] if wait else None

    @property
    def as_expected(self) -> bool:
        """Whether it ended, and as it should."""
        return self.ended and not self.faults

    def matches(self) -> bool:
        """Whether it stands where it should end. Without a scenario: terminal, or waiting with reason and deadline."""
        if self.expected is None:
            return self.state in TERMINAL or bool(self.reason and self.deadline)
        if self.state != self.expected.state or self.expected.reason not in (None, self.reason):
            return False
        return self.state in TERMINAL or bool(self.deadline)


@dataclass(frozen=True, slots=True)
class Moment:
    """One entry of a patient's timeline."""

    at: datetime
    what: str
    detail: str


class Story:
    """One case being played. ``turn`` does what can be done now; ``wish`` is when more can."""

    def __init__(self, case: Case, api: Api, run: str, now: Callable[[], datetime]) -> None:
        self.case = case
        self.lines: list[Line] = []
        self.flaws: tuple[Flaw, ...] = ()
        self.patient_id: str | None = None
        self.registration = ""
        self.done = False
        self.wish: datetime | None = None
        self._key = f"{run}-{case.name}"
        self._api = api.within(uuid5(NAMESPACE_URL, self._key).hex)
        self._now = now
        self._taken = 0
        self._begun = False

    # -- what the conductor calls ---------------------------------------------------------------------------

    async def turn(self) -> bool:
        """Do what can be done now. True where something was, so that time must not move yet."""
        if self.done:
            return False
        if not self._begun:
            self._begun = True
            await self._begin()
            return True
        await self._look()
        acted = self.case.scenario is not None and await self._act(self.case.scenario)
        if not acted:
            await self._judge()
        return acted

    def give_up(self, why: str) -> None:
        """End it as it stands: what did not come to its ending is not as expected."""
        self.done = True
        for line in self.lines:
            if not line.ended:
                line.ended = True
                line.faults.append(f"{why}, in {line.state}" + (f" ({line.reason})" if line.reason else ""))

    # -- the beginning --------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        """Register the patient and send each order, then what its specialist has already reported."""
        try:
            answer = await self._api.post("intake", "/registrations", "coordinator", f"{self._key}-reg", self.case.text)
        except Refusal as refusal:
            self.flaws = refusal.flaws or (Flaw("", refusal.title),)
            self.registration = "refused"
            self.done = True
            return
        self.patient_id = answer["id"]
        self.registration = answer["state"]
        orders = [one for one in resources(self.case.text, "ServiceRequest") if one.get("intent") in ORDER_INTENTS]
        sent = {str(order.get("id")): await self._order(order, number) for number, order in enumerate(orders)}
        if self.case.scenario is None:
            for number, task in enumerate(resources(self.case.text, "Task")):
                await self._report_task(task, sent, number)

    async def _order(self, order: Json, number: int) -> Line:
        body = {**order, "subject": {"reference": f"Patient/{self.patient_id}"}}
        scenario = self.case.scenario
        title = self.case.title if number == 0 else f"{self.case.title} ({number + 1})"
        line = Line(self.case.name, title, "", scenario.ends if scenario else None)
        self.lines.append(line)
        try:
            answer = await self._api.post(
                "referrals", "/fhir/ServiceRequest", "clinician", f"{self._key}-order-{number}", body
            )
        except Refusal as refusal:
            line.ended = True
            line.faults.append(f"the order was refused: {refusal}")
            return line
        line.referral_id = answer["id"]
        return line

    async def _report_task(self, task: Json, sent: dict[str, Line], number: int) -> None:
        """A completed Task that is based on an order of this bundle is its report."""
        orders = [str(one.get("reference")).rpartition("/")[2] for one in task.get("basedOn") or ()]
        lines = [sent[order] for order in orders if order in sent and sent[order].referral_id]
        if task.get("status") != "completed" or not lines:
            return
        body = {
            **task,
            "basedOn": [{"reference": f"ServiceRequest/{line.referral_id}"} for line in lines],
            "for": {"reference": f"Patient/{self.patient_id}"},
        }
        try:
            await self._api.post("referrals", "/fhir/Task", "clinician", f"{self._key}-task-{number}", body)
        except Refusal as refusal:
            lines[0].faults.append(f"the report was refused: {refusal}")

    # -- what people do -------------------------------------------------------------------------------------

    @property
    def line(self) -> Line:
        """The referral that people act on now: the newest."""
        return self.lines[-1]

    async def _look(self) -> None:
        for line in self.lines:
            if line.referral_id and not line.ended:
                line.seen = await self._api.get("referrals", f"/referrals/{line.referral_id}", "coordinator")

    async def _act(self, scenario: Scenario) -> bool:
        self.wish = None
        if self._taken >= len(scenario.actions) or not self.lines or self.line.ended:
            return False
        action = scenario.actions[self._taken]
        step = await self._step(action, scenario)
        if step is None:
            return False
        await step
        self._taken += 1
        return True

    async def _step(self, action: Action, scenario: Scenario) -> Awaitable[object] | None:
        """What is to be done for an action, or None while it cannot be."""
        state = self.line.state
        match action.do:
            case Do.ACCEPT if state == "awaiting-acceptance":
                return self._to_referral("accept", {"specialist_id": self.line.seen["specialist_id"]})
            case Do.REJECT if state == "awaiting-acceptance":
                return self._reject(action.reason, scenario.alternative)
            case Do.REPORT if state == "awaiting-report":
                return self._report()
            case Do.COMPLETE if state == "awaiting-patient":
                return self._complete(action.said or {})
            case Do.REBOOK if state == "awaiting-appointment":
                return self._rebook()
            case Do.ARRIVE | Do.NO_SHOW if state == "awaiting-visit":
                return self._at_visit(action.do.value, "start")
            case Do.FULFIL if state == "awaiting-visit":
                return self._at_visit(action.do.value, "end")
            case Do.REPLY if state == "awaiting-visit" and await self._sent("confirmation"):
                return self._reply(action.text or "CANCEL")
            case Do.ACCEPT_HELP:
                return await self._help(action, "offered", "accept")
            case Do.HELPED:
                return await self._help(action, "accepted", "close")
            case _:
                return None

    def _to_referral(self, what: str, body: Json) -> Awaitable[Json]:
        id = self.line.referral_id
        return self._api.post("referrals", f"/referrals/{id}/{what}", "clinician", self._step_key(), body)

    def _step_key(self) -> str:
        return f"{self._key}-step-{self._taken}"

    async def _reject(self, reason: str, expected: Ending | None) -> None:
        """Decline; people go on with the alternative."""
        rejected = self.line
        answer = await self._to_referral("reject", {"reason": reason, "specialist_id": rejected.seen["specialist_id"]})
        if expected is None:
            return
        title = f"{rejected.title}: the alternative"
        self.lines.append(Line(self.case.name, title, answer["alternative_id"], expected))
        await self._appears(answer["alternative_id"])

    async def _appears(self, referral_id: str) -> None:
        """Wait until an alternative that was announced is there."""
        for _ in range(200):
            try:
                await self._api.get("referrals", f"/referrals/{referral_id}", "coordinator")
            except Refusal:
                await self._api.pause(0.05)
            else:
                return

    def _report(self) -> Awaitable[Json]:
        """A consult note that names this referral."""
        body = {
            "resourceType": "DocumentReference",
            "status": "current",
            "docStatus": "final",
            "type": {"coding": [{"system": "http://loinc.org", "code": "11488-4"}]},
            "subject": {"reference": f"Patient/{self.patient_id}"},
            "date": self._now().isoformat(),
            "content": [{"attachment": {"contentType": "text/plain", "title": "Consult note"}}],
            "context": {"related": [{"reference": f"ServiceRequest/{self.line.referral_id}"}]},
        }
        return self._api.post("referrals", "/fhir/DocumentReference", "clinician", self._step_key(), body)

    async def _complete(self, said: Json) -> None:
        """Ask the patient for what is missing, and write it down."""
        path = f"/patients/{self.patient_id}"
        answer = await self._api.patch("intake", path, "coordinator", self._step_key(), said)
        self.registration = answer["state"]

    def _rebook(self) -> Awaitable[Json]:
        seen = self.line.seen
        body = {
            "patient_id": self.patient_id,
            "resource_id": seen["specialist_id"],
            "referral_id": self.line.referral_id,
            "latest": (seen.get("window") or {}).get("latest"),
        }
        return self._api.post("scheduling", "/appointments", "scheduler", self._step_key(), body)

    def _at_visit(self, what: str, edge: str) -> Awaitable[Json] | None:
        """Something that happens at the visit, once its time has come."""
        visit = self.line.seen.get("appointment")
        if visit is None:
            return None
        at = datetime.fromisoformat(visit[edge]).astimezone(UTC)
        if self._now() < at:
            self.wish = at
            return None
        return self._api.post("scheduling", f"/appointments/{visit['id']}/{what}", "scheduler", self._step_key(), {})

    async def _reply(self, text: str) -> None:
        """The patient answers the last message, from their own telephone."""
        patient = resources(self.case.text, "Patient")[0]
        numbers = [one["value"] for one in patient.get("telecom") or () if one.get("system") == "phone"]
        await self._api.outside("gateway", "/control/reply", {"from": numbers[0], "body": text, "channel": "sms"})

    async def _help(self, action: Action, state: str, what: str) -> Awaitable[Json] | None:
        """A community service answers, or a coordinator hears that it helped."""
        found = [one for one in await self._handoffs() if one["barrier"] == action.barrier and one["state"] == state]
        if not found:
            return None
        one = found[0]
        body = {"outcome": "helped"} if what == "close" else {"service_id": one["service_id"]}
        return self._api.post("directory", f"/handoffs/{one['id']}/{what}", "coordinator", self._step_key(), body)

    async def _handoffs(self) -> list[Json]:
        found = await self._api.get("directory", "/handoffs", "coordinator", patient_id=self.patient_id or "")
        items: list[Json] = found["items"]
        return items

    async def _deliveries(self) -> list[Json]:
        found = await self._api.get("notifications", "/deliveries", "coordinator", patient=self.patient_id or "")
        items: list[Json] = found["deliveries"]
        return items

    async def _sent(self, kind: str) -> int:
        """How many messages of a kind a gateway has taken."""
        return sum(one["kind"] == kind and one["state"] in _SENT for one in await self._deliveries())

    # -- the end --------------------------------------------------------------------------------------------

    async def _judge(self) -> None:
        """A story ends when all was done that people do in it, and each referral stands where it should."""
        scenario = self.case.scenario
        if scenario is not None and self._taken < len(scenario.actions):
            return
        if not all(line.ended or line.matches() for line in self.lines):
            return
        self.done = True
        for line in self.lines:
            line.ended = True
        if scenario is not None and self.lines:
            self.line.faults += [fault async for fault in self._faults(scenario)]

    async def _faults(self, scenario: Scenario) -> AsyncIterator[str]:
        """What else should have come of it, and did not."""
        authorization = self.line.seen.get("authorization") or {}
        if scenario.authorization not in (None, authorization.get("status")):
            yield f"the authorization is {authorization.get('status')}, not {scenario.authorization}"
        if scenario.appealed and not authorization.get("appeals"):
            yield "nobody appealed"
        if scenario.units and _units(authorization) != (scenario.units.requested, scenario.units.granted):
            yield f"units asked and granted are {_units(authorization)}"
        outcomes = {one["barrier"]: one["outcome"] for one in await self._handoffs()} if scenario.help else {}
        for barrier, outcome in scenario.help.items():
            if outcomes.get(barrier) != outcome:
                yield f"the hand-off for {barrier} ended as {outcomes.get(barrier)}, not {outcome}"
        for kind, number in scenario.messages.items():
            if (sent := await self._sent(kind)) != number:
                yield f"{sent} messages of kind {kind} were taken, not {number}"
        if scenario.language and (other := await self._other_languages(scenario.language)):
            yield f"messages went in {', '.join(sorted(other))}"

    async def _other_languages(self, language: str) -> set[str]:
        return {one["language"] for one in await self._deliveries() if one["state"] in _SENT} - {language}

    async def timeline(self) -> list[Moment]:
        """What happened, from the referrals' histories, the appointments and the messages, oldest first."""
        moments: list[Moment] = []
        for line in (line for line in self.lines if line.referral_id):
            told = await self._api.get("referrals", f"/referrals/{line.referral_id}/history", "coordinator")
            moments += [_of_history(step) for step in told["history"]]
            found = await self._api.get("scheduling", "/appointments", "scheduler", referral=line.referral_id)
            moments += [moment for visit in found["appointments"] for moment in _of_visit(visit)]
        if self.patient_id:
            moments += [moment for one in await self._deliveries() if (moment := _of_delivery(one))]
        return sorted(moments, key=lambda moment: moment.at)


def _units(authorization: Json) -> tuple[int | None, int | None]:
    return authorization.get("units_requested"), authorization.get("units_granted")


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def _of_history(step: Json) -> Moment:
    what = step["what"] if step["what"] != "moved" else step["state"]
    return Moment(_at(step["at"]), what, step.get("code") or "")


def _of_visit(visit: Json) -> Iterable[Moment]:
    for name in ("confirmed_at", "arrived_at", "start"):
        if visit.get(name):
            what = "visit" if name == "start" else f"appointment {name.removesuffix('_at')}"
            yield Moment(_at(visit[name]), what, visit["state"] if name == "start" else "")


def _of_delivery(delivery: Json) -> Moment | None:
    if delivery["state"] not in _SENT:
        return None
    detail = f"{delivery['state']}, in {delivery['language']}"
    return Moment(_at(delivery["planned_for"]), f"{delivery['kind']} by {delivery['channel']}", detail)


async def play_all(
    cases: Sequence[Case],
    api: Api,
    conductor: Conductor,
    *,
    run: str | None = None,
    told: Callable[[Sequence[Story], datetime], None] = lambda stories, now: None,
) -> list[Story]:
    """Play all cases together on one clock, to their ends. ``told`` is called with the stories after every round."""
    run = run or uuid4().hex[:12]
    stories = [Story(case, api, run, conductor.now) for case in cases]
    until = conductor.now() + LONGEST
    gate = asyncio.Semaphore(AT_ONCE)

    async def turn(story: Story) -> bool:
        async with gate:
            try:
                return await story.turn()
            except (Refusal, NoAnswer) as error:
                story.give_up(str(error))
                return False

    due = await conductor.settle()
    while True:
        acted = any(await asyncio.gather(*(turn(story) for story in stories)))
        told(stories, conductor.now())
        if all(story.done for story in stories):
            return stories
        wishes = [story.wish for story in stories if story.wish is not None and not story.done]
        if not acted and not conductor.advance(due, wishes, until):
            for story in stories:
                if not story.done:
                    story.give_up("nothing more happens")
            return stories
        due = await conductor.settle()


async def play(case: Case, api: Api, conductor: Conductor, *, run: str | None = None) -> Story:
    """Play one case to its end."""
    return (await play_all([case], api, conductor, run=run))[0]
