"""Free ports on this machine."""

from __future__ import annotations

import random
import socket

LOOPBACK = "127.0.0.1"
CANDIDATES = range(20_000, 32_000)
"""Below the range from which Linux and macOS take the ports of outgoing connections, so that none of those gets there
between our look and the program's bind."""


def free_ports(count: int) -> list[int]:
    """``count`` ports of the loopback address on which nobody listens. Raises OSError where so many are not free."""
    free: list[int] = []
    for port in random.sample(CANDIDATES, len(CANDIDATES)):
        if len(free) == count:
            return free
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
        free.append(port)
    raise OSError(f"no {count} free ports between {CANDIDATES.start} and {CANDIDATES.stop}")


def accepts(port: int) -> bool:
    """Whether something accepts connections on a loopback port."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1):
            return True
    except OSError:
        return False
