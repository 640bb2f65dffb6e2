"""The numbers and secrets by which notifications decides; made once from the settings."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import time, timedelta

from shared.contracts.intake import Channel


@dataclass(frozen=True, slots=True)
class Policy:
    """How messages are planned, held back and given up.

    ``reminders`` are how long before a visit reminders go, longest first. Calls and texts go from ``opens`` until
    before ``closes`` at the recipient (47 CFR 64.1200(c)(1)), at most ``a_day`` and ``a_week`` to one person
    (47 CFR 64.1200(a)(9)(iv)(F)); those that would all go at one moment are spread over ``spread``. A letter is of no
    use with less than ``letter_takes`` left before the visit. ``deduplicating`` are the channels whose other side
    takes a message once per key, however often it is asked.
    """

    reminders: tuple[timedelta, ...] = (timedelta(days=7), timedelta(days=2), timedelta(hours=3))
    opens: time = time(8)
    closes: time = time(21)
    spread: timedelta = timedelta(minutes=45)
    a_day: int = 1
    a_week: int = 3
    letter_takes: timedelta = timedelta(days=3)
    deduplicating: frozenset[Channel] = frozenset({Channel.SMS, Channel.VOICE, Channel.LETTER})
    recipient_within: timedelta = timedelta(hours=24)
    unknown_within: timedelta = timedelta(hours=24)
    first_retry: timedelta = timedelta(seconds=30)
    longest_retry: timedelta = timedelta(minutes=30)
    number_key: bytes = field(default=b"", repr=False)

    def hash_of(self, address: str) -> str:
        """A number's or mailbox' keyed hash, by which a reply finds its recipient without the number in an index.

        Keyed (HMAC-SHA-256), because the ten thousand million telephone numbers of a country are soon tried.
        """
        return hmac.new(self.number_key, address.encode(), hashlib.sha256).hexdigest()
