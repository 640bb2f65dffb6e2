"""The six services to walk through: what people, payers, gateways and other services may do to each."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from deploy.simulators.adjudication import Script
from deploy.simulators.gateway import Fate, ScriptOrder
from services.directory import service as directory
from services.directory.model.handoff import HandOff, handoff_id
from services.notifications.model.delivery import Delivery
from services.prior_authorization.model import authorization_id
from services.referrals import service as referrals
from services.scheduling import service as scheduling
from services.scheduling.model.appointment import Appointment, AppointmentState
from services.scheduling.model.calendar import Calendar
from shared.contracts.base import Event
from shared.contracts.directory import HandOffAccepted, HandOffClosed, HandOffOutcome
from shared.contracts.intake import (
    Barrier,
    BarrierRecorded,
    Channel,
    CoverageLapsed,
    CoverageUnverifiable,
    CoverageVerified,
    PatientCompleted,
    PatientIncomplete,
    PatientRegistered,
)
from shared.contracts.notifications import ChannelRevoked, ReplyIntent, ReplyReceived
from shared.contracts.prior_authorization import ReviewAction
from shared.contracts.referrals import (
    ReferralCancelled,
    ReferralClosed,
    ReferralFailed,
    ReferralRejected,
)
from shared.contracts.scheduling import (
    AppointmentArrived,
    AppointmentCancelled,
    AppointmentFulfilled,
    AppointmentNoShow,
    CancelledBy,
)
from shared.kit.auth import Role
from shared.kit.document import derived_id
from shared.kit.testing.harness import Harness
from tests.simulation.walking import Act, Walk
from tests.unit.directory import cases as community
from tests.unit.intake.test_api import WHOLE
from tests.unit.intake.test_api import World as IntakeWorld
from tests.unit.notifications import cases as messages
from tests.unit.notifications.world import World as NotificationsWorld
from tests.unit.prior_authorization import cases as claims
from tests.unit.prior_authorization.test_api import notice
from tests.unit.prior_authorization.test_reading import review
from tests.unit.prior_authorization.world import World as AuthorizationWorld
from tests.unit.referrals import cases as orders
from tests.unit.referrals.test_fhir import service_request
from tests.unit.referrals.test_walks import EVENTS
from tests.unit.scheduling import world as days

# -- intake -------------------------------------------------------------------------------------------------------


class IntakeWalk(Walk):
    """A registration, beside a payer."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.harness = IntakeWorld().harness
        self.patient = ""

    def usual(self) -> Sequence[Act]:
        return (partial(self.register, {**WHOLE, "language": None}), partial(self.correct, language="es"))

    def surprises(self) -> Sequence[Act]:
        return (
            partial(self.register, WHOLE),
            partial(self.correct, language=None),
            partial(self.correct, coverage={"payer_id": "acme", "member_id": "SBX-LAPSED-1"}),
            self.enter_in_error,
            self.revoke,
            self.pass_hours(24 * 15),
        )

    async def register(self, body: dict[str, Any]) -> None:
        if not self.patient:
            answer = await self.ask(Role.COORDINATOR, "POST", "/registrations", body)
            self.patient = answer["id"]

    async def correct(self, **fields: object) -> None:
        if self.patient:
            await self.ask(Role.COORDINATOR, "PATCH", f"/patients/{self.patient}", fields)

    async def enter_in_error(self) -> None:
        if self.patient:
            await self.ask(Role.COORDINATOR, "POST", f"/patients/{self.patient}/$entered-in-error")

    async def revoke(self) -> None:
        if self.patient:
            await self.hear(ChannelRevoked(patient_id=self.patient, channel=Channel.SMS), self.patient)


# -- referrals ----------------------------------------------------------------------------------------------------

PACKET = {"items": [{"sha256": "ab" * 32, "kind": kind} for kind in ("medications", "photo")]}
DERMATOLOGY = {
    "code": {"coding": [{"system": orders.SNOMED, "code": "308472003"}]},
    "reasonCode": [{"coding": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "L40.0"}]}],
}
TOLD = tuple(dict.fromkeys(event for event in EVENTS if event.topic != "referrals.work"))
"""What other services may tell of the referral; its own service's private events come about by themselves."""


