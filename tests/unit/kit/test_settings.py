"""What the environment may ask for: what cannot be done as it says is refused by name."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from pydantic import ValidationError

from shared.kit.settings import KitSettings

LOGIN = {"KAFKA_SASL_USERNAME": "carerelay", "KAFKA_SASL_PASSWORD": "hidden from errors"}


def configured(monkeypatch: pytest.MonkeyPatch, **environment: str) -> KitSettings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return KitSettings()


def test_by_default_the_broker_is_spoken_to_in_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = configured(monkeypatch)

    assert (settings.kafka_login, settings.kafka_tls) == (None, None)


def test_a_user_by_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = configured(monkeypatch, KAFKA_SECURITY_PROTOCOL="SASL_SSL", **LOGIN)

    login = settings.kafka_login
    assert login is not None
    assert (login.mechanism, login.username, login.password) == (
        "SCRAM-SHA-512",
        "carerelay",
        LOGIN["KAFKA_SASL_PASSWORD"],
    )
    assert settings.kafka_tls is not None
    assert LOGIN["KAFKA_SASL_PASSWORD"] not in f"{settings!r} {login!r}"


ABSENT = "absent.pem"
TLS = {"KAFKA_SECURITY_PROTOCOL": "SSL"}


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}, "KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"),
        ({**TLS, **LOGIN}, "KAFKA_SASL_USERNAME: of no use with KAFKA_SECURITY_PROTOCOL=SSL"),
        (LOGIN, "KAFKA_SASL_USERNAME: of no use with KAFKA_SECURITY_PROTOCOL=PLAINTEXT"),
        ({"KAFKA_SSL_CA_FILE": __file__}, "KAFKA_SSL_CA_FILE: of no use"),
        ({**TLS, "KAFKA_SSL_CA_FILE": __file__}, "KAFKA_SSL_CA_FILE: "),
        ({**TLS, "KAFKA_SSL_CA_FILE": ABSENT}, "KAFKA_SSL_CA_FILE: No such file"),
        ({**TLS, "KAFKA_SSL_CERTIFICATE_FILE": ABSENT}, "KAFKA_SSL_CERTIFICATE_FILE, KAFKA_SSL_KEY_FILE: No such file"),
        ({**TLS, "KAFKA_SSL_CERTIFICATE_FILE": __file__}, "KAFKA_SSL_CERTIFICATE_FILE, KAFKA_SSL_KEY_FILE: "),
        ({**TLS, "KAFKA_SSL_KEY_FILE": __file__}, "KAFKA_SSL_KEY_FILE goes with KAFKA_SSL_CERTIFICATE_FILE"),
        ({"KAFKA_SECURITY_PROTOCOL": "TLS"}, "Input should be"),
        ({"KAFKA_SASL_MECHANISM": "GSSAPI"}, "Input should be"),
    ],
)
def test_what_would_be_left_out_or_cannot_be_is_refused_and_told_without_the_password(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], says: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        configured(monkeypatch, **environment)

    assert says in " ".join(flaw["msg"] for flaw in refused.value.errors())
    assert LOGIN["KAFKA_SASL_PASSWORD"] not in str(refused.value)


def test_a_password_may_be_there_before_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = configured(monkeypatch, KAFKA_SASL_PASSWORD=LOGIN["KAFKA_SASL_PASSWORD"])

    assert settings.kafka_login is None


def test_nobody_is_asked_for_the_passphrase_of_a_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime(2026, 1, 1, tzinfo=UTC)
    signed = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now).sign(key, hashes.SHA256())
    file = tmp_path / "locked.pem"
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"forgotten"))
    file.write_bytes(locked + signed.public_bytes(Encoding.PEM))

    with pytest.raises(ValidationError, match="KAFKA_SSL_KEY_FILE: "):
        configured(monkeypatch, **TLS, KAFKA_SSL_CERTIFICATE_FILE=str(file))
