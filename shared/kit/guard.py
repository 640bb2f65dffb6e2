"""Keeps outside calls out of our own networks, where somebody else says who is called.

It looks at the address that a socket is made for: a name that is resolved anew, or an address in a strange spelling,
leads nowhere either.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

_OLD = (ip_network("192.0.0.0/24"), ip_network("fec0::/10"))
"""Set aside for protocols, and once for sites; some Pythons take them for public."""

_NAT64 = ip_network("64:ff9b::/96")
"""IPv4 behind a translator (RFC 6052): as private as what is behind it."""


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public Internet; IPv4 inside IPv6 counts as what it leads to."""
    found = ip_address(address.partition("%")[0])
    inner: IPv4Address | IPv6Address | None = None
    if isinstance(found, IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo or (None, None))[1]
        if found in _NAT64:
            inner = IPv4Address(int(found) & 0xFFFFFFFF)
    told = inner or found
    return told.is_global and not told.is_multicast and not any(told in network for network in _OLD)


class Barred(OSError):
    """Raised where the socket would be made."""


@dataclass(frozen=True, slots=True)
class Guard:
    """Lets calls go to public addresses alone, and to the networks in ``also``.

    Of an answer no more than ``most`` bytes are read, as they come over the wire: nothing is unpacked. Proxies of the
    environment are not asked: behind one nobody here sees where a call goes.
    """

    also: Sequence[IPv4Network | IPv6Network] = ()
    most: int = 64 * 1024

    def lets(self, address: str) -> bool:
        """Whether this IP address may be called."""
        return is_public(address) or any(ip_address(address.partition("%")[0]) in network for network in self.also)

    def socket(self, found: Any) -> socket.socket:
        """The socket for an address as ``getaddrinfo`` tells it. Raises Barred where it may not be called."""
        family, kind, protocol, _, address = found
        if not self.lets(address[0]):
            raise Barred("not a public address")
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        return made
