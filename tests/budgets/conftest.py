"""What the tests of this room share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from books import Books
from redis.asyncio import Redis

from proxy.budgets.hot_connection import HotConnection


@pytest.fixture
async def connection(valkey_url: str) -> AsyncIterator[HotConnection]:
    connection = HotConnection(valkey_url)
    await connection.start()
    yield connection
    await connection.close()


@pytest.fixture
async def books(store: Redis, connection: HotConnection) -> Books:
    books = Books(store, connection)
    await books.open()
    return books
