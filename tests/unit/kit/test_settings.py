"""What the environment may ask for: what cannot be done as it says is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from shared.kit.settings import KitSettings

LOGIN = {"KAFKA_SASL_USERNAME": "carerelay", "KAFKA_SASL_PASSWORD": "hidden from errors"}


def configured(monkeypatch: pytest.MonkeyPatch, **environment: str) -> KitSettings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return KitSettings()


def test_by_default_the_broker_is_spoken_to_in_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = configured(monkeypatch)

    assert (settings.kafka_login(), settings.kafka_tls()) == (None, None)


def test_a_user_by_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = configured(monkeypatch, KAFKA_SECURITY_PROTOCOL="SASL_SSL", **LOGIN)

    login = settings.kafka_login()
    assert login is not None
    assert (login.mechanism, login.username, login.password) == (
        "SCRAM-SHA-512",
        "carerelay",
        LOGIN["KAFKA_SASL_PASSWORD"],
    )
    assert settings.kafka_tls() is not None
    assert LOGIN["KAFKA_SASL_PASSWORD"] not in f"{settings!r} {login!r}"


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}, "KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"),
        ({"KAFKA_SECURITY_PROTOCOL": "SSL", **LOGIN}, "KAFKA_SASL_PASSWORD, KAFKA_SASL_USERNAME: of no use"),
        (LOGIN, "of no use with KAFKA_SECURITY_PROTOCOL=PLAINTEXT"),
        ({"KAFKA_SSL_CA_FILE": __file__}, "KAFKA_SSL_CA_FILE: of no use"),
        ({"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CA_FILE": __file__}, "make no TLS"),
        ({"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CA_FILE": "absent.pem"}, "does not point to a file"),
        ({"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_KEY_FILE": __file__}, "goes with KAFKA_SSL_CERTIFICATE_FILE"),
        ({"KAFKA_SECURITY_PROTOCOL": "TLS"}, "Input should be"),
        ({"KAFKA_SASL_MECHANISM": "GSSAPI"}, "Input should be"),
    ],
)
def test_what_would_be_left_out_or_cannot_be_is_refused_and_told_without_the_password(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], says: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        configured(monkeypatch, **environment)

    told = [flaw["msg"] for flaw in refused.value.errors()]
    assert says in " ".join(told)
    assert not any(LOGIN["KAFKA_SASL_PASSWORD"] in each for each in told)


def test_an_unreadable_file_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="KAFKA_SSL_"):
        configured(monkeypatch, KAFKA_SECURITY_PROTOCOL="SSL", KAFKA_SSL_CERTIFICATE_FILE=str(_empty(tmp_path)))


def _empty(folder: Path) -> Path:
    file = folder / "empty.pem"
    file.touch()
    return file
