"""Listening sockets: the data plane's port is shared by the workers of one keeper, and by nobody else.

With SO_REUSEPORT alone, two Faregates of one user would silently share a port, and a request would reach one
or the other by chance. So the keeper claims the port first, in a way that only one can, and holds the claim.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from dataclasses import dataclass
from typing import Any

_BACKLOG = 1024
_LOOK_AGAIN_S = 0.05
# Workers whose keeper was killed close their listener at once, but need a moment to notice.
PATIENCE_S = 3.0


class CannotListen(Exception):
    """The address cannot be listened on; the message says why, and which setting changes it."""


@dataclass(frozen=True, slots=True)
class _Address:
    family: socket.AddressFamily
    sockaddr: tuple[Any, ...]


class PortClaim:
    """The port, claimed by the keeper for its workers and held without listening, until `release`.

    `port` is the real one also where 0 (any free one) was asked for.
    """

    def __init__(self, claim: socket.socket, host: str) -> None:
        self._claim = claim
        self.host = host
        self.port: int = claim.getsockname()[1]

    @classmethod
    async def take(
        cls, host: str, port: int, section: str = "server", patience_s: float = PATIENCE_S
    ) -> PortClaim:
        """Raises `CannotListen` if others have the port and keep it for `patience_s`."""
        address = _resolve(host, port, section)
        deadline = asyncio.get_running_loop().time() + patience_s
        while True:
            try:
                return cls(_claimed(address), host)
            except OSError as fault:
                if fault.errno != errno.EADDRINUSE or asyncio.get_running_loop().time() >= deadline:
                    raise CannotListen(_sentence(fault, host, port, section)) from None
            await asyncio.sleep(_LOOK_AGAIN_S)

    def release(self) -> None:
        self._claim.close()


def listen_shared(host: str, port: int, section: str = "server") -> socket.socket:
    """A worker's own listening socket on the port that its keeper claimed. Raises `CannotListen`."""
    return _listening(host, port, section, shared=True)


def listen_alone(host: str, port: int, section: str) -> socket.socket:
    """A listening socket that shares its port with nobody (the admin plane's). Raises `CannotListen`."""
    return _listening(host, port, section, shared=False)


def _claimed(address: _Address) -> socket.socket:
    """Bound exclusively, and only then opened to those who ask to share it: the workers of this keeper.

    1. Why not bind it shared? Because then a second keeper could do the same.
    2. Why SO_REUSEADDR while binding? Because connections of the last run, in TIME_WAIT or with a worker that
       still drains, would refuse the port otherwise.
    3. Why a second socket that is kept instead? Because older kernels (Linux 5) remember of a port that its first
       socket was bound with SO_REUSEADDR, and let another such claim pass until a socket without it is bound
       there. Where that one is refused (somebody else's connections linger), the first is kept: little worse.
    """
    claim = socket.socket(address.family, socket.SOCK_STREAM)
    held = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        claim.bind(address.sockaddr)
        claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except BaseException:
        claim.close()
        held.close()
        raise
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(claim.getsockname())
    except OSError:
        held.close()
        return claim
    claim.close()
    return held


def _listening(host: str, port: int, section: str, *, shared: bool) -> socket.socket:
    address = _resolve(host, port, section)
    listener = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        # Connections inherit it, so that those left over do not refuse the port to the next start.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address.sockaddr)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as fault:
        listener.close()
        raise CannotListen(_sentence(fault, host, port, section)) from None
    return listener


def _resolve(host: str, port: int, section: str) -> _Address:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise CannotListen(
            f"{section}.host = {host!r} is no address of this machine. "
            'Use "127.0.0.1" (this machine only) or "0.0.0.0" (every network).'
        ) from None
    # "localhost" means both families; the one that clients of old know comes first.
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return _Address(found[0][0], found[0][4])


def _sentence(fault: OSError, host: str, port: int, section: str) -> str:
    variable = f"FAREGATE_{section.upper()}__PORT"
    if fault.errno == errno.EADDRINUSE:
        return (
            f"Port {port} on {host} is taken by another program. Stop it, or choose another port: "
            f"{section}.port in the config file, or {variable}."
        )
    if fault.errno == errno.EACCES:
        return (
            f"Port {port} needs privileges that this user has not. Choose one above 1023: "
            f"{section}.port in the config file, or {variable}."
        )
    if fault.errno == errno.EADDRNOTAVAIL:
        return f'{host} is no address of this machine. Set {section}.host to "127.0.0.1" or "0.0.0.0".'
    return f"Cannot listen on {host}:{port}: {fault.strerror}. See {section}.host and {section}.port."
