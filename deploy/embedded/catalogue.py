"""What a stack consists of: each process' command line, ports, environment and sign of being ready."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from deploy.embedded.foundation import Foundation
from deploy.embedded.ports import LOOPBACK, free_ports
from deploy.embedded.supervision import Group, Program

SERVICES = ("intake", "referrals", "prior_authorization", "scheduling", "notifications", "directory", "webhooks")

OUTSIDE = ("issuer", "payer", "gateway", "smtp")
"""The simulators, which share one process."""

OUTSIDE_FOLDER = "outside"
CLOCK_FILE = "clock-offset"

NOTIFY_PATH = "/payers/{payer_id}/notifications"
"""Where prior_authorization takes a payer's decisions; the payer puts its id in."""

INBOUND_PATH = "/inbound/{channel}"
"""Where notifications takes replies; the gateway puts the channel in."""

_READY = "/health/ready"
_ALL, _API = "all", "api"
"""As in ``shared.kit.service``, which takes longer to load than a broker to start."""


class Catalogue:
    """The programs of one stack, on ports chosen when it is made, with everything they write under ``folder``.

    A service is one process with all its roles, or, ``apart``, a process a role.
    """

    def __init__(
        self, folder: Path, foundation: Foundation, environment: Mapping[str, str], *, apart: bool = False
    ) -> None:
        self._folder = folder
        self._foundation = foundation
        self._environment = environment
        self._roles = _roles_apart() if apart else {name: (name, _ALL) for name in SERVICES}
        names = (*foundation.ports, *OUTSIDE, *self._roles)
        self._ports = dict(zip(names, free_ports(len(names)), strict=True))
        self._ports |= {service: self._ports[name] for name, (service, role) in self._roles.items() if role == _API}

    def addresses(self) -> dict[str, str]:
        """Where each part is reached: ``host:port`` of broker and smtp, the store's URI, base URLs of the rest."""
        addresses = {name: f"http://{LOOPBACK}:{port}" for name, port in self._ports.items()}
        addresses["broker"] = f"{LOOPBACK}:{self._ports['broker']}"
        addresses["smtp"] = f"{LOOPBACK}:{self._ports['smtp']}"
        addresses["store"] = f"mongodb://{LOOPBACK}:{self._ports['store']}"
        return addresses

    def programs(self) -> tuple[Program, ...]:
        """All programs in the order they are started."""
        foundation = self._foundation.programs(self._folder, self._ports)
        return (*foundation, self._simulators(), *(self._service(*each) for each in self._roles.items()))

    def _simulators(self) -> Program:
        addresses = self.addresses()
        argv = [sys.executable, "-m", "deploy.simulators", "all", "--data", str(self._folder / OUTSIDE_FOLDER)]
        argv += ["--clock-file", str(self._folder / CLOCK_FILE)]
        for name in OUTSIDE:
            argv += [f"--port-{name}", str(self._ports[name])]
        argv += ["--notify-url", addresses["prior_authorization"] + NOTIFY_PATH]
        argv += ["--inbound-url", addresses["notifications"] + INBOUND_PATH]
        ready = [f"{addresses[name]}/health" for name in OUTSIDE if name != "smtp"]
        return Program("simulators", Group.outside, argv, _python({}), [self._ports["smtp"]], ready)

    def _service(self, process: str, does: tuple[str, str]) -> Program:
        name, role = does
        addresses = self.addresses()
        environment = {
            "KAFKA_BOOTSTRAP_SERVERS": addresses["broker"],
            "MONGODB_URI": addresses["store"],
            "MONGODB_DATABASE": name,
            "HTTP_HOST": LOOPBACK,
            "HTTP_PORT": str(self._ports[process]),
            "JWKS_URL": f"{addresses['issuer']}/.well-known/jwks.json",
            "JWT_ISSUER": addresses["issuer"],
            "JWT_AUDIENCE": "carerelay",
            "PAYER_URL": addresses["payer"],
            "GATEWAY_URL": addresses["gateway"],
            "SMTP_HOST": LOOPBACK,
            "SMTP_PORT": str(self._ports["smtp"]),
            "PUBLIC_URL": addresses[name],
            "WEBHOOK_PLAIN_HTTP": "true",  # Receivers on this machine, and no others of its networks.
            "OUTSIDE_ALSO": "127.0.0.0/8",
            "CLOCK_OFFSET_FILE": str(self._folder / CLOCK_FILE),
            "TRACES_FILE": str(self._folder / "traces" / f"{name}.jsonl"),
            "TRACE_SAMPLE_RATIO": "1",
            **self._foundation.environment,
            **self._environment,
        }
        argv = [sys.executable, "-m", f"services.{name}", role]
        # Longer than the kit's own drain, so that a stop in good order is never cut short.
        stop_seconds = 25
        ready = [addresses[process] + _READY]
        return Program(process, Group.services, argv, _python(environment), [self._ports[process]], ready, stop_seconds)


def _roles_apart() -> dict[str, tuple[str, str]]:
    """Service and role of each process, where every role has one of its own."""
    from deploy.roles import all_roles  # Here, because it loads every service, which takes seconds.

    return {role.process: (role.service, role.name) for role in all_roles()}


def _python(environment: Mapping[str, str]) -> dict[str, str]:
    """What every Python process of the stack gets beside its own: logs at once, and no proxy to its neighbours."""
    local = f"{LOOPBACK},localhost"
    proxies = {"NO_PROXY": local, "no_proxy": local} if any(n.lower().endswith("_proxy") for n in os.environ) else {}
    return {"PYTHONUNBUFFERED": "1", **proxies, **environment}
