"""Where carectl finds the services and its token: the environment, then a file, then a stack that runs here."""

from __future__ import annotations

import json
from pathlib import Path

import jwt
import pytest

from deploy.carectl.places import Misconfigured, places
from deploy.simulators.issuer import Issuer


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """A folder as a running stack leaves it."""
    addresses = {"intake": "http://127.0.0.1:1", "broker": "127.0.0.1:2", "issuer": "http://127.0.0.1:3"}
    programs = [{"name": "broker", "group": "foundation"}, {"name": "intake", "group": "services"}]
    state = {"addresses": addresses, "programs": programs}
    (tmp_path / "stack.json").write_text(json.dumps(state), encoding="utf-8")
    Issuer(tmp_path / "outside" / "issuer")
    return tmp_path


def test_a_stack_that_runs_here_is_found_with_a_token_of_its_own(stack: Path) -> None:
    found = places({"CARECTL_STACK": str(stack)})
    assert dict(found.urls) == {"intake": "http://127.0.0.1:1"}
    assert found.traces == stack / "traces"
    claims = jwt.decode(found.token(), options={"verify_signature": False})
    assert (claims["roles"], claims["sub"]) == (["operator"], "developer")


def test_the_file_comes_before_the_stack_and_the_environment_before_both(stack: Path, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("from the file\n", encoding="utf-8")
    config = tmp_path / "carectl.toml"
    config.write_text(
        f'token_file = "{token}"\njaeger = "http://jaeger"\n[services]\nintake = "http://intake/"\n', encoding="utf-8"
    )
    found = places({"CARECTL_STACK": str(stack)}, config)
    assert (dict(found.urls), found.token(), found.jaeger) == (
        {"intake": "http://intake"},
        "from the file",
        "http://jaeger",
    )
    environment = {
        "CARECTL_CONFIG": str(config),
        "CARECTL_SERVICES": "intake=http://a, referrals=http://b/",
        "CARECTL_TOKEN": "mine",
        "JAEGER_URL": "http://other",
    }
    found = places(environment)
    assert dict(found.urls) == {"intake": "http://a", "referrals": "http://b"}
    assert (found.token(), found.jaeger) == ("mine", "http://other")


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    nowhere = {"CARECTL_STACK": str(tmp_path), "CARECTL_CONFIG": str(tmp_path / "absent.toml")}
    with pytest.raises(Misconfigured, match="there is no file"):
        places(nowhere)
    empty = tmp_path / "empty.toml"
    empty.write_text("", encoding="utf-8")
    with pytest.raises(Misconfigured, match="make up"):
        places({**nowhere, "CARECTL_CONFIG": str(empty)})
    empty.write_text("not toml", encoding="utf-8")
    with pytest.raises(Misconfigured, match="cannot be read"):
        places({**nowhere, "CARECTL_CONFIG": str(empty)})
    found = places(
        {"CARECTL_SERVICES": "intake=http://a", "CARECTL_STACK": str(tmp_path), "CARECTL_TOKEN_FILE": "none"}
    )
    with pytest.raises(Misconfigured, match="token cannot be read"):
        found.token()
    found = places({"CARECTL_SERVICES": "intake=http://a", "CARECTL_STACK": str(tmp_path)})
    with pytest.raises(Misconfigured, match="token of an operator"):
        found.token()
