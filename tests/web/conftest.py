"""Fixtures of the web room: data planes on loopback, drained and checked for leaks afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import data_plane
import pytest


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    """Starts data planes; each must end without an unexpected fault unless the test took it."""
    planes: list[Any] = []

    async def start(limits: Any = None) -> Any:
        planes.append(await data_plane.start(limits))
        return planes[-1]

    yield start
    for served in planes:
        for client in served.clients:
            client.close()
        await served.plane.drain(1.0)
        assert served.faults == []


@pytest.fixture
async def plane(serve: Callable[..., Awaitable[Any]]) -> Any:
    return await serve()
