from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from responses_told import over

from proxy.demo.scripted_upstream import ScriptedUpstream
from proxy.providers.translation.responses_over_chat import ResponsesOverChat


@pytest.fixture
async def responses(upstream: ScriptedUpstream) -> AsyncIterator[ResponsesOverChat]:
    async with over(upstream.url) as responses:
        yield responses
