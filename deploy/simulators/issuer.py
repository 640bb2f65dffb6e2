"""The development identity provider: one ES256 key in a data folder, a JWKS over HTTP, tokens for whoever holds the
folder. There is no HTTP door that gives tokens."""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi import FastAPI

from shared.kit.auth import Role

AUDIENCE = "carerelay"
DEFAULT_URL = "http://127.0.0.1:8080"
DEFAULT_DATA = Path(".data") / "simulators"
ALGORITHM = "ES256"


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The key in the file, made if there is none. Two processes that start at once end up with the same one."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        draft = path.with_name(f"{path.name}.{uuid4()}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(fresh)
        try:
            os.link(draft, path)
        except FileExistsError:
            pass  # the other process was first; its key holds
        finally:
            draft.unlink()
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("the issuer's key is not an elliptic curve key")
    return key


class Issuer:
    """Mints tokens and publishes the key they are checked with.

    ``folder`` keeps the key and the issuer's address (so that the command line mints what the server stands for).
    ``url`` becomes the claim ``iss``; where it is None, the one kept in the folder holds. ``real`` is the machine's
    time: tokens never follow the demo's clock.
    """

    def __init__(
        self,
        folder: Path,
        url: str | None = None,
        *,
        audience: str = AUDIENCE,
        real: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        kept = folder / "url"
        self._key = _key(folder / "key.pem")
        if url is not None:
            kept.write_text(url, encoding="utf-8")
        elif kept.exists():
            url = kept.read_text(encoding="utf-8")
        self.url = url or DEFAULT_URL
        self.audience = audience
        self._real = real
        self.app = self._make_app()

    @property
    def jwk(self) -> dict[str, str]:
        """The public key as a JWK (RFC 7517); ``kid`` is its RFC 7638 thumbprint."""
        point = self._key.public_key().public_numbers()
        members = {
            "crv": "P-256",
            "kty": "EC",
            "x": _base64url(point.x.to_bytes(32, "big")),
            "y": _base64url(point.y.to_bytes(32, "big")),
        }
        canonical = json.dumps(members, separators=(",", ":"), sort_keys=True).encode()
        kid = _base64url(hashlib.sha256(canonical).digest())
        return {**members, "kid": kid, "use": "sig", "alg": ALGORITHM}

    def mint(
        self,
        *roles: str,
        subject: str = "developer",
        ttl: timedelta = timedelta(hours=1),
        audience: str | None = None,
        issuer: str | None = None,
    ) -> str:
        """A signed token for ``subject`` with ``roles``. A negative ``ttl``, another audience or issuer make one that
        must be refused, for tests."""
        now = self._real()
        claims = {
            "iss": issuer or self.url,
            "aud": audience or self.audience,
            "sub": subject,
            "roles": [str(role) for role in roles],
            "iat": now,
            "nbf": now - timedelta(seconds=5),  # the clocks of one machine's processes agree, but not to the tick
            "exp": now + ttl,
            "jti": str(uuid4()),
        }
        return jwt.encode(claims, self._key, algorithm=ALGORITHM, headers={"kid": self.jwk["kid"]})

    def _make_app(self) -> FastAPI:
        app = FastAPI(title="Development issuer", openapi_url=None)

        @app.get("/health")
        async def health() -> dict[str, str]:
            return {"status": "ok"}

        @app.get("/.well-known/jwks.json")
        async def jwks() -> dict[str, list[dict[str, str]]]:
            return {"keys": [self.jwk]}

        @app.get("/.well-known/openid-configuration")
        async def configuration() -> dict[str, object]:
            return {
                "issuer": self.url,
                "jwks_uri": f"{self.url}/.well-known/jwks.json",
                "id_token_signing_alg_values_supported": [ALGORITHM],
                "subject_types_supported": ["public"],
                "response_types_supported": ["none"],
            }

        app.state.issuer = self
        return app


def main(arguments: Sequence[str] | None = None) -> int:
    """``token``: print one."""
    parser = argparse.ArgumentParser(prog="python -m deploy.simulators.issuer", description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    token = commands.add_parser("token", help="print a bearer token")
    token.add_argument("--role", action="append", required=True, choices=[str(role) for role in Role])
    token.add_argument("--subject", default="developer")
    token.add_argument("--ttl", type=float, default=8 * 3600, help="seconds; eight hours by default")
    token.add_argument("--data", type=Path, default=DEFAULT_DATA, help="the simulators' data folder")
    token.add_argument("--issuer", help="the claim iss; by default what the running issuer wrote down")
    options = parser.parse_args(arguments)
    issuer = Issuer(options.data / "issuer")
    ttl = timedelta(seconds=options.ttl)
    print(issuer.mint(*options.role, subject=options.subject, ttl=ttl, issuer=options.issuer))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
