"""How the bus' clients are told where the broker is and how both prove themselves: the same for each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ssl import SSLContext
from typing import Any

from faststream.kafka.security import parse_security
from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

from shared.kit.bus.login import Login, Mechanism

_LOGINS: Mapping[Mechanism, Callable[..., BaseSecurity]] = {
    "PLAIN": SASLPlaintext,
    "SCRAM-SHA-256": SASLScram256,
    "SCRAM-SHA-512": SASLScram512,
}


@dataclass(frozen=True, slots=True)
class Access:
    """Where the broker is, and who asks it: in clear and by nobody in particular without ``tls`` and ``login``."""

    servers: str
    client_id: str
    login: Login | None = None
    tls: SSLContext | None = None

    def security(self) -> BaseSecurity | None:
        """What FastStream takes."""
        if self.login is not None:
            return _LOGINS[self.login.mechanism](self.login.username, self.login.password, ssl_context=self.tls)
        return None if self.tls is None else BaseSecurity(ssl_context=self.tls)

    def options(self) -> dict[str, Any]:
        """What a client of aiokafka takes."""
        return {"bootstrap_servers": self.servers, "client_id": self.client_id, **parse_security(self.security())}
