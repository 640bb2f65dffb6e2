"""Who calls: a bearer JWT (RFC 7519), checked against the issuer's published keys (RFC 7517), and its roles."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import httpx
import jwt

from shared.kit.clock import Clock
from shared.kit.errors import Unauthenticated, Unavailable
from shared.kit.telemetry import log

KEYS_KEPT = 300.0
KEYS_ASKED_AGAIN = 10.0
"""Seconds that keys are kept, and the least between two questions for a key that was not among them."""


class Role(StrEnum):
    """What a caller may be; the claim ``roles`` of a token."""

    COORDINATOR = "coordinator"
    CLINICIAN = "clinician"
    SCHEDULER = "scheduler"
    DIRECTORY_EDITOR = "directory-editor"
    AUDITOR = "auditor"
    OPERATOR = "operator"
    SERVICE = "service"


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller."""

    subject: str
    roles: frozenset[Role]


class Verifier:
    """Checks tokens: signature by a key of the issuer, algorithm from a list, issuer, audience, expiry."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        clock: Clock,
        *,
        jwks_url: str,
        issuer: str,
        audience: str,
        algorithms: Iterable[str],
    ) -> None:
        self._http = http
        self._clock = clock
        self._jwks_url = jwks_url
        self._issuer = issuer
        self._audience = audience
        self._algorithms = [name for name in algorithms if name.lower() != "none" and not name.startswith("HS")]
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched = self._asked = float("-inf")
        self._one_at_a_time = asyncio.Lock()

    async def caller(self, authorization: str | None) -> Caller:
        """The caller that an Authorization header names.

        Raises Unauthenticated where there is none or it does not hold, Unavailable where the issuer's keys cannot be
        had at all.
        """
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated()
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError:
            raise Unauthenticated("the token cannot be read") from None
        algorithm = header.get("alg")
        if algorithm not in self._algorithms:
            raise Unauthenticated("the token's algorithm is not accepted")
        key = await self._key(header.get("kid"))
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key.key,
                algorithms=[algorithm],
                issuer=self._issuer,
                audience=self._audience,
                leeway=5,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except (jwt.PyJWTError, TypeError, ValueError) as error:
            raise Unauthenticated(f"the token does not hold ({type(error).__name__})") from None
        roles = claims.get("roles")
        named = [name for name in roles if isinstance(name, str)] if isinstance(roles, list) else []
        return Caller(str(claims["sub"]), frozenset(role for role in Role if role.value in named))

    async def _key(self, kid: str | None) -> jwt.PyJWK:
        async with self._one_at_a_time:
            now = self._clock.monotonic()
            wanted = now - self._fetched > KEYS_KEPT or kid not in self._keys
            if wanted and (not self._keys or now - self._asked > KEYS_ASKED_AGAIN):
                self._asked = now
                await self._fetch()
        if kid is None or kid not in self._keys:
            if not self._keys:
                raise Unavailable("the issuer's keys cannot be had just now")
            raise Unauthenticated("the token's key is not the issuer's")
        return self._keys[kid]

    async def _fetch(self) -> None:
        try:
            answer = await self._http.get(self._jwks_url, timeout=5.0)
            answer.raise_for_status()
            keys = jwt.PyJWKSet.from_dict(answer.json()).keys
        except (httpx.HTTPError, jwt.PyJWTError, ValueError, TypeError, AttributeError) as error:
            # The keys that are known stay good: an issuer that is down must not stop the whole system.
            log.warning("jwks.unavailable", error=type(error).__name__)
            return
        self._keys = {key.key_id: key for key in keys if key.key_id}
        self._fetched = self._clock.monotonic()
