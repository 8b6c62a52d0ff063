from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from proxy.demo.scripted_upstream import ScriptedUpstream
from proxy.domain.chat_requests import read_chat
from proxy.domain.policy import Model, Target
from proxy.gateway.ports import Dispatch

Dispatching = Callable[..., Dispatch]


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture
def dispatch() -> Dispatching:
    """Makes a dispatch of a body; `limit` is the admitted output limit."""

    def make(
        body: dict[str, Any] | None = None,
        *,
        limit: int = 8,
        limit_field: str = "max_completion_tokens",
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> Dispatch:
        asked = {
            "model": "m",
            "messages": [{"role": "user", "content": "three plain words"}],
            **more,
            **(body or {}),
        }
        model = Model("m", (Target("up", "m-upstream"),), 100, 1000, limit_field)
        return Dispatch("req_1", 1, read_chat(asked, headers or {}, str.upper), model, "m-upstream", limit)

    return make
