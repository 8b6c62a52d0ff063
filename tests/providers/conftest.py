from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from proxy.demo.scripted_upstream import ScriptedUpstream
from proxy.domain.chat_requests import read_chat
from proxy.domain.policy import Model, Target
from proxy.gateway.ports import Dispatch
from proxy.providers.connections import Timeouts
from proxy.providers.litellm_provider import LiteLLMProvider

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
        upstream_model: str = "m-upstream",
        **more: Any,
    ) -> Dispatch:
        asked = {
            "model": "m",
            "messages": [{"role": "user", "content": "three plain words"}],
            **more,
            **(body or {}),
        }
        model = Model("m", (Target("up", "m-upstream"),), 100, 1000, limit_field)
        return Dispatch("req_1", 1, read_chat(asked, headers or {}, str.upper), model, upstream_model, limit)

    return make


PROVIDER_KEY = "sk-canary-provider-key-0123456789abcdef"
Carrying = Callable[..., LiteLLMProvider]


@pytest.fixture
async def carrier(upstream: ScriptedUpstream) -> AsyncIterator[Carrying]:
    """Makes providers behind LiteLLM by its name for them; each is closed in the end."""
    made: list[LiteLLMProvider] = []

    def make(
        provider: str, base_url: str | None = None, timeouts: Timeouts | None = None, key: str = PROVIDER_KEY
    ) -> LiteLLMProvider:
        base_url = base_url or (upstream.url if provider == "openai" else upstream.root_url)
        timeouts = timeouts or Timeouts(1.0, 5.0, 5.0)
        made.append(LiteLLMProvider(provider, provider, key, base_url, timeouts))
        return made[-1]

    yield make
    for each in made:
        await each.close()
