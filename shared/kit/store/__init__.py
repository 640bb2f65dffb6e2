"""Where documents live: the port, its MongoDB adapter, and the repository that turns decisions into writes."""

from shared.kit.store.port import (
    Conditions,
    Found,
    Index,
    Outcome,
    Store,
    StoreUnavailable,
    Unstorable,
    Write,
)

__all__ = ["Conditions", "Found", "Index", "Outcome", "Store", "StoreUnavailable", "Unstorable", "Write"]
