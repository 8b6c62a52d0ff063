"""One upstream as the gateway sees it: every endpoint that it can carry, natively or by way of a translation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal, Protocol

from proxy.domain.asks import Endpoint
from proxy.gateway.ports import Answer, Dispatch, UpstreamFailed

Carrier = Callable[[Dispatch], Awaitable[Answer]]
"""Sends one attempt of one endpoint; raises `UpstreamFailed`."""


NO_ARCHIVE = "The model's provider has no such address."


class Closeable(Protocol):
    async def close(self) -> None: ...


class Archive(Protocol):
    """Answers about what an upstream keeps; raises `UpstreamFailed`."""

    async def fetch(self, method: Literal["GET", "DELETE"], path: str, query: str) -> bytes: ...


class Upstream:
    """Implements the port `Provider`. `carriers` by endpoint; `wires` are what is to be closed behind them; the
    `archive` is the wire that can be asked about what the upstream keeps, if there is one."""

    def __init__(
        self,
        carriers: Mapping[Endpoint, Carrier],
        wires: Sequence[Closeable],
        *,
        configured: bool,
        archive: Archive | None = None,
    ) -> None:
        self.configured = configured
        self._carriers = carriers
        self._wires = wires
        self._archive = archive

    def serves(self, endpoint: Endpoint) -> bool:
        return endpoint in self._carriers

    def send(self, dispatch: Dispatch) -> Awaitable[Answer]:
        """Send and wait for the answer's head; raises `UpstreamFailed`."""
        return self._carriers[dispatch.ask.endpoint](dispatch)

    async def fetch(self, method: Literal["GET", "DELETE"], path: str, query: str) -> bytes:
        """The body of a small JSON answer about something that the upstream keeps; raises `UpstreamFailed`."""
        if self._archive is None:
            raise UpstreamFailed("unsent", "upstream_misconfigured", NO_ARCHIVE, blame="operator")
        return await self._archive.fetch(method, path, query)

    async def close(self) -> None:
        for wire in self._wires:
            await wire.close()