class ReferralsWalk(Walk):
    """One order, with what intake, payers, specialists and schedulers make of it."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.harness = Harness(referrals.Settings, referrals.build)

    def usual(self) -> Sequence[Act]:
        return (
            partial(self.order, "draft"),
            partial(self.order, "active"),
            partial(self.of_patient, PatientRegistered(patient_id=orders.PATIENT, complete=True)),
            partial(self.act, "packet", PACKET),
            self.covered,
            partial(self.told, orders.NOT_REQUIRED),
            partial(self.list_specialist, True),
            partial(self.act, "accept", {}),
            partial(self.told, orders.booked()),
            partial(self.told, orders.fulfilled()),
            self.report,
        )

    def surprises(self) -> Sequence[Act]:
        patient = {"patient_id": orders.PATIENT}
        now = self.harness.clock.now()
        lapsed = CoverageLapsed(
            **patient, coverage_id=orders.COVERAGE, payer_id=orders.PAYER, reason="not-in-force", as_of=now
        )
        return (
            partial(self.of_patient, lapsed),
            partial(self.of_patient, lapsed),
            partial(self.of_patient, CoverageUnverifiable(**patient, reason="no-coverage", as_of=now)),
            partial(self.of_patient, PatientIncomplete(**patient, missing=("Patient.name",))),
            partial(self.of_patient, PatientCompleted(**patient)),
            partial(self.list_specialist, False),
            partial(self.act, "reject", {"reason": "full"}),
            partial(self.act, "cancel", {"reason": "patient-request"}),
            partial(self.act, "entered-in-error", {}),
            partial(self.order, "completed"),
            self.any_event,
            self.any_event,
            self.pass_hours(30 * 24),
        )

    async def order(self, status: str) -> None:
        body = service_request(status=status, **DERMATOLOGY)
        await self.ask(Role.CLINICIAN, "PUT", f"/fhir/ServiceRequest/{orders.REFERRAL}", body)

    async def act(self, verb: str, body: object) -> None:
        await self.ask(Role.CLINICIAN, "POST", f"/referrals/{orders.REFERRAL}/{verb}", body)

    async def report(self) -> None:
        await self.act("report", {"report_id": orders.REPORT, "based_on": orders.REFERRAL})

    async def list_specialist(self, active: bool) -> None:
        body = {"specialty": "dermatology", "active": active}
        await self.ask(Role.COORDINATOR, "PUT", f"/specialists/{orders.FIRST}", body)

    async def covered(self) -> None:
        now = self.harness.clock.now()
        await self.of_patient(
            CoverageVerified(
                patient_id=orders.PATIENT, coverage_id=orders.COVERAGE, payer_id=orders.PAYER, as_of=now
            )
        )

    async def of_patient(self, event: Event) -> None:
        await self.hear(event, orders.PATIENT)

    async def told(self, event: Event) -> None:
        await self.hear(event, getattr(event, "appointment_id", orders.AUTHORIZATION))

    async def any_event(self) -> None:
        await self.told(self.random.choice(TOLD))


# -- prior authorization ------------------------------------------------------------------------------------------

TESS = "tess"
MEMBER_ID = "M-1"
NOTHING_NEEDED = f"""
[[rules]]
why = "office-visits-need-none"
payer = "*"
system = "{claims.CPT}"
codes = ["99213"]
needed = false
"""
APPEALS = ("automatic", "by-person", "none")


class AuthorizationWalk(Walk):
    """One referral's authorization, with a payer who may say anything at any time."""

    def __init__(self, folder: Path, seed: int) -> None:
        super().__init__(seed)
        appeal, levels = self.random.choice(APPEALS), self.random.choice((1, 2))
        rules = folder / f"{appeal}-{levels}.toml"
        terms = f'[[payers]]\npayer = "*"\nappeal = "{appeal}"\nappeal_levels = {levels}\n'
        rules.write_text(NOTHING_NEEDED + terms, encoding="utf-8")
        self.world = AuthorizationWorld(rules)
        self.harness = self.world.harness
        self.world.payer.script(
            MEMBER_ID,
            Script(
                decision=self.random.choice(list(ReviewAction)),
                error=self.random.choice((0, 0, 4)),
                pend_hours=self.random.choice((None, None, 26)),
                notify=self.random.choice((True, False)),
            ),
        )

    async def settle(self) -> None:
        await self.world.settle()

    def usual(self) -> Sequence[Act]:
        return (
            partial(self.world.refer, TESS),
            partial(self.world.know, TESS, MEMBER_ID),
            self.pass_hours(1),
            partial(self.say, claims.A1),
            partial(self.world.tell, ReferralCancelled, TESS, reason="patient-request"),
            self.pass_hours(1),
        )

    def surprises(self) -> Sequence[Act]:
        return (
            *(partial(self.say, word) for word in claims.WORDS),
            *(partial(self.say, word) for word in claims.WORDS),
            partial(self.say, claims.A3),
            partial(self.world.know, TESS, None),
            partial(self.world.know, TESS, None, erased=True),
            partial(self.world.refer, TESS, service=claims.OFFICE_VISIT),
            partial(self.world.tell, ReferralFailed, TESS, reason="authorization-denied"),
            partial(self.act, "appeal"),
            partial(self.act, "accept-denial"),
            partial(self.act, "send-again"),
            partial(self.act, "settle-contradiction"),
            partial(self.act, "cancel", {"reason": "test"}),
            partial(self.subscription, "off"),
            self.pass_hours(30),
        )

    async def act(self, verb: str, body: object = None) -> None:
        id = authorization_id(claims.uid("referral", TESS))
        await self.ask(Role.COORDINATOR, "POST", f"/authorizations/{id}/{verb}", body)

    async def say(self, word: claims.Word) -> None:
        """The payer notifies, of its newest claim or an older one."""
        self.harness.clock.pass_(60)
        document = await self.harness.stored(claims.Authorization, authorization_id(claims.uid("referral", TESS)))
        if document is None or not document.submissions:
            return
        ruling = review(word.action.value, word.number, *word.reasons)
        item: dict[str, Any] = {"itemSequence": 1, "adjudication": [ruling]}
        claim = self.random.choice(document.submissions[-2:]).id
        await self._notify(notice(claim, self.harness.clock.now().isoformat(), item=[item]))

    async def subscription(self, status: str) -> None:
        """The payer says that its notifications have stopped; its next one says otherwise."""
        body = notice("none")
        body["entry"] = body["entry"][:1]
        body["entry"][0]["resource"]["parameter"] = [
            {"name": "status", "valueCode": status},
            {"name": "type", "valueCode": "heartbeat"},
        ]
        await self._notify(body)

    async def _notify(self, body: object) -> None:
        await self.ask(Role.SERVICE, "POST", f"/payers/{claims.PAYER_ID}/notifications", body)


