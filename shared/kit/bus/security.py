"""How a process and the broker prove themselves to each other, the same for every client the bus has."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from faststream.kafka.security import parse_security
from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]

_LOGINS: Mapping[Mechanism, Callable[..., BaseSecurity]] = {
    "PLAIN": SASLPlaintext,
    "SCRAM-SHA-256": SASLScram256,
    "SCRAM-SHA-512": SASLScram512,
}


@dataclass(frozen=True, slots=True)
class Login:
    """A user by SASL."""

    mechanism: Mechanism
    username: str
    password: str = field(repr=False)


def trusting(
    authorities: Path | None = None, certificate: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """TLS to a broker whose certificate these authorities (a PEM file), or else the system's, have signed.

    With a certificate and its key, both PEM and the key without a passphrase, this side proves itself by them. Raises
    OSError where a file cannot be read, or is not what it should be.
    """
    context = ssl.create_default_context(cafile=authorities)
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context


def secured(login: Login | None, tls: ssl.SSLContext | None) -> BaseSecurity | None:
    """What FastStream takes; nothing where the broker is spoken to in clear by nobody in particular."""
    if login is not None:
        return _LOGINS[login.mechanism](login.username, login.password, ssl_context=tls)
    return None if tls is None else BaseSecurity(ssl_context=tls)


@dataclass(frozen=True, slots=True)
class Access:
    """Where the broker is, who asks it, and how both prove themselves."""

    servers: str
    client_id: str
    security: BaseSecurity | None = None

    def options(self) -> dict[str, Any]:
        """What a client of aiokafka takes."""
        return {"bootstrap_servers": self.servers, "client_id": self.client_id, **parse_security(self.security)}
