"""Who may be called: an admin's word sends requests from inside the house, and must reach nothing inside it."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any
from urllib.parse import urlsplit

from aiohttp.connector import AddrInfoType

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# An IPv4 address in IPv6's clothes (RFC 6052), behind which a gateway would find the one within.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_PORTS = range(1, 65536)


class AddressRefused(OSError):
    """A connection that was about to be made to an address that nobody should be called at."""


def url_fault(url: str, allow_private: bool) -> str | None:
    """What is wrong with an endpoint's URL, as the rest of a sentence; None: nothing is."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "it is no URL; it looks like https://example.com/hooks"
    if parts.scheme != "https" and not (parts.scheme == "http" and allow_private):
        return "it must begin with https://"
    if not host or (port is not None and port not in _PORTS):
        return "it names no host; it looks like https://example.com/hooks"
    if parts.username is not None or parts.password is not None:
        return "it must not hold a user or a password: the receiver checks the signature instead"
    if parts.fragment:
        return "it has a fragment (#…), which is never sent"
    if not allow_private and (host == "localhost" or host.endswith((".localhost", ".internal", ".local"))):
        return f"{host} is inside your own network; set webhooks.allow_private to call that"
    try:
        literal = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    if not allow_private and not is_public(literal):
        return f"{host} is no public address; set webhooks.allow_private to call it"
    return None


def is_public(address: _Address) -> bool:
    """Whether the whole internet may be meant: not this machine, its network, or a cloud's metadata."""
    within = _within(address)
    if within is not None:
        return is_public(within)
    return address.is_global and not address.is_multicast


def guarded_socket(allow_private: bool) -> Any:
    """aiohttp's `socket_factory`: looks at the very address that is about to be connected to, so that a name which
    is answered differently the second time gets nowhere."""

    def make(info: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = info
        if not allow_private and not is_public(ipaddress.ip_address(str(address[0]).partition("%")[0])):
            raise AddressRefused("the address is not public")
        return socket.socket(family=family, type=kind, proto=protocol)

    return make


def _within(address: _Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 one stands for."""
    if address.version == 4:
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
