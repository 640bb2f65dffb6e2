"""The issuer's tokens hold before the kit's own check, and those that must not hold do not."""

from __future__ import annotations

import stat
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest

from deploy.simulators import issuer as issuers
from deploy.simulators.issuer import Issuer
from shared.kit.auth import Role, Verifier
from shared.kit.clock import SystemClock
from shared.kit.errors import Unauthenticated
from tests.unit.simulators.world import client


def verifier(issuer: Issuer) -> Verifier:
    return Verifier(
        client(issuer.app),
        SystemClock(),
        jwks_url="http://issuer.test/.well-known/jwks.json",
        issuer=issuer.url,
        audience="carerelay",
        algorithms=["ES256"],
    )


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer(tmp_path, "http://issuer.test")


async def test_a_minted_token_names_its_caller_and_roles(issuer: Issuer) -> None:
    token = issuer.mint(Role.CLINICIAN, Role.COORDINATOR, subject="dr-test")
    caller = await verifier(issuer).caller(f"Bearer {token}")
    assert (caller.subject, caller.roles) == ("dr-test", frozenset({Role.CLINICIAN, Role.COORDINATOR}))


@pytest.mark.parametrize(
    "wrong", [{"ttl": timedelta(seconds=-60)}, {"audience": "others"}, {"issuer": "http://elsewhere.test"}]
)
async def test_a_token_that_must_not_hold_does_not(issuer: Issuer, wrong: dict[str, Any]) -> None:
    with pytest.raises(Unauthenticated):
        await verifier(issuer).caller(f"Bearer {issuer.mint(Role.AUDITOR, **wrong)}")


async def test_a_token_of_another_folder_does_not_hold(issuer: Issuer, tmp_path: Path) -> None:
    other = Issuer(tmp_path / "other", issuer.url)
    with pytest.raises(Unauthenticated):
        await verifier(issuer).caller(f"Bearer {other.mint(Role.AUDITOR)}")


def test_the_key_is_made_once_and_readable_by_its_owner_alone(tmp_path: Path) -> None:
    first, second = Issuer(tmp_path), Issuer(tmp_path)
    assert first.jwk == second.jwk
    assert "d" not in first.jwk
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["key.pem"]


async def test_the_command_line_mints_what_the_running_issuer_stands_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    running = Issuer(tmp_path / "issuer", "http://issuer.test:1234")
    issuers.main(["token", "--data", str(tmp_path), "--role", "operator", "--role", "auditor", "--ttl", "60"])
    token = capsys.readouterr().out.strip()
    caller = await verifier(running).caller(f"Bearer {token}")
    assert caller.roles == {Role.OPERATOR, Role.AUDITOR}
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == 60


def test_the_command_line_knows_no_other_roles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        issuers.main(["token", "--data", str(tmp_path), "--role", "king"])
    assert "invalid choice" in capsys.readouterr().err


async def test_the_configuration_leads_to_the_keys(issuer: Issuer) -> None:
    async with client(issuer.app) as http:
        configuration = (await http.get("/.well-known/openid-configuration")).json()
        assert configuration["issuer"] == issuer.url
        keys = (await http.get(configuration["jwks_uri"])).json()
    assert keys == {"keys": [issuer.jwk]}
