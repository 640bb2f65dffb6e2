"""Which events prior authorization reacts to, and the decision each leads to.

The member is asked for after the authorization was written (``MemberWanted``, its own event) and announces itself after
it was written (``MemberKnown``): whichever write comes second sees the first, so no authorization misses its member.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from services.prior_authorization.model import Authorization, Contents, Member, RuleBook, State, authorization_id
from services.prior_authorization.model.authorization import UNSENT
from services.prior_authorization.model.contesting import CONTESTABLE, talk_placed
from services.prior_authorization.model.evidence import forget
from services.prior_authorization.model.lifetime import visits_told, visits_wanted
from services.prior_authorization.model.member import learn
from services.prior_authorization.model.opening import (
    WITHDRAWABLE,
    carry,
    consider_member,
    packet_completed,
    referral_ended,
    request,
    wants_member,
)
from services.prior_authorization.model.transfer import member_changed, open_transfer
from services.prior_authorization.model.visits import ReferralVisits, told_of, visits_id, wanted_by
from shared.contracts.intake import PersonChanged
from shared.contracts.prior_authorization import MemberKnown, MemberWanted, TransferWanted, VisitsTold, VisitsWanted
from shared.contracts.referrals import (
    AuthorizationRequested,
    ReferralCancelled,
    ReferralFailed,
    ReferralPacketCompleted,
    ReferralRejected,
    ReferralRequested,
)
from shared.contracts.scheduling import (
    AppointmentBooked,
    AppointmentCancelled,
    AppointmentEvent,
    AppointmentFulfilled,
    AppointmentNoShow,
    AppointmentRescheduled,
    TalkBooked,
)
from shared.kit.decisions import Ref, Want
from shared.kit.reactions import Field, Reactions, on

_LIVE = Authorization.rest_of(Authorization.terminal)
_GATHERING = Authorization.rest_of({*Authorization.terminal, State.CANCELLING})
"""The states in which evidence can still be of use."""


def reactions(rules: RuleBook) -> tuple[Reactions, ...]:
    """The reaction tables under these rules."""
    return (
        Reactions(
            Authorization,
            on(
                AuthorizationRequested,
                _of_referral,
                partial(request, rules),
                creates=True,
                wants=partial(wants_member, rules),
            ),
            on(ReferralPacketCompleted, _of_packet, packet_completed, when=_GATHERING),
            on(MemberWanted, _of_wish, partial(consider_member, rules), when=UNSENT, wants=_member),
            on(
                MemberKnown,
                Field("patient_id", lambda event: event.patient_id),
                partial(consider_member, rules),
                when=UNSENT,
                otherwise=member_changed,
                wants=_member,
            ),
            on(ReferralRequested, _handed_on, carry),
            on(
                TransferWanted, lambda event: (event.opens,), partial(open_transfer, rules), creates=True, wants=_before
            ),
            on(TalkBooked, lambda event: (event.authorization_id,), talk_placed, when=CONTESTABLE),
            on(VisitsTold, lambda event: (event.authorization_id,), visits_told, when=_LIVE, wants=visits_wanted),
            on(ReferralCancelled, _relied_on, referral_ended, when=WITHDRAWABLE),
            on(ReferralFailed, _relied_on, referral_ended, when=WITHDRAWABLE),
            on(ReferralRejected, _relied_on, referral_ended, when=WITHDRAWABLE),
        ),
        Reactions(
            ReferralVisits,
            on(AppointmentBooked, _of_visit, told_of, creates=True),
            on(AppointmentRescheduled, _of_visit, told_of, creates=True),
            on(AppointmentFulfilled, _of_visit, told_of, creates=True),
            on(AppointmentCancelled, _of_visit, told_of, creates=True),
            on(AppointmentNoShow, _of_visit, told_of, creates=True),
            on(VisitsWanted, lambda event: (visits_id(event.referral_id),), wanted_by, creates=True),
        ),
        Reactions(Member, on(PersonChanged, lambda event: (event.patient_id,), learn, creates=True)),
        Reactions(Contents, on(PersonChanged, Field("patient_id", lambda event: event.patient_id), forget)),
    )


def _of_referral(event: AuthorizationRequested) -> Iterable[str]:
    return (authorization_id(event.referral_id),)


def _of_packet(event: ReferralPacketCompleted) -> Iterable[str]:
    return (authorization_id(event.referral_id),) if event.packet else ()


def _handed_on(event: ReferralRequested) -> Iterable[str]:
    return () if event.authorization_id is None else (event.authorization_id,)


def _relied_on(event: ReferralCancelled | ReferralFailed | ReferralRejected) -> Iterable[str]:
    """The authorization that the referral relied on: its own, which it may not have heard of, or one handed on."""
    return (event.authorization_id or authorization_id(event.referral_id),)


def _opens(event: TransferWanted) -> Iterable[str]:
    return (event.opens,)


def _before(event: TransferWanted, document: Authorization | None) -> Iterable[Want]:
    return (Ref(Authorization, event.authorization_id), Ref(Member, event.patient_id))


def _of_visit(event: AppointmentEvent) -> Iterable[str]:
    """The visits of the referral that led to a visit."""
    return () if event.referral_id is None else (visits_id(event.referral_id),)


def _of_wish(event: MemberWanted) -> Iterable[str]:
    return (event.authorization_id,)


def _member(event: MemberWanted | MemberKnown, document: Authorization | None) -> Iterable[Want]:
    return (Ref(Member, event.patient_id),)
