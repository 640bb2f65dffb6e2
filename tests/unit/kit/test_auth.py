"""Tokens: what holds, what does not, and keys that come and go."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Iterable
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from shared.kit.auth import KEYS_ASKED_AGAIN, KEYS_KEPT, Caller, Role, Verifier
from shared.kit.clock import FrozenClock, SystemClock
from shared.kit.errors import Unauthenticated, Unavailable
from shared.kit.testing.tokens import AUDIENCE, ISSUER, JWKS_URL, TestIssuer
from tests.unit.kit.bench import START


class Desk:
    """A verifier, the issuer behind it, and how often that was asked."""

    def __init__(self, algorithms: Iterable[str] = ("ES256", "RS256")) -> None:
        self.issuer = TestIssuer()
        self.clock = FrozenClock(START)
        self.asked = 0
        self.down = False
        self.verifier = Verifier(
            httpx.AsyncClient(transport=httpx.MockTransport(self._answer)),
            self.clock,
            jwks_url=JWKS_URL,
            issuer=ISSUER,
            audience=AUDIENCE,
            algorithms=algorithms,
        )

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        if self.down:
            raise httpx.ConnectTimeout("down", request=request)
        return httpx.Response(200, json=self.issuer.jwks)

    async def caller(self, token: str) -> Caller:
        return await self.verifier.caller(f"Bearer {token}")

    def forged(self, header: dict[str, Any], key: Any = None, algorithm: str = "ES256", **claims: Any) -> str:
        return jwt.encode(self.claims(**claims), key or self.issuer.key, algorithm=algorithm, headers=header)

    def claims(self, **replaced: Any) -> dict[str, Any]:
        now = int(SystemClock().real().timestamp())
        body = {"iss": ISSUER, "aud": AUDIENCE, "sub": "tester", "roles": ["operator"], "iat": now, "exp": now + 60}
        return {name: value for name, value in {**body, **replaced}.items() if value is not None}


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_a_token_that_holds_names_its_caller_and_roles(desk: Desk) -> None:
    token = desk.issuer.token(Role.CLINICIAN, Role.AUDITOR, subject="dr-1")

    assert await desk.caller(token) == Caller("dr-1", frozenset({Role.CLINICIAN, Role.AUDITOR}))
    assert await desk.verifier.caller(f"bearer {token}") == await desk.caller(token)
    assert desk.asked == 1


@pytest.mark.parametrize("roles", [None, "operator", [], ["root", 7, None, {"operator": 1}], {"operator": True}])
async def test_roles_that_are_none_of_ours_are_no_roles(desk: Desk, roles: object) -> None:
    assert (await desk.caller(desk.forged({"kid": "test"}, roles=roles))).roles == frozenset()


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic dTpw", "Bearer not-a-token", "Bearer a.b.c", "Bearer é.é.é"]
)
async def test_what_is_no_token_is_refused(desk: Desk, header: str | None) -> None:
    with pytest.raises(Unauthenticated):
        await desk.verifier.caller(header)


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": int(SystemClock().real().timestamp()) - 3600},
        {"exp": "soon"},
        {"exp": None},
        {"nbf": int(SystemClock().real().timestamp()) + 3600},
        {"aud": "somebody-else"},
        {"aud": None},
        {"iss": "https://elsewhere.test"},
        {"iss": None},
        {"sub": None},
    ],
    ids=[
        "expired",
        "expiry-no-number",
        "no-expiry",
        "not-yet",
        "another-audience",
        "no-audience",
        "another-issuer",
        "no-issuer",
        "no-subject",
    ],
)
async def test_claims_that_do_not_hold_are_refused(desk: Desk, claims: dict[str, Any]) -> None:
    token = desk.forged({"kid": "test"})
    assert (await desk.caller(token)).subject == "tester"
    body = {**desk.claims(), **claims}

    token = jwt.encode({k: v for k, v in body.items() if v is not None}, desk.issuer.key, "ES256", {"kid": "test"})

    with pytest.raises(Unauthenticated):
        await desk.caller(token)


async def test_a_token_signed_by_somebody_else_is_refused(desk: Desk) -> None:
    with pytest.raises(Unauthenticated):
        await desk.caller(desk.forged({"kid": "test"}, key=ec.generate_private_key(ec.SECP256R1())))


async def test_a_token_that_was_changed_is_refused(desk: Desk) -> None:
    header, _, signature = desk.issuer.token(Role.AUDITOR).split(".")
    body = base64.urlsafe_b64encode(json.dumps(desk.claims(roles=["operator"])).encode()).rstrip(b"=").decode()

    with pytest.raises(Unauthenticated):
        await desk.caller(f"{header}.{body}.{signature}")


async def test_an_unsigned_token_is_refused(desk: Desk) -> None:
    token = jwt.encode(desk.claims(), None, algorithm="none", headers={"kid": "test"})

    with pytest.raises(Unauthenticated):
        await desk.caller(token)
    assert desk.asked == 0


async def test_a_token_signed_with_the_public_key_as_a_secret_is_refused(desk: Desk) -> None:
    """The old trick: the published key taken for an HMAC secret."""
    public = desk.issuer.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    header = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "kid": "test"}).encode()).rstrip(b"=")
    body = base64.urlsafe_b64encode(json.dumps(desk.claims()).encode()).rstrip(b"=")
    signature = base64.urlsafe_b64encode(hmac.digest(public, header + b"." + body, "sha256")).rstrip(b"=")

    with pytest.raises(Unauthenticated):
        await desk.caller(b".".join((header, body, signature)).decode())


@pytest.mark.parametrize("name", ["none", "NONE", "HS256", "HS512"])
async def test_no_setting_lets_an_unsafe_algorithm_in(name: str) -> None:
    desk = Desk(algorithms=("ES256", name))
    secret = "s" * 64 if name.startswith("HS") else None
    token = jwt.encode(
        desk.claims(), secret, algorithm=name.lower() if secret is None else name, headers={"kid": "test"}
    )

    with pytest.raises(Unauthenticated):
        await desk.caller(token)


async def test_an_algorithm_that_does_not_belong_to_its_key_is_refused(desk: Desk) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    with pytest.raises(Unauthenticated):
        await desk.caller(desk.forged({"kid": "test"}, key=key, algorithm="RS256"))


async def test_an_rsa_key_of_the_issuer_is_as_good(desk: Desk) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = json.loads(RSAAlgorithm.to_jwk(key.public_key()))
    desk.issuer.jwks["keys"].append({**public, "kid": "rsa", "use": "sig", "alg": "RS256"})

    assert (await desk.caller(desk.forged({"kid": "rsa"}, key=key, algorithm="RS256"))).subject == "tester"


# -- keys that come and go ------------------------------------------------------------------------------------


def rotate(desk: Desk, kid: str) -> Any:
    """The issuer signs with a new key from now on, and publishes it alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = json.loads(ECAlgorithm.to_jwk(key.public_key()))
    desk.issuer.jwks = {"keys": [{**public, "kid": kid, "use": "sig", "alg": "ES256"}]}
    return key


