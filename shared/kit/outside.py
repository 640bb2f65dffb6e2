"""Outside calls over HTTP, told honestly: answered, certainly not taken, or nobody knows."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from shared.kit.clock import SystemClock
from shared.kit.decisions import Refused, Unanswered

_NOT_TAKEN = frozenset({429, 503})


async def ask(
    http: httpx.AsyncClient,
    method: str,
    url: str,
    *,
    attempt: str | None = None,
    timeout: float = 15.0,  # noqa: ASYNC109 - httpx bounds the call itself, and tells how it ended
    **options: Any,
) -> httpx.Response | Refused | Unanswered:
    """Make one outside call under the idempotency key ``attempt``; ``timeout`` in seconds.

    A response of status below 500 other than 429 is an answer, whatever it says. Refused: the connection was refused,
    or the other side said 429 or 503 (RFC 9110 15.6.4), so it took nothing. Unanswered: the connection broke, time ran
    out, or the other side failed: it may have taken it.
    """
    headers = dict(options.pop("headers", None) or {})
    if attempt is not None:
        headers["Idempotency-Key"] = attempt
    try:
        response = await http.request(method, url, headers=headers, timeout=timeout, **options)
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
        return Refused(type(error).__name__)
    except httpx.HTTPError as error:
        return Unanswered(type(error).__name__)
    if response.status_code in _NOT_TAKEN:
        return Refused(f"status-{response.status_code}", retry_after(response))
    if response.status_code >= 500:
        return Unanswered(f"status-{response.status_code}")
    return response


def retry_after(response: httpx.Response) -> float | None:
    """Seconds until the other side wants to be asked again (RFC 9110 10.2.3), where it said so."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdigit():
        return float(text)
    at = _date(text)
    if at is None:
        return None
    since = _date(response.headers.get("Date", "")) or SystemClock().real()
    return max(0.0, (at - since).total_seconds())


def _date(text: str) -> datetime | None:
    """An HTTP date (RFC 9110 5.6.7), or None where it is not one."""
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
