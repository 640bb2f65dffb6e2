"""The services to walk through: what people, payers, gateways and other services may do to each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from deploy.simulators.adjudication import Script
from deploy.simulators.gateway import Fate, ScriptOrder
from services.directory.model.handoff import HandOff, handoff_id
from services.notifications.model.delivery import Accepted, Delivery
from services.prior_authorization.model import Authorization, authorization_id
from services.prior_authorization.pas import codes
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
    PersonCoverage,
)
from shared.contracts.notifications import ChannelRevoked, ReplyIntent, ReplyReceived
from shared.contracts.prior_authorization import (
    AuthorizationApproved,
    AuthorizationDenied,
    AuthorizationEvent,
    AuthorizationPeerToPeerClosed,
    AuthorizationPeerToPeerOffered,
    ReviewAction,
)
from shared.contracts.referrals import (
    ReferralCancelled,
    ReferralClosed,
    ReferralFailed,
)
from shared.contracts.scheduling import (
    AppointmentArrived,
    AppointmentCancelled,
    AppointmentFulfilled,
    AppointmentNoShow,
    CancelledBy,
)
from shared.kit.auth import Role
from shared.kit.bus.port import Record
from shared.kit.decisions import NO_FACTS
from shared.kit.performing import MadeCall
from tests.simulation.walking import Act, Alone, Walk, deliver
from tests.unit.directory import cases as community
from tests.unit.intake.test_api import WHOLE
from tests.unit.intake.test_api import World as IntakeWorld
from tests.unit.notifications import cases as messages
from tests.unit.notifications.world import World as NotificationsWorld
from tests.unit.prior_authorization import cases as claims
from tests.unit.prior_authorization import coverage
from tests.unit.prior_authorization.test_api import notice
from tests.unit.prior_authorization.test_reading import concept, review
from tests.unit.prior_authorization.world import World as AuthorizationWorld
from tests.unit.referrals import cases as orders
from tests.unit.referrals.test_fhir import service_request
from tests.unit.referrals.test_walks import EVENTS
from tests.unit.scheduling import world as days
from tests.unit.webhooks.world import Answer, away, happening, ok, saying
from tests.unit.webhooks.world import World as WebhooksWorld

# -- intake -------------------------------------------------------------------------------------------------------


class IntakePlace(IntakeWorld):
    """Intake, beside a payer."""

    async def settle(self) -> None:
        await self.harness.settle()


class IntakeWalk(Walk[IntakePlace]):
    """One registration."""

    def __init__(self, place: IntakePlace, seed: int) -> None:
        super().__init__(place, seed)
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


class ReferralsWalk(Walk[Alone]):
    """One order, with what intake, payers, specialists and schedulers make of it."""

    def __init__(self, place: Alone, seed: int) -> None:
        super().__init__(place, seed)
        self.patient, self.referral = self.id("patient"), self.id("referral")

    def usual(self) -> Sequence[Act]:
        return (
            partial(self.list_specialist, False),
            partial(self.order, "draft"),
            partial(self.order, "active"),
            partial(self.of_patient, PatientRegistered(patient_id=self.patient, complete=True)),
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
        patient = {"patient_id": self.patient}
        now = self.harness.clock.now()
        lapsed = CoverageLapsed(
            **patient, coverage_id=orders.COVERAGE, payer_id=orders.PAYER, reason="not-in-force", as_of=now
        )
        return (
            partial(self.of_patient, lapsed),
            partial(self.reject_unpaid, lapsed),
            partial(self.told, orders.REFUSED),
            partial(self.told, orders.called_off()),
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
        subject = {"reference": f"Patient/{self.patient}"}
        body = service_request(id=self.referral, subject=subject, status=status, **DERMATOLOGY)
        await self.ask(Role.CLINICIAN, "PUT", f"/fhir/ServiceRequest/{self.referral}", body)

    async def act(self, verb: str, body: object) -> None:
        await self.ask(Role.CLINICIAN, "POST", f"/referrals/{self.referral}/{verb}", body)

    async def reject_unpaid(self, lapsed: Event) -> None:
        """The specialist declines while payment is unclear."""
        await self.of_patient(lapsed)
        await self.place.settle()
        await self.act("reject", {"reason": "full"})

    async def report(self) -> None:
        await self.act("report", {"report_id": self.id("report"), "based_on": self.referral})

    async def list_specialist(self, active: bool) -> None:
        body = {"specialty": "dermatology", "active": active}
        await self.ask(Role.COORDINATOR, "PUT", f"/specialists/{orders.FIRST}", body)

    async def covered(self) -> None:
        now = self.harness.clock.now()
        await self.of_patient(
            CoverageVerified(patient_id=self.patient, coverage_id=orders.COVERAGE, payer_id=orders.PAYER, as_of=now)
        )

    async def of_patient(self, event: Event) -> None:
        await self.hear(event, self.patient)

    async def told(self, event: Event) -> None:
        """The same of this walk's referral."""
        own = {"referral_id": self.referral, "patient_id": self.patient}
        for name in ("appointment_id", "authorization_id"):
            if hasattr(event, name):
                own[name] = self.id(getattr(event, name))
        subject = own.get("appointment_id") or own["authorization_id"]
        await self.hear(event.model_copy(update=own), subject)

    async def any_event(self) -> None:
        await self.told(self.random.choice(TOLD))


