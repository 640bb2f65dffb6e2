"""An identity provider for tests: its own key, its published key set, and tokens for any role."""

from __future__ import annotations

import json
from typing import Any

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from jwt.algorithms import ECAlgorithm

from shared.kit.auth import Role
from shared.kit.clock import SystemClock

ISSUER = "https://issuer.test"
AUDIENCE = "carerelay"
JWKS_URL = "https://issuer.test/.well-known/jwks.json"


class TestIssuer:
    """Mints ES256 tokens and answers for its key set through ``transport``."""

    __test__ = False

    def __init__(self) -> None:
        self.key: EllipticCurvePrivateKey = ec.generate_private_key(ec.SECP256R1())
        public: dict[str, Any] = json.loads(ECAlgorithm.to_jwk(self.key.public_key()))
        self.jwks = {"keys": [{**public, "kid": "test", "use": "sig", "alg": "ES256"}]}

    def token(self, *roles: Role, subject: str = "tester", ttl: float = 3600, **claims: Any) -> str:
        """A token with these roles; ``claims`` replaces or adds single claims."""
        now = SystemClock().real().timestamp()
        body = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": subject,
            "roles": [role.value for role in roles],
            "iat": int(now),
            "exp": int(now + ttl),
            **claims,
        }
        return jwt.encode(body, self.key, algorithm="ES256", headers={"kid": "test"})

    def transport(self) -> httpx.MockTransport:
        """Serves the key set; nothing else is reachable."""

        def answer(request: httpx.Request) -> httpx.Response:
            if str(request.url) == JWKS_URL:
                return httpx.Response(200, json=self.jwks)
            raise httpx.ConnectError("nothing is there", request=request)

        return httpx.MockTransport(answer)
