"""Who calls: a bearer JWT (RFC 7519), checked against the issuer's published keys (RFC 7517), and its roles."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Any

import httpx
import jwt

from shared.kit.clock import Clock
from shared.kit.errors import Unauthenticated, Unavailable
from shared.kit.telemetry import log

TOKENS_KEPT = 1024
"""So many tokens that held are remembered: to check a signature takes a third of a small request's time."""

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
    SUBSCRIBER = "subscriber"


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller."""

    subject: str
    roles: frozenset[Role]


@dataclass(frozen=True, slots=True)
class _Held:
    """A token that held: by which key, until when (seconds since 1970), and who it names."""

    key: jwt.PyJWK
    until: float
    caller: Caller


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
        self._held: OrderedDict[bytes, _Held] = OrderedDict()
        """By a digest of the token, the last used last."""
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
        known = sha256(token.encode()).digest()
        if (held := self._held.get(known)) is not None and held.key is key:
            if self._clock.real().timestamp() < held.until:
                self._held.move_to_end(known)
                return held.caller
            del self._held[known]
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
        caller = Caller(str(claims["sub"]), frozenset(role for role in Role if role.value in named))
        self._held[known] = _Held(key, float(claims["exp"]), caller)
        if len(self._held) > TOKENS_KEPT:
            self._held.popitem(last=False)
        return caller

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
