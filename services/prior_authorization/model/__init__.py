"""Documents and decisions of prior authorization; pure.

| module | what |
|---|---|
| ``authorization`` | the document: states, claims sent, rulings |
| ``items`` | what is asked for, by number |
| ``member``, ``payer`` | facts: who the payer knows, whether it notifies |
| ``rules`` | whether approval is needed, and on what terms |
| ``clocks`` | how long a payer may take |
| ``requirement``, ``evidence`` | what a payer requires; what a request is sent with |
| ``opening`` | request, member, withdrawal |
| ``calling`` | what is sent and when |
| ``answers``, ``deciding`` | what the payer says and what it means |
| ``people`` | what coordinators do |
| ``budget`` | when a payer is asked again |
"""

from services.prior_authorization.model.authorization import Authorization, Kind, State
from services.prior_authorization.model.evidence import Contents
from services.prior_authorization.model.items import Item, ServiceKind
from services.prior_authorization.model.member import Member, MemberState
from services.prior_authorization.model.payer import Payer
from services.prior_authorization.model.rules import Purpose, RuleBook, Terms
from services.prior_authorization.model.visits import authorization_id

__all__ = [
    "Authorization",
    "Contents",
    "Item",
    "Kind",
    "Member",
    "MemberState",
    "Payer",
    "Purpose",
    "RuleBook",
    "ServiceKind",
    "State",
    "Terms",
    "authorization_id",
]
