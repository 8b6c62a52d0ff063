"""Providers by upstream: natively where the upstream speaks the client's wire, through LiteLLM where not."""

from __future__ import annotations

from collections.abc import Mapping

from proxy.gateway.ports import Provider
from proxy.providers.connections import Timeouts
from proxy.providers.openai_wire import OpenAIWire
from proxy.settings import Upstream
from proxy.settings.tree import NATIVE_BASE_URLS


def build_providers(upstreams: Mapping[str, Upstream], keys: Mapping[str, str]) -> dict[str, Provider]:
    """One provider for each upstream. LiteLLM is imported only if one of them has a key and needs it."""
    return {name: _provider(name, upstream, keys.get(name)) for name, upstream in upstreams.items()}


def exact_upstreams(upstreams: Mapping[str, Upstream]) -> frozenset[str]:
    """Those that are OpenAI's own endpoint: only there is a model's name enough to know its tokenizer."""
    return frozenset(
        name for name, u in upstreams.items() if u.wire == "openai" and u.base_url == NATIVE_BASE_URLS["openai"]
    )


def _provider(name: str, upstream: Upstream, key: str | None) -> Provider:
    timeouts = Timeouts(upstream.connect_timeout_s, upstream.first_byte_timeout_s, upstream.idle_timeout_s)
    keyless = not upstream.api_key_env
    if upstream.wire == "openai":
        return OpenAIWire(name, upstream.base_url, key, timeouts, keyless=keyless)
    from proxy.providers.litellm_provider import LiteLLMProvider

    base_url = upstream.base_url if upstream.wire == "litellm" else _elsewhere(upstream)
    return LiteLLMProvider(name, upstream.provider, key, base_url or None, timeouts, keyless=keyless)


def _elsewhere(upstream: Upstream) -> str:
    """A native upstream's address, if it is not the provider's own, which LiteLLM knows best."""
    return "" if upstream.base_url == NATIVE_BASE_URLS[upstream.wire] else upstream.base_url


async def warm_up(providers: Mapping[str, Provider]) -> None:
    """Imports LiteLLM in a thread before the worker is ready, if a configured upstream needs it: it takes two
    seconds of CPU, which no request should wait for."""
    from proxy.providers.litellm_provider import LiteLLMProvider

    for provider in providers.values():
        if isinstance(provider, LiteLLMProvider) and provider.configured:
            await provider.warm_up()
            return