# -- prior authorization ------------------------------------------------------------------------------------------

APPEALS = tuple((policy, levels) for policy in ("automatic", "by-person", "none") for levels in (1, 2))


PREPARED = tuple(product(coverage.WORDS, (None, *coverage.WORDS)))
"""What a payer says it requires, and what it says next; None: the request is called off in between."""


def _rules() -> str:
    """Rules by which an office visit needs no approval, and every payer has its own terms of appeal."""
    none_needed = f'[[rules]]\nwhy = "none"\npayer = "*"\nsystem = "{claims.CPT}"\ncodes = ["99213"]\nneeded = false\n'
    terms = (
        f'[[payers]]\npayer = "{policy}-{levels}"\nappeal = "{policy}"\nappeal_levels = {levels}\n'
        for policy, levels in APPEALS
    )
    return none_needed + "".join(terms)


def authorizations(folder: Path) -> AuthorizationWorld:
    """Prior authorization under rules of its own, beside its payers."""
    file = folder / "rules.toml"
    file.write_text(_rules(), encoding="utf-8")
    return AuthorizationWorld(file)


class AuthorizationWalk(Walk[AuthorizationWorld]):
    """One referral's authorization, with a payer who may say anything at any time."""

    def __init__(self, place: AuthorizationWorld, seed: int) -> None:
        super().__init__(place, seed)
        self.name, self.member_id = f"tess-{seed}", f"M-{seed}"
        policy, levels = self.random.choice(APPEALS)
        self.payer_id = f"{policy}-{levels}"
        place.payer.script(
            self.member_id,
            Script(
                decision=self.random.choice(list(ReviewAction)),
                error=self.random.choice((0, 0, 4)),
                pend_hours=self.random.choice((None, None, 26)),
                notify=self.random.choice((True, False)),
            ),
        )

    def usual(self) -> Sequence[Act]:
        begin = (self.prepare,) if self.seed % 3 == 0 else (self.refer, partial(self.know, self.member_id))
        return (
            *begin,
            self.pass_hours(1),
            partial(self.say, claims.A1),
            partial(self.say, claims.A3),
            partial(self.act, "accept-denial"),
            partial(self.place.tell, ReferralCancelled, self.name, reason="patient-request"),
            self.pass_hours(1),
        )

    def surprises(self) -> Sequence[Act]:
        return (
            *(partial(self.say, word) for word in claims.WORDS),
            *(partial(self.say, word) for word in claims.WORDS),
            partial(self.say, claims.A3_DATA),
            self.find_errors,
            partial(self.act, "resubmit", {"corrected": ["0P"]}),
            partial(self.act, "resubmit", {"corrected": ["0P"]}),
            self.lose_member,
            partial(self.know, None),
            partial(self.know, None, erased=True),
            partial(self.refer, service=claims.OFFICE_VISIT),
            partial(self.place.tell, ReferralFailed, self.name, reason="authorization-denied"),
            partial(self.act, "appeal"),
            partial(self.act, "accept-denial"),
            partial(self.act, "send-again"),
            partial(self.act, "settle-contradiction"),
            partial(self.act, "seek"),
            self.attach,
            partial(self.act, "cancel", {"reason": "test"}),
            partial(self.subscription, "off"),
            self.pass_hours(30),
        )

    @property
    def authorization(self) -> str:
        """The authorization's id."""
        return authorization_id(self.place.ids(self.name)["referral_id"])

    async def refer(self, **changes: object) -> None:
        await self.place.refer(self.name, payer_id=self.payer_id, **changes)

    async def know(self, member_id: str | None, **changes: object) -> None:
        coverage = PersonCoverage(coverage_id=claims.COVERAGE, payer_id=self.payer_id, member_id=member_id)
        await self.place.know(self.name, member_id, coverage=coverage, **changes)

    async def lose_member(self) -> None:
        """The member is known, and unknown again before anything was sent."""
        await self.know(self.member_id)
        await deliver(self.harness)
        await self.know(None)

    async def act(self, verb: str, body: object = None) -> None:
        await self.ask(Role.COORDINATOR, "POST", f"/authorizations/{self.authorization}/{verb}", body)

    async def require(self, parts: coverage.Parts) -> None:
        """The payer says what it requires."""
        body = {
            "payer_id": self.payer_id,
            "patient_id": self.place.ids(self.name)["patient_id"],
            "resource": coverage.order(**parts),
        }
        await self.ask(Role.COORDINATOR, "POST", "/requirements/answers", body)
        await deliver(self.harness)

    async def prepare(self) -> None:
        """A request that is not sent yet, of which the payer says one thing and then another, or it is called off."""
        first, then = PREPARED[self.seed // 3 % len(PREPARED)]
        await self.require(first)
        await self.refer()
        await deliver(self.harness)
        await self.know(self.member_id)
        await deliver(self.harness)
        if then is None:
            await self.act("cancel", {"reason": "test"})
        else:
            await self.require(then)

    async def attach(self) -> None:
        await self.act("evidence", {"items": [coverage.FORM]})

    async def say(self, word: claims.Word) -> None:
        """The payer notifies, of its newest claim or an older one."""
        self.harness.clock.pass_(60)
        document = await self.harness.stored(Authorization, self.authorization)
        if document is None or not document.submissions:
            return
        ruling = review(word.action.value, word.number, *word.reasons)
        item: dict[str, Any] = {"itemSequence": 1, "adjudication": [ruling]}
        claim = self.random.choice(document.submissions[-2:]).id
        await self._notify(notice(claim, self.harness.clock.now().isoformat(), item=[item]))

    async def find_errors(self) -> None:
        """The payer finds errors in what is pended, decides nothing, and a person corrects it."""
        document = await self.harness.stored(Authorization, self.authorization)
        if document is None or document.claim_id is None:
            return
        error = {"code": concept(codes.X12_REJECT, "72")}
        told = notice(document.claim_id, self.harness.clock.now().isoformat(), outcome="error", error=[error])
        told["entry"][1]["resource"]["entry"][0]["resource"].pop("item")
        await self._notify(told)
        await self.act("resubmit", {"corrected": ["72"]})

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
        await self.ask(Role.SERVICE, "POST", f"/payers/{self.payer_id}/notifications", body)


# -- scheduling ---------------------------------------------------------------------------------------------------


class SchedulingWalk(Walk[Alone]):
    """A referral's visit with one doctor, whose calendar is short."""

    def __init__(self, place: Alone, seed: int) -> None:
        super().__init__(place, seed)
        self.doctor, self.patient, self.referral = self.id("doctor"), days.patient(seed), days.referral(seed)

    def usual(self) -> Sequence[Act]:
        if self.seed % 4 == 0:
            return (self.publish, self.offer_talk, self.offer_talk, partial(self.close_talk, "upheld"))
        return (
            self.publish,
            partial(self.told, days.accepted(self.seed, earliest=self.harness.clock.now(), doctor=self.doctor)),
            self.pass_hours(1),
            self.to_the_visit,
            partial(self.act, "arrive"),
            partial(self.act, "fulfil"),
        )

    def surprises(self) -> Sequence[Act]:
        case = {"referral_id": self.referral, "patient_id": self.patient}
        need = {"patient_id": self.patient, "barrier": Barrier.INTERPRETER}
        handed = {"handoff_id": self.id("hand-off"), **need}
        return (
            self.to_the_visit,
            self.propose,
            self.think_again,
            self.open_late,
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
            partial(self.told, ReferralClosed(**case, report_id=self.id("report"))),
            partial(self.hear, BarrierRecorded(**need), self.patient),
            partial(self.hear, HandOffAccepted(**handed, service_id=self.id("service")), self.id("hand-off")),
            partial(self.hear, HandOffClosed(**handed, outcome=HandOffOutcome.CANCELLED), self.id("hand-off")),
            self.offer_talk,
            partial(self.close_talk, "not-held"),
            partial(self.approve, AuthorizationApproved, action="A1", number="N", units_requested=2),
            partial(self.approve, AuthorizationDenied, final=True),
            self.pass_hours(2),
            self.pass_hours(100),
        )

    async def told(self, event: Event) -> None:
        await self.hear(event, self.referral)

    async def approve(self, kind: type[AuthorizationEvent], **fields: object) -> None:
        """The payer grants so much, or nothing any more."""
        ids = {"authorization_id": self.id("authorization"), "referral_id": self.referral, "patient_id": self.patient}
        granted = {"units_granted": self.random.randint(0, 2)} if kind is AuthorizationApproved else {}
        await self.hear(kind.model_validate({**ids, **fields, **granted}), ids["authorization_id"])

    async def offer_talk(self) -> None:
        """The payer's physician can be reached at one time or another, where the doctor may have a slot."""
        start = self.harness.clock.now() + timedelta(hours=self.random.choice((0, 12, 24, 25)))
        await self._talk(
            AuthorizationPeerToPeerOffered,
            clinician_id=self.doctor,
            offers=[{"start": start, "end": start + timedelta(hours=self.random.choice((1, 12)))}],
            not_after=start + timedelta(days=1),
        )

    async def close_talk(self, outcome: str) -> None:
        await self._talk(AuthorizationPeerToPeerClosed, outcome=outcome)

    async def _talk(self, kind: type[AuthorizationEvent], **fields: object) -> None:
        ids = {"authorization_id": self.id("authorization"), "referral_id": self.referral, "patient_id": self.patient}
        event = kind.model_validate({**ids, "talk_id": self.id("talk"), **fields})
        await self.hear(event, ids["authorization_id"])

    async def publish(self) -> None:
        """One or two half hours tomorrow, at this time of day."""
        first = self.harness.clock.now() + timedelta(days=1)
        starts = [first, first + timedelta(hours=1)][: self.random.randint(1, 2)]
        slots = [{"start": start.isoformat(), "end": (start + timedelta(minutes=30)).isoformat()} for start in starts]
        body = {"timezone": "America/Denver", "slots": slots}
        await self.ask(Role.SCHEDULER, "POST", f"/calendars/{self.doctor}/slots", body)

    async def propose(self) -> None:
        body = {"patient_id": self.patient, "resource_id": self.doctor, "referral_id": self.referral}
        await self.ask(Role.SCHEDULER, "POST", "/appointments", body)

    async def think_again(self) -> None:
        """A visit is wanted, and not wanted any more before anybody looked for a slot."""
        await self.propose()
        await self.act("cancel", {})

    async def open_late(self) -> None:
        """Slots appear for those who wait, who let each other go first."""
        await self.publish()
        await deliver(self.harness)
        self.harness.clock.pass_(120)

    async def _visit(self) -> Appointment | None:
        """One that is not over, if any."""
        found = sorted(await self.harness.all(Appointment), key=lambda visit: visit.id)
        running = [visit for visit in found if visit.patient_id == self.patient and not visit.ended]
        return self.random.choice(running) if running else None

    async def _slot(self) -> str | None:
        calendars = sorted(await self.harness.all(Calendar), key=lambda calendar: calendar.day)
        slots = [slot.slot_id for day in calendars if day.resource_id == self.doctor for slot in day.slots]
        return self.random.choice(slots) if slots else None

    async def act(self, verb: str, body: object = None) -> None:
        visit = await self._visit()
        if visit is not None:
            await self.ask(Role.SCHEDULER, "POST", f"/appointments/{visit.id}/{verb}", body)

    async def take(self, verb: str) -> None:
        slot = await self._slot()
        if slot is not None:
            body = {"slot_id": slot, "patient_id": self.patient, "referral_id": self.referral}
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
            await self.told(ReplyReceived(patient_id=self.patient, appointment_id=visit.id, intent=intent))


# -- notifications ------------------------------------------------------------------------------------------------


class NotificationsPlace(NotificationsWorld):
    """Notifications, beside a gateway that may or may not know a message that it has had before."""

    def __init__(self, deduplicates: Iterator[bool]) -> None:
        super().__init__(deduplicating_channels=["sms", "voice"] if next(deduplicates) else [])
        self.harness = self.service


class NotificationsWalk(Walk[NotificationsPlace]):
    """One patient's visit and its messages, with a gateway that may do anything to them."""

    def __init__(self, place: NotificationsPlace, seed: int) -> None:
        super().__init__(place, seed)
        self.case = {"appointment_id": self.id("appointment"), "patient_id": self.id("patient")}
        self.occurrence = 1
        self.start = place.now + timedelta(days=self.random.choice((1, 8)))

    def usual(self) -> Sequence[Act]:
        return (
            self.book,
            partial(self.know, (Channel.SMS, Channel.VOICE)),
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
            self.thaw,
            partial(self.later, timedelta(minutes=5)),
            partial(self.later, timedelta(days=1)),
        )

    async def know(self, channels: tuple[Channel, ...]) -> None:
        event = messages.changed(patient_id=self.case["patient_id"], channels=channels, email=None)
        await self.hear(event, event.patient_id)

    async def erase(self) -> None:
        event = messages.changed(patient_id=self.case["patient_id"], erased=True)
        await self.hear(event, event.patient_id)

    async def book(self) -> None:
        await self.hear(messages.booked(self.start, **self.case), self.case["appointment_id"])

    async def move(self) -> None:
        start, self.start = self.start, self.start + timedelta(days=2)
        self.occurrence += 1
        event = messages.rescheduled(self.start, start, self.occurrence).model_copy(update=self.case)
        await self.hear(event, self.case["appointment_id"])

    async def tell(self, kind: type[Event], **fields: object) -> None:
        await self.hear(kind.model_validate({**self.case, **fields}), self.case["appointment_id"])

    async def fate(self, fate: Fate, count: int) -> None:
        self.place.gateway.script(ScriptOrder(fate=fate, count=count))

    async def _delivery(self, *states: str) -> Delivery | None:
        all = [each for each in await self.place.deliveries() if each.patient_id == self.case["patient_id"]]
        found = [each for each in all if not states or each.state in states]
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

    async def thaw(self) -> None:
        """A sender that froze in its call, and was taken for dead, gets its answer after all."""
        delivery = await self._delivery("unknown")
        if delivery is not None:
            sender = next(each for each in self.place.harness.chassis.performers if each.row.role == "sender-sms")
            held = (await self.place.harness.chassis.repository.load(Delivery, [delivery.id]))[delivery.id]
            record = Record("notifications.deliveries.sms", 0, 0, None, None)
            call = MadeCall(record, delivery.id, "another", held, NO_FACTS, Accepted("late"), called=True)
            await sender._write([call], [])
            await self.place.harness.settle()

    async def later(self, ahead: timedelta) -> None:
        await self.place.until(self.place.now + ahead)


# -- directory ----------------------------------------------------------------------------------------------------

RIDES = ("Rides", "Wheels")


class DirectoryWalk(Walk[Alone]):
    """One patient who needs a ride, in a place with two services that may give it."""

    def __init__(self, place: Alone, seed: int) -> None:
        super().__init__(place, seed)
        self.patient, self.zone = self.id("patient"), f"{100 + seed % 900}"

    def usual(self) -> Sequence[Act]:
        need = BarrierRecorded(patient_id=self.patient, barrier=Barrier.TRANSPORTATION)
        return (
            partial(self.put, RIDES[0], "active"),
            partial(self.put, RIDES[1], "active"),
            partial(self.hear, need, self.patient),
            partial(self.lives, f"{self.zone}01"),
            partial(self.answer, "accept"),
            partial(self.act, "close", {"outcome": "helped"}),
        )

    def surprises(self) -> Sequence[Act]:
        statuses = ("active", "inactive", "temporarily closed", "defunct")
        return (
            *(partial(self.put, name, status) for name in RIDES for status in statuses),
            partial(self.lives, None, erased=True),
            partial(self.lives, "00501"),
            partial(self.answer, "decline"),
            *(partial(self.act, "offer", {"service_id": self.id(name)}) for name in RIDES),
            partial(self.act, "close", {"outcome": "cancelled"}),
            partial(self.act, "close", {"outcome": "no-service"}),
            self.pass_hours(24 * 4),
        )

    async def lives(self, postal_code: str | None, *, erased: bool = False) -> None:
        event = community.changed(postal_code, None, None)
        await self.hear(event.model_copy(update={"patient_id": self.patient, "erased": erased}), self.patient)

    async def put(self, name: str, status: str) -> None:
        body = community.record(name, status=status, areas=(f"{self.zone}*",), id=self.id(name))
        await self.ask(Role.DIRECTORY_EDITOR, "PUT", f"/services/{body['id']}", body)

    async def act(self, verb: str, body: object) -> None:
        id = handoff_id(self.patient, Barrier.TRANSPORTATION)
        await self.ask(Role.COORDINATOR, "POST", f"/handoffs/{id}/{verb}", body)

    async def answer(self, verb: str) -> None:
        handoff = await self.harness.stored(HandOff, handoff_id(self.patient, Barrier.TRANSPORTATION))
        if handoff is not None and handoff.offered_to is not None:
            await self.act(verb, {"service_id": handoff.offered_to})


# -- webhooks -----------------------------------------------------------------------------------------------------


class WebhooksPlace(WebhooksWorld):
    """Webhooks, and a receiver that may be up, down or gone. Many walks' endpoints are there, each with its secret."""

    def __init__(self) -> None:
        super().__init__()
        self.receiver.checks = False

    async def settle(self) -> None:
        """Everything that is due happens."""
        await self.harness.settle()


class WebhooksWalk(Walk[WebhooksPlace]):
    """One endpoint, and two referrals whose events it wants."""

    def __init__(self, place: WebhooksPlace, seed: int) -> None:
        super().__init__(place, seed)
        self.endpoint: str | None = None

    def usual(self) -> Sequence[Act]:
        return (
            self.subscribe,
            partial(self.happen, "one"),
            partial(self.happen, "two"),
            partial(self.act, "pause"),
            partial(self.happen, "one"),
            partial(self.act, "resume"),
            self.pass_hours(24 * 15),
            partial(self.happen, "one"),
        )

    def surprises(self) -> Sequence[Act]:
        return (
            *(partial(self.answer, with_) for with_ in (saying(500), away, ok)),
            *(self.pass_hours(hours) for hours in (0.3, 25)),
            self.be_gone,
            self.be_gone,
            partial(self.act, "remove"),
            partial(self.act, "pause"),
            partial(self.act, "rotate", {"overlap_hours": 1}),
            self.replay,
        )

    async def subscribe(self) -> None:
        self.place.receiver.answer = ok
        if self.endpoint is None:
            self.endpoint = await self.place.subscribe()

    async def happen(self, which: str) -> None:
        subject = self.id(which)
        await self.hear(happening(subject, self._sequences.get(subject, 0) + 1), subject)

    async def answer(self, answer: Answer) -> None:
        self.place.receiver.answer = answer

    async def be_gone(self) -> None:
        """It wants no more, and that is seen."""
        self.place.receiver.answer = saying(410)
        await self.happen("one")
        for hours in (0.0, 0.3):
            await self.pass_hours(hours)()
            await self.place.settle()

    async def act(self, verb: str, body: object = None) -> None:
        if self.endpoint is not None:
            await self.ask(Role.OPERATOR, "POST", f"/endpoints/{self.endpoint}/{verb}", body)

    async def replay(self) -> None:
        since = self.harness.clock.now() - timedelta(hours=1)
        await self.act("replay", {"since": since.isoformat()})
