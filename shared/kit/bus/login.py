"""What a process proves itself to the broker by: a user's password, a certificate. Knows no client library."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


@dataclass(frozen=True, slots=True)
class Login:
    """A user by SASL."""

    mechanism: Mechanism
    username: str
    password: str = field(repr=False)


def trusting(authorities: Path | None = None) -> ssl.SSLContext:
    """TLS to brokers whose certificates these authorities (a PEM file), or else the system's, have signed.

    Raises OSError where the file cannot be read, or holds no certificate.
    """
    return ssl.create_default_context(cafile=authorities)


def prove(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    """Have this side prove itself by a certificate and its key, both PEM; the key may stand in the same file.

    Raises OSError where one cannot be read, is not what it should be, or the key has a passphrase: nobody is asked.
    """
    context.load_cert_chain(certificate, key, password="")
