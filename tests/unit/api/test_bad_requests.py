"""Bad requests to every route of every service: each gets its clear answer, and nothing is written."""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from functools import cache
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from shared.kit.api import undeclared
from shared.kit.auth import Role
from shared.kit.testing.harness import Harness
from shared.kit.testing.tokens import TestIssuer
from tests.contract.services import WIRING
from tests.unit.api.doors import (
    ABSENT,
    BODIES,
    EVERY,
    FHIR_BODIES,
    QUERIES,
    WITH_BODY,
    Door,
    doors,
    harness,
    named,
    refused,
    routes,
    stored,
)

OPEN = {"/health/live", "/health/ready"}
MIB = 1024 * 1024


async def ask(
    served: Harness,
    door: Door,
    *,
    body: Any = None,
    content: Any = None,
    headers: dict[str, str] | None = None,
    url: str | None = None,
    authorization: str | None = "valid",
    key: str | None = "fresh",
) -> httpx.Response:
    """One request; what is not given is as it should be."""
    sent = dict(headers or {})
    if key is not None:
        sent["Idempotency-Key"] = served.key()["Idempotency-Key"] if key == "fresh" else key
    if authorization == "valid":
        authorization = "Bearer " + served.issuer.token(door.role, subject="payer-simulator")
    if authorization is not None:
        sent["Authorization"] = authorization
    if content is None and (body is not None or door.takes_body):
        content = json.dumps(door.body if body is None else body)
    if content is not None:
        sent.setdefault("Content-Type", "application/json")
    transport = httpx.ASGITransport(app=served.chassis.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service.test") as client:
        where = (url or door.url()) + QUERIES.get(str(door), "")
        # As bytes: what is no ASCII goes out as it is, as from any careless client.
        raw = [(name.encode(), value.encode("latin-1")) for name, value in sent.items()]
        return await client.request(door.method, where, content=content, headers=raw)


@cache
def shared(service: str) -> Harness:
    """A service for all tests that must leave it as it is."""
    return harness(service)


@pytest.fixture
async def served(door: Door) -> AsyncIterator[Harness]:
    """The door's service; whatever is asked of it, nothing may be written."""
    made = shared(door.service)
    await made.chassis.prepare()
    before = stored(made.store)
    yield made
    assert stored(made.store) == before


# -- the table of routes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", WIRING)
def test_every_route_declares_its_roles_and_health_alone_asks_for_no_token(service: str) -> None:
    app = harness(service).chassis.app
    assert undeclared(app) == []
    assert {route.path for route in routes(app) if not route.endpoint.roles} == OPEN


def test_every_route_that_takes_a_body_has_one_that_fits_it() -> None:
    assert {(door.service, door.method, door.path) for door in WITH_BODY} == set(BODIES)


@pytest.mark.parametrize("door", WITH_BODY, ids=str)
async def test_a_body_that_fits_is_not_refused_for_its_form(door: Door) -> None:
    """So that every refusal below is for what was made wrong, and for nothing else."""
    answer = await ask(harness(door.service), door)
    assert answer.status_code in {200, 201, 202, 404}, answer.text


@pytest.mark.parametrize("service", WIRING)
async def test_what_is_not_there_is_a_problem_as_well(service: str) -> None:
    served = harness(service)
    door = doors(service)[0]
    for method in ("GET", "POST", "PUT"):
        nothing = Door(service, method, "/nowhere/at/all", frozenset(Role), False)
        assert refused(await ask(served, nothing))["status"] == 404
    other = Door(service, "DELETE", door.path, door.roles, False)
    assert refused(await ask(served, other))["status"] == 405


# -- who asks -------------------------------------------------------------------------------------------------------


STRANGER = ec.generate_private_key(ec.SECP256R1())


def bad_tokens(issuer: TestIssuer, role: Role) -> dict[str, str | None]:
    """Every way in which an Authorization header does not hold."""
    good = issuer.token(role)
    head, payload, signature = good.split(".")
    claims = jwt.decode(good, options={"verify_signature": False})
    public = issuer.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def signed(key: EllipticCurvePrivateKey, *without: str, **headers: str) -> str:
        kept = {name: value for name, value in claims.items() if name not in without}
        return jwt.encode(kept, key, "ES256", headers)

    tokens = {
        "garbage": "garbage",
        "three garbage parts": "a.b.c",
        "no text": "\u00ff\u00fe.\u00ff.\u00ff",
        "expired": issuer.token(role, ttl=-3600),
        "another audience": issuer.token(role, aud="somebody-else"),
        "another issuer": issuer.token(role, iss="https://elsewhere.test"),
        "no expiry": signed(issuer.key, "exp", kid="test"),
        "no subject": signed(issuer.key, "sub", kid="test"),
        "no audience": signed(issuer.key, "aud", kid="test"),
        "no issuer": signed(issuer.key, "iss", kid="test"),
        "alg none": jwt.encode(claims, "", algorithm="none", headers={"kid": "test"}),
        "HS256 with the public key": signed_with_a_secret(claims, public),
        "another key under our name": signed(STRANGER, kid="test"),
        "a key never heard of": signed(STRANGER, kid="other"),
        "no key named": signed(issuer.key),
        "signature gone": f"{head}.{payload}.",
        "signature changed": f"{head}.{payload}.{'A' * len(signature)}",
        "claims changed": f"{head}.{payload[:-4]}AAAA.{signature}",
    }
    schemes = {"none": None, "empty": "", "no scheme": good, "another scheme": f"Basic {good}", "only it": "Bearer "}
    return {**schemes, **{kind: f"Bearer {token}" for kind, token in tokens.items()}}


def signed_with_a_secret(claims: dict[str, Any], secret: bytes) -> str:
    """HS256 by hand: PyJWT will not sign with a public key; an attacker's library will."""

    def coded(data: bytes) -> str:
        return urlsafe_b64encode(data).rstrip(b"=").decode()

    head = coded(json.dumps({"alg": "HS256", "typ": "JWT", "kid": "test"}).encode())
    text = f"{head}.{coded(json.dumps(claims).encode())}"
    return f"{text}.{coded(hmac.new(secret, text.encode(), hashlib.sha256).digest())}"


@pytest.mark.parametrize("door", EVERY, ids=str)
async def test_without_a_token_that_holds_there_is_401_before_anything_is_read(door: Door, served: Harness) -> None:
    for kind, authorization in bad_tokens(served.issuer, door.role).items():
        content = b"{ not read" if door.takes_body else None
        answer = await ask(served, door, authorization=authorization, content=content, url=door.url(id="x"))
        assert answer.status_code == 401, f"{kind}: {answer.text}"
        assert refused(answer)["type"] == "urn:carerelay:problem:unauthenticated"
        assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("door", EVERY, ids=str)
async def test_each_role_that_is_not_declared_is_refused(door: Door, served: Harness) -> None:
    others = [[role] for role in sorted(set(Role) - door.roles)]
    for roles in [*others, [], [role for (role,) in others]]:
        answer = await ask(served, door, authorization=f"Bearer {served.issuer.token(*roles)}")
        assert answer.status_code == 403, f"{roles}: {answer.text}"
        assert refused(answer)["type"] == "urn:carerelay:problem:forbidden"


@pytest.mark.parametrize("roles", ["coordinator", {"coordinator": True}, 7, None, [["coordinator"]], ["COORDINATOR"]])
@pytest.mark.parametrize("service", WIRING)
async def test_a_role_claim_of_another_shape_gives_no_role(service: str, roles: Any) -> None:
    served = shared(service)
    for door in doors(service):
        answer = await ask(served, door, authorization=f"Bearer {served.issuer.token(roles=roles)}")
        assert answer.status_code == 403


# -- what is sent ---------------------------------------------------------------------------------------------------

UNREADABLE: dict[str, bytes] = {
    "nothing": b"",
    "half an object": b'{"a": ',
    "no JSON": b"<xml/>",
    "two values": b"{} {}",
    "a trailing comma": b'{"a": 1,}',
    "no UTF-8": b'{"a": "\xff\xfe"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "nested without end": b"[" * 200_000,
    "nested objects without end": b'{"a":' * 100_000,
    "an endless number": b"1" * 100_000,
    "null bytes": b"\x00" * 64,
}


MAY_BE_EMPTY = frozenset({"/authorizations/{id}/appeal", "/authorizations/{id}/supply"})
"""Doors that also take a request without a body."""


@pytest.mark.parametrize("door", WITH_BODY, ids=str)
async def test_what_is_not_json_is_said_to_be_unreadable(door: Door, served: Harness) -> None:
    for kind, content in UNREADABLE.items():
        if not content and door.path in MAY_BE_EMPTY:
            continue
        answer = await ask(served, door, content=content)
        assert answer.status_code in {400, 422}, f"{kind}: {answer.status_code} {answer.text}"
        problem = refused(answer)
        assert problem["status"] == 400 or problem["errors"], kind


@pytest.mark.parametrize("door", WITH_BODY, ids=str)
async def test_what_is_no_object_is_refused(door: Door, served: Harness) -> None:
    for value in ([], [1, 2], "text", 7, True, None, 1.5):
        if value is None and door.path in MAY_BE_EMPTY:
            continue
        answer = await ask(served, door, content=json.dumps(value))
        assert answer.status_code == 422, f"{value!r}: {answer.text}"
        assert refused(answer)["errors"]


@pytest.mark.parametrize("door", WITH_BODY, ids=str)
async def test_a_field_of_the_wrong_type_is_named(door: Door, served: Harness) -> None:
    body = door.body or {}
    for field, value in body.items():
        if field == "id" and _read_leniently(door):
            continue
        for wrong in (["of another type"], {"of": {"another": "type"}}, "of another type"):
            if type(wrong) is type(value):
                continue
            answer = await ask(served, door, body={**body, field: wrong})
            assert answer.status_code == 422, f"{field} as {wrong}: {answer.status_code} {answer.text}"
            assert any(field in path for path in named(answer)), f"{field}: {answer.text}"


def _read_leniently(door: Door) -> bool:
    """Bundles are read for the resources in them, whatever stands beside."""
    return BODIES[door.service, door.method, door.path].get("resourceType") == "Bundle"


TAKES_MORE = "/services/{id}"
"""HSDS profiles may add fields of their own."""

STRICT = [door for door in WITH_BODY if not _read_leniently(door) and door.path != TAKES_MORE]


@pytest.mark.parametrize("door", STRICT, ids=str)
async def test_a_field_that_is_not_known_is_refused_without_repeating_its_name(door: Door, served: Harness) -> None:
    for unknown in ("Zanzibarra Quetzal", "zanzibarra", "Zanzibarra-Quetzal"):
        answer = await ask(served, door, body={**(door.body or {}), unknown: 1})
        assert answer.status_code == 422, answer.text
        assert refused(answer)["errors"]
        assert "anzibarra" not in answer.text


NO_IDS = ("not-an-id", ABSENT[:-1], f"{ABSENT}x", ABSENT.replace("-", ""), ABSENT[:-1] + "g")


@pytest.mark.parametrize("door", [door for door in EVERY if door.places], ids=str)
async def test_an_ill_formed_reference_in_the_address_is_named(door: Door, served: Harness) -> None:
    for place in door.places:
        for wrong in ("%00", "ä ö") if place == "payer_id" else (*NO_IDS, "%00", "ä ö"):
            answer = await ask(served, door, url=door.url(**{place: wrong}))
            assert answer.status_code == 422, f"{wrong}: {answer.text}"
            assert place in named(answer)
            assert wrong not in answer.text


OPTIONAL = {"referral_id", "requester_id", "performer_id", "specialist_id", "patient_id", "clinician_id"}
"""References that some bodies may leave out."""


def _references(door: Door) -> list[str]:
    """The fields of a plain JSON body that hold an id."""
    if (door.service, door.method, door.path) in FHIR_BODIES:
        return []
    given = BODIES[door.service, door.method, door.path]
    return [field for field, value in given.items() if isinstance(value, str) and len(value) == len(ABSENT)]


@pytest.mark.parametrize("door", [door for door in WITH_BODY if _references(door)], ids=str)
async def test_an_ill_formed_reference_in_the_body_is_named(door: Door, served: Harness) -> None:
    for field in _references(door):
        for wrong in (*NO_IDS, "", f"Patient/{ABSENT}", f" {ABSENT}", 7, None, [ABSENT]):
            if (wrong is None and field in OPTIONAL) or (wrong == ABSENT.replace("-", "") and door.path == TAKES_MORE):
                continue  # HSDS takes a UUID in any spelling.
            answer = await ask(served, door, body={**(door.body or {}), field: wrong})
            assert answer.status_code == 422, f"{field} {wrong!r}: {answer.text}"
            assert any(field in path for path in named(answer))


# -- how much is sent -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", EVERY, ids=str)
async def test_a_body_over_a_mebibyte_is_refused_with_and_without_its_length(door: Door, served: Harness) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(17):
            yield b" " * (64 * 1024)

    told = await ask(served, door, content=b" " * (MIB + 1))
    assert refused(told)["status"] == 413
    if door.method == "GET":
        return
    untold = await ask(served, door, content=chunks(), headers={"Transfer-Encoding": "chunked"})
    assert refused(untold)["status"] == 413
    lied = await ask(served, door, content=chunks(), headers={"Content-Length": "10"})
    assert refused(lied)["status"] == 413


@pytest.mark.parametrize("length", ["-1", "1e3", "many", "99999999999999999999999"])
async def test_a_length_that_is_none_is_refused(length: str) -> None:
    door = WITH_BODY[0]
    answer = await ask(harness(door.service), door, headers={"Content-Length": length})
    assert refused(answer)["status"] in {400, 413}


@pytest.mark.parametrize("door", WITH_BODY, ids=str)
async def test_a_body_of_exactly_a_mebibyte_is_read(door: Door) -> None:
    answer = await ask(harness(door.service), door, content=json.dumps(door.body).encode().ljust(MIB))
    assert answer.status_code != 413


# -- headers --------------------------------------------------------------------------------------------------------

POSTS = [door for door in EVERY if door.method == "POST"]


@pytest.mark.parametrize("door", POSTS, ids=str)
async def test_a_post_without_a_usable_idempotency_key_is_refused_by_that_name(door: Door, served: Harness) -> None:
    for wrong in (None, "", " ", "two words", "x" * 256, "caf\u00e9"):
        answer = await ask(served, door, key=wrong)
        assert refused(answer)["status"] == 400, f"{wrong}: {answer.text}"
        assert named(answer) == ["Idempotency-Key"]


CHANGING = [door for door in EVERY if door.method != "GET"]


@pytest.mark.parametrize("door", CHANGING, ids=str)
async def test_an_if_match_that_is_no_etag_is_refused_by_that_name(door: Door, served: Harness) -> None:
    for wrong in ("1", "yes", '"one"', '"-1"', '"1", "2"', '"' + "9" * 40 + '"', ""):
        answer = await ask(served, door, headers={"If-Match": wrong})
        assert refused(answer)["status"] == 400, f"{wrong}: {answer.text}"
        assert named(answer) == ["If-Match"]


@pytest.mark.parametrize("door", EVERY, ids=str)
async def test_a_trace_context_that_is_none_is_not_handed_on(door: Door, served: Harness) -> None:
    for wrong in (
        "Quetzal-Zanzibarra",
        "Quetzal-00",
        "00-Quetzal-Zanzibarra-00",
        f"00-{'0' * 32}-{'0' * 16}-00",
        f"00-{'a' * 32}-{'b' * 16}-Zanzibarra-00",
    ):
        answer = await ask(served, door, headers={"traceparent": wrong}, url=door.url(), body={"no": "body"})
        assert wrong not in str(answer.headers)
        assert "Zanzibarra" not in str(answer.headers)


# -- what is asked for ----------------------------------------------------------------------------------------------

READING = [door for door in EVERY if door.method == "GET" and not door.places]


@pytest.mark.parametrize("door", READING, ids=str)
async def test_a_query_that_is_wrong_is_refused_by_name(door: Door, served: Harness) -> None:
    parameters = _parameters_of(door)
    for name, wrong in {
        "limit": ("0", "-1", "many", "1000000"),
        "page": ("0", "x"),
        "per_page": ("0", "501"),
        "after": ("not-an-id",),
        "state": ("nowhere",),
        "status": ("nowhere",),
        "patient": ("not-an-id",),
        "patient_id": ("not-an-id",),
        "referral": ("not-an-id",),
        "referral_id": ("not-an-id",),
        "need": ("everything",),
        "barrier": ("everything",),
        "from": ("sometime",),
        "modified_after": ("sometime",),
    }.items():
        if name not in parameters:
            continue
        for value in wrong:
            answer = await ask(served, door, url=f"{door.url()}?{name}={value}")
            assert answer.status_code == 422, f"{name}={value}: {answer.text}"
            assert any(name in path for path in named(answer)), answer.text
            assert refused(answer)


def _parameters_of(door: Door) -> set[str]:
    schema = harness(door.service).chassis.app.openapi()
    return {one["name"] for one in schema["paths"][door.path][door.method.lower()].get("parameters", ())}