# -- scheduling ---------------------------------------------------------------------------------------------------


class SchedulingWalk(Walk):
    """A referral's visit with one doctor, whose calendar is short."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.harness = Harness(scheduling.Settings, scheduling.build)

    def usual(self) -> Sequence[Act]:
        return (
            self.publish,
            partial(self.told, days.accepted(earliest=self.harness.clock.now())),
            self.pass_hours(1),
            self.to_the_visit,
            partial(self.act, "arrive"),
            partial(self.act, "fulfil"),
        )

    def surprises(self) -> Sequence[Act]:
        case = {"referral_id": days.referral(), "patient_id": days.patient()}
        need = {"patient_id": days.patient(), "barrier": Barrier.INTERPRETER}
        handed = {"handoff_id": days.referral(9), **need}
        return (
            self.to_the_visit,
            self.move,
            partial(self.take, "hold"),
            partial(self.take, "book"),
            partial(self.act, "book"),
            partial(self.act, "confirm"),
            partial(self.act, "cancel", {"by": "provider", "reason": "ill"}),
            partial(self.act, "no-show"),
            partial(self.act, "enter-in-error"),
            self.reply,
            partial(self.told, ReferralCancelled(**case, reason="patient-request")),
            partial(self.told, ReferralClosed(**case, report_id=days.referral(8))),
            partial(self.hear, BarrierRecorded(**need), days.patient()),
            partial(self.hear, HandOffAccepted(**handed, service_id=days.referral(7)), days.referral(9)),
            partial(self.hear, HandOffClosed(**handed, outcome=HandOffOutcome.CANCELLED), days.referral(9)),
            self.pass_hours(2),
            self.pass_hours(100),
        )

    async def told(self, event: Event) -> None:
        await self.hear(event, days.referral())

    async def publish(self) -> None:
        """One or two half hours tomorrow, at this time of day."""
        first = self.harness.clock.now() + timedelta(days=1)
        starts = [first, first + timedelta(hours=1)][: self.random.randint(1, 2)]
        slots = [
            {"start": start.isoformat(), "end": (start + timedelta(minutes=30)).isoformat()} for start in starts
        ]
        body = {"timezone": "America/Denver", "slots": slots}
        await self.ask(Role.SCHEDULER, "POST", f"/calendars/{days.DOCTOR}/slots", body)

    async def _visit(self) -> Appointment | None:
        """One that is not over, if any."""
        found = sorted(await self.harness.all(Appointment), key=lambda visit: visit.id)
        running = [visit for visit in found if not visit.ended]
        return self.random.choice(running) if running else None

    async def _slot(self) -> str | None:
        calendars = sorted(await self.harness.all(Calendar), key=lambda calendar: calendar.day)
        slots = [slot.slot_id for calendar in calendars for slot in calendar.slots]
        return self.random.choice(slots) if slots else None

    async def act(self, verb: str, body: object = None) -> None:
        visit = await self._visit()
        if visit is not None:
            await self.ask(Role.SCHEDULER, "POST", f"/appointments/{visit.id}/{verb}", body)

    async def take(self, verb: str) -> None:
        slot = await self._slot()
        if slot is not None:
            body = {"slot_id": slot, "patient_id": days.patient(), "referral_id": days.referral()}
            await self.ask(Role.SCHEDULER, "POST", f"/slots/{verb}", body)

    async def move(self) -> None:
        slot = await self._slot()
        if slot is not None:
            await self.act("reschedule", {"slot_id": slot})

    async def to_the_visit(self) -> None:
        """Time goes by until the patient is expected."""
        visit = await self._visit()
        if visit is not None and visit.state is AppointmentState.BOOKED and visit.place is not None:
            ahead = visit.place.start - self.harness.clock.now()
            self.harness.clock.pass_(max(ahead, timedelta()).total_seconds() + 60)

    async def reply(self) -> None:
        visit = await self._visit()
        if visit is not None:
            intent = self.random.choice([ReplyIntent.CANCEL, ReplyIntent.CONFIRM])
            await self.told(ReplyReceived(patient_id=days.patient(), appointment_id=visit.id, intent=intent))


# -- notifications ------------------------------------------------------------------------------------------------


class NotificationsWalk(Walk):
    """One patient's visit and its messages, with a gateway that may do anything to them."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        deduplicating = self.random.choice((["sms", "voice"], []))
        self.world = NotificationsWorld(deduplicating_channels=deduplicating)
        self.harness = self.world.service
        self.start = messages.NOW + timedelta(days=self.random.choice((1, 8)))

    async def settle(self) -> None:
        await self.world.settle()

    def usual(self) -> Sequence[Act]:
        return (
            partial(self.know, (Channel.SMS, Channel.VOICE)),
            self.book,
            partial(self.later, timedelta(hours=1)),
            partial(self.later, timedelta(days=8)),
            partial(self.tell, AppointmentArrived, arrived_at=self.start),
            partial(self.tell, AppointmentFulfilled),
        )

    def surprises(self) -> Sequence[Act]:
        return (
            partial(self.know, (Channel.VOICE, Channel.SMS)),
            self.erase,
            self.move,
            partial(self.tell, AppointmentCancelled, by=CancelledBy.PROVIDER, reason="ill"),
            partial(self.tell, AppointmentNoShow),
            *(partial(self.fate, fate, count) for fate in (Fate.LOST, Fate.LOST, Fate.UNDELIVERED) for count in (1, 9)),
            partial(self.fate, Fate.INVALID, 2),
            partial(self.fate, Fate.SILENT, 1),
            self.report,
            self.report,
            self.find_out,
            self.find_out,
            partial(self.later, timedelta(minutes=5)),
            partial(self.later, timedelta(days=1)),
        )

    async def know(self, channels: tuple[Channel, ...]) -> None:
        event = messages.changed(channels=channels, email=None, mobile="+15005559001", phone="+15005559002")
        await self.world.tell(event, messages.PATIENT)

    async def erase(self) -> None:
        await self.world.tell(messages.changed(erased=True), messages.PATIENT)

    async def book(self) -> None:
        await self.world.schedule(messages.booked(self.start))

    async def move(self) -> None:
        start, self.start = self.start, self.start + timedelta(days=2)
        occurrence = 2 + self.random.randint(0, 10_000)
        await self.world.schedule(messages.rescheduled(self.start, start, occurrence))

    async def tell(self, kind: type[Event], **fields: object) -> None:
        case = {"appointment_id": messages.APPOINTMENT, "patient_id": messages.PATIENT}
        await self.world.tell(kind.model_validate({**case, **fields}), messages.APPOINTMENT)

    async def fate(self, fate: Fate, count: int) -> None:
        self.world.gateway.script(ScriptOrder(fate=fate, count=count))

    async def _delivery(self, *states: str) -> Delivery | None:
        found = [each for each in await self.world.deliveries() if not states or each.state in states]
        return self.random.choice(found) if found else None

    async def report(self) -> None:
        """The gateway says late what became of a message."""
        delivery = await self._delivery("planned", "accepted", "unknown")
        if delivery is not None and (delivery.lost or delivery.state != "planned"):
            status = self.random.choice(["delivered", "failed"])
            body = {"id": "late", "reference": delivery.id, "status": status}
            await self.ask(Role.SERVICE, "POST", "/callbacks/status", body)

    async def find_out(self) -> None:
        delivery = await self._delivery("unknown")
        if delivery is not None:
            outcome = self.random.choice(["delivered", "failed"])
            await self.ask(Role.COORDINATOR, "POST", f"/deliveries/{delivery.id}/outcome", {"outcome": outcome})

    async def later(self, ahead: timedelta) -> None:
        await self.world.until(self.world.now + ahead)


