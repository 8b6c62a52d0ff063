"""One upstream as the gateway sees it: every endpoint that it can carry, natively or by way of a translation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from proxy.domain.asks import Endpoint
from proxy.gateway.ports import Answer, Dispatch

Carrier = Callable[[Dispatch], Awaitable[Answer]]
"""Sends one attempt of one endpoint; raises `UpstreamFailed`."""


class Closeable(Protocol):
    async def close(self) -> None: ...


class Upstream:
    """Implements the port `Provider`. `carriers` by endpoint; `wires` are what is to be closed behind them."""

    def __init__(
        self, carriers: Mapping[Endpoint, Carrier], wires: Sequence[Closeable], *, configured: bool
    ) -> None:
        self.configured = configured
        self._carriers = carriers
        self._wires = wires

    def serves(self, endpoint: Endpoint) -> bool:
        return endpoint in self._carriers

    def send(self, dispatch: Dispatch) -> Awaitable[Answer]:
        """Send and wait for the answer's head; raises `UpstreamFailed`."""
        return self._carriers[dispatch.ask.endpoint](dispatch)

    async def close(self) -> None:
        for wire in self._wires:
            await wire.close()