async def test_a_new_key_is_asked_for_when_a_token_names_it(desk: Desk) -> None:
    await desk.caller(desk.issuer.token())
    key = rotate(desk, "next")
    desk.clock.pass_(KEYS_ASKED_AGAIN + 1)

    assert (await desk.caller(desk.forged({"kid": "next"}, key=key))).subject == "tester"
    assert desk.asked == 2
    with pytest.raises(Unauthenticated):
        await desk.caller(desk.issuer.token())


async def test_made_up_key_ids_do_not_make_us_ask_again_and_again(desk: Desk) -> None:
    await desk.caller(desk.issuer.token())
    desk.clock.pass_(KEYS_ASKED_AGAIN + 1)

    for number in range(20):
        with pytest.raises(Unauthenticated):
            await desk.caller(desk.forged({"kid": f"made-up-{number}"}))
    with pytest.raises(Unauthenticated):
        await desk.caller(desk.forged({}))

    assert desk.asked == 2


async def test_keys_are_asked_for_anew_after_a_while(desk: Desk) -> None:
    await desk.caller(desk.issuer.token())
    desk.clock.pass_(KEYS_KEPT - 1)
    await desk.caller(desk.issuer.token())
    assert desk.asked == 1

    desk.clock.pass_(2)
    await desk.caller(desk.issuer.token())
    assert desk.asked == 2


async def test_an_issuer_that_is_down_stops_nobody_whose_key_is_known_and_is_not_asked_by_each(desk: Desk) -> None:
    await desk.caller(desk.issuer.token())
    desk.down = True
    desk.clock.pass_(KEYS_KEPT + 1)

    for _ in range(10):
        assert (await desk.caller(desk.issuer.token())).subject == "tester"

    assert desk.asked == 2
    desk.down = False
    desk.clock.pass_(KEYS_ASKED_AGAIN + 1)
    await desk.caller(desk.issuer.token())
    assert desk.asked == 3


async def test_while_no_key_could_be_had_yet_the_door_is_unavailable_and_not_the_token_at_fault(desk: Desk) -> None:
    desk.down = True
    with pytest.raises(Unavailable):
        await desk.caller(desk.issuer.token())

    desk.down = False
    assert (await desk.caller(desk.issuer.token())).subject == "tester"


@pytest.mark.parametrize("published", [[], {"keys": []}, {"keys": [{"kty": "?"}]}, {"no": "keys"}, "text"])
async def test_a_key_set_that_cannot_be_read_is_like_none(desk: Desk, published: Any) -> None:
    desk.issuer.jwks = published

    with pytest.raises((Unavailable, Unauthenticated)):
        await desk.caller(desk.issuer.token())


async def test_a_token_that_held_holds_no_longer_than_it_says(desk: Desk) -> None:
    """Its signature is checked once; its expiry, and that its key is still the issuer's, every time."""
    soon = int(desk.clock.real().timestamp()) + 60
    token = desk.forged({"kid": "test"}, exp=max(soon, int(SystemClock().real().timestamp()) + 60))
    assert (await desk.caller(token)).subject == "tester"
    verified = desk.verifier._held.copy()
    assert (await desk.caller(token)).subject == "tester"
    assert list(desk.verifier._held.values()) == list(verified.values()), "it was not checked again"

    desk.clock.pass_(max(0.0, next(iter(verified.values())).until - desk.clock.real().timestamp()))
    await desk.caller(token)

    assert next(iter(desk.verifier._held.values())) is not next(iter(verified.values())), "it was checked anew"


async def test_a_token_whose_key_the_issuer_took_back_holds_no_longer(desk: Desk) -> None:
    token = desk.issuer.token(Role.OPERATOR)
    await desk.caller(token)

    desk.issuer = TestIssuer()
    desk.clock.pass_(KEYS_KEPT + 1)

    with pytest.raises(Unauthenticated):
        await desk.caller(token)


async def test_no_more_tokens_are_kept_than_there_is_room_for(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.kit.auth.TOKENS_KEPT", 2)
    tokens = [desk.issuer.token(Role.OPERATOR, subject=f"op-{number}") for number in range(3)]
    for token in tokens:
        await desk.caller(token)

    assert [held.caller.subject for held in desk.verifier._held.values()] == ["op-1", "op-2"]