# -- directory ----------------------------------------------------------------------------------------------------

RIDES = ("Rides", "Wheels")


class DirectoryWalk(Walk):
    """One patient who needs a ride, and two services that may give it."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.harness = Harness(directory.Settings, directory.build)

    def usual(self) -> Sequence[Act]:
        need = BarrierRecorded(patient_id=community.PATIENT, barrier=Barrier.TRANSPORTATION)
        return (
            partial(self.put, RIDES[0], "active"),
            partial(self.hear, need, community.PATIENT),
            partial(self.hear, community.changed(), community.PATIENT),
            partial(self.answer, "accept"),
            partial(self.act, "close", {"outcome": "helped"}),
        )

    def surprises(self) -> Sequence[Act]:
        erased = community.changed().model_copy(update={"erased": True})
        statuses = ("active", "inactive", "temporarily closed", "defunct")
        return (
            *(partial(self.put, name, status) for name in RIDES for status in statuses),
            partial(self.hear, erased, community.PATIENT),
            partial(self.hear, community.changed("10001", "New York", "NY"), community.PATIENT),
            partial(self.answer, "decline"),
            *(partial(self.act, "offer", {"service_id": community.uid(name)}) for name in RIDES),
            partial(self.act, "close", {"outcome": "cancelled"}),
            partial(self.act, "close", {"outcome": "no-service"}),
            self.pass_hours(24 * 4),
        )

    async def put(self, name: str, status: str) -> None:
        body = community.record(name, status=status)
        await self.ask(Role.DIRECTORY_EDITOR, "PUT", f"/services/{body['id']}", body)

    async def act(self, verb: str, body: object) -> None:
        id = handoff_id(community.PATIENT, Barrier.TRANSPORTATION)
        await self.ask(Role.COORDINATOR, "POST", f"/handoffs/{id}/{verb}", body)

    async def answer(self, verb: str) -> None:
        handoff = await self.harness.stored(HandOff, handoff_id(community.PATIENT, Barrier.TRANSPORTATION))
        if handoff is not None and handoff.offered_to is not None:
            await self.act(verb, {"service_id": handoff.offered_to})
