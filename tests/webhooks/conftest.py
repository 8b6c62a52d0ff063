from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.doubles.webhook_receiver import WebhookReceiver


@pytest.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    async with WebhookReceiver() as receiver:
        yield receiver
