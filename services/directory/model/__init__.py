"""What directory decides: pure documents, commands and decisions."""

from services.directory.model.handoff import (
    OPEN,
    AcceptOffer,
    CloseHandOff,
    Declined,
    DeclineOffer,
    HandOff,
    OfferTo,
    OpenHandOff,
    Person,
    Step,
)
from services.directory.model.hsds import ServiceFull
from services.directory.model.listing import (
    CommunityService,
    Contact,
    ContactChannel,
    ContactResult,
    ListService,
    LogContact,
    VerifyService,
)

__all__ = [
    "OPEN",
    "AcceptOffer",
    "CloseHandOff",
    "CommunityService",
    "Contact",
    "ContactChannel",
    "ContactResult",
    "DeclineOffer",
    "Declined",
    "HandOff",
    "ListService",
    "LogContact",
    "OfferTo",
    "OpenHandOff",
    "Person",
    "ServiceFull",
    "Step",
    "VerifyService",
]
