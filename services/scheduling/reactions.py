"""What scheduling does with events: others' and those between its own appointments and calendars."""

from __future__ import annotations

from services.scheduling.model import appointment as visit
from services.scheduling.model import approval, calendar, person, referral, talk
from services.scheduling.model.appointment import LOOKING, Appointment, AppointmentState, appointment_id
from services.scheduling.model.approval import Approval
from services.scheduling.model.calendar import Calendar
from services.scheduling.model.person import Person
from services.scheduling.model.referral import EndedReferral
from services.scheduling.model.talk import LIVE, Talk
from services.scheduling.model.talk import LOOKING as TALK_LOOKING
from shared.contracts.directory import HandOffAccepted, HandOffClosed
from shared.contracts.intake import BarrierRecorded
from shared.contracts.notifications import ReplyReceived
from shared.contracts.prior_authorization import (
    AuthorizationApproved,
    AuthorizationCancelled,
    AuthorizationDenied,
    AuthorizationNotRequired,
    AuthorizationPeerToPeerClosed,
    AuthorizationPeerToPeerOffered,
    AuthorizationUnitsUsed,
)
from shared.contracts.referrals import (
    ReferralAccepted,
    ReferralCancelled,
    ReferralClosed,
    ReferralFailed,
    ReferralRejected,
)
from shared.contracts.scheduling import (
    AppointmentProposed,
    ReferralOver,
    SlotBooked,
    SlotGivenBack,
    SlotHeld,
    SlotRefused,
    SlotReleased,
    SlotRequested,
    SlotsPublished,
    TalkWanted,
)
from shared.kit.reactions import Field, Reactions, on

S = AppointmentState

CALENDARS = Reactions(
    Calendar,
    on(SlotRequested, lambda event: [event.calendar_id], calendar.take),
    on(SlotGivenBack, lambda event: [event.calendar_id], calendar.give_back),
)

APPOINTMENTS = Reactions(
    Appointment,
    on(
        ReferralAccepted,
        lambda event: [appointment_id(event.referral_id)],
        visit.propose_for_referral,
        creates=True,
    ),
    on(
        ReferralOver,
        Field("referral_id", lambda event: event.referral_id),
        visit.unwanted,
        when={*LOOKING, S.PENDING, S.BOOKED},
        wants=visit.referral_wanted,
    ),
    on(
        AppointmentProposed,
        lambda event: [event.appointment_id],
        visit.look,
        when=LOOKING,
        wants=visit.slots_wanted,
    ),
    on(SlotsPublished, Field("waiting_for", lambda event: event.resource_id), visit.slots_appeared, when=LOOKING),
    on(SlotHeld, lambda event: [event.appointment_id], visit.held, creates=True),
    on(
        SlotBooked,
        lambda event: [event.appointment_id],
        visit.booked,
        when={*LOOKING, S.PENDING, S.BOOKED},
        otherwise=visit.not_wanted,
        wants=visit.referral_wanted,
    ),
    on(
        SlotRefused,
        lambda event: [event.appointment_id],
        visit.refused,
        when={*LOOKING, S.BOOKED},
        wants=visit.slots_wanted,
    ),
    on(SlotReleased, lambda event: [event.appointment_id], visit.released, when={S.PENDING}),
    on(
        ReplyReceived,
        lambda event: [] if event.appointment_id is None else [event.appointment_id],
        visit.replied,
        when={*LOOKING, S.PENDING, S.BOOKED},
    ),
)

REFERRALS = Reactions(
    EndedReferral,
    on(ReferralCancelled, lambda event: [event.referral_id], referral.end, creates=True),
    on(ReferralClosed, lambda event: [event.referral_id], referral.end, creates=True),
    on(ReferralFailed, lambda event: [event.referral_id], referral.end, creates=True),
    on(ReferralRejected, lambda event: [event.referral_id], referral.end, creates=True),
)

PERSONS = Reactions(
    Person,
    on(BarrierRecorded, lambda event: [event.patient_id], person.need_recorded, creates=True),
    on(HandOffAccepted, lambda event: [event.patient_id], person.help_promised, creates=True),
    on(HandOffClosed, lambda event: [event.patient_id], person.help_ended, creates=True),
)

APPROVALS = Reactions(
    Approval,
    on(AuthorizationApproved, lambda event: [event.referral_id], approval.approved, creates=True),
    on(AuthorizationUnitsUsed, lambda event: [event.referral_id], approval.used),
    on(AuthorizationDenied, lambda event: [event.referral_id], approval.lost),
    on(AuthorizationCancelled, lambda event: [event.referral_id], approval.lost),
    on(AuthorizationNotRequired, lambda event: [event.referral_id], approval.not_required),
)

TALKS = Reactions(
    Talk,
    on(AuthorizationPeerToPeerOffered, lambda event: [event.talk_id], talk.offered, creates=True),
    on(AuthorizationPeerToPeerClosed, lambda event: [event.talk_id], talk.closed, when=LIVE),
    on(TalkWanted, lambda event: [event.talk_id], talk.look, when=TALK_LOOKING, wants=talk.slots_wanted),
    on(SlotsPublished, Field("waiting_for", lambda event: event.resource_id), talk.slots_appeared, when=TALK_LOOKING),
    on(
        SlotBooked,
        lambda event: [event.appointment_id],
        talk.booked,
        when=TALK_LOOKING,
        otherwise=talk.not_wanted,
    ),
    on(
        SlotRefused,
        lambda event: [event.appointment_id],
        talk.refused,
        when=TALK_LOOKING,
        wants=talk.slots_wanted,
    ),
)

REACTIONS = (CALENDARS, APPOINTMENTS, REFERRALS, PERSONS, APPROVALS, TALKS)
