"""Providers by upstream: natively where the upstream speaks the client's wire, by translation where not."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import cast

from proxy.domain.asks import Endpoint
from proxy.gateway.ports import Provider
from proxy.providers.anthropic_wire import ANTHROPIC_SPEECHES, without_version
from proxy.providers.connections import Timeouts
from proxy.providers.litellm_provider import LiteLLMProvider, load
from proxy.providers.native_wire import Address, NativeWire, Speech
from proxy.providers.openai_wire import OPENAI_SPEECHES
from proxy.providers.translation.completions_over_chat import CompletionsOverChat
from proxy.providers.translation.counted_tokens import TokensCountedHere
from proxy.providers.translation.messages_over_chat import MessagesOverChat
from proxy.providers.translation.responses_over_chat import ResponsesOverChat
from proxy.providers.upstream import Carrier
from proxy.providers.upstream import Upstream as Carriers
from proxy.settings import Upstream
from proxy.settings.tree import NATIVE_BASE_URLS

CHAT: Endpoint = "/v1/chat/completions"

SPEECHES: Mapping[str, Mapping[Endpoint, Speech]] = {"openai": OPENAI_SPEECHES, "anthropic": ANTHROPIC_SPEECHES}

# What an upstream that serves chat completions can carry by translation, where it has not the endpoint itself.
OVER_CHAT: Mapping[Endpoint, type] = {
    "/v1/messages": MessagesOverChat,
    "/v1/messages/count_tokens": TokensCountedHere,
    "/v1/completions": CompletionsOverChat,
    "/v1/responses": ResponsesOverChat,
}


def build_providers(upstreams: Mapping[str, Upstream], keys: Mapping[str, str]) -> dict[str, Provider]:
    """One provider for each upstream. LiteLLM is imported only if one of them has a key and needs it."""
    return {name: _provider(name, upstream, keys.get(name)) for name, upstream in upstreams.items()}


def exact_upstreams(upstreams: Mapping[str, Upstream]) -> frozenset[str]:
    """Those that are OpenAI's own endpoint: only there is a model's name enough to know its tokenizer."""
    return frozenset(
        name for name, u in upstreams.items() if u.wire == "openai" and u.base_url == NATIVE_BASE_URLS["openai"]
    )


def _provider(name: str, upstream: Upstream, key: str | None) -> Provider:
    carriers: dict[Endpoint, Carrier] = {}
    native: NativeWire | None = None
    wires: list[NativeWire | LiteLLMProvider] = []
    if upstream.wire in SPEECHES:
        native = _native(name, upstream, key)
        wires.append(native)
        carriers.update({endpoint: native.send for endpoint in _served(upstream) if native.serves(endpoint)})
    if upstream.wire != "openai":
        translated = _translated(name, upstream, key)
        wires.append(translated)
        for endpoint in _served(upstream) if upstream.wire == "litellm" else TRANSLATED:
            if translated.serves(endpoint):
                carriers.setdefault(endpoint, translated.send)
    if CHAT in carriers:
        for endpoint, over_chat in OVER_CHAT.items():
            carriers.setdefault(endpoint, over_chat(carriers[CHAT]).send)
    return Carriers(carriers, wires, configured=all(wire.configured for wire in wires), archive=native)


TRANSLATED: tuple[Endpoint, ...] = (CHAT, "/v1/embeddings")


def _served(upstream: Upstream) -> list[Endpoint]:
    return [cast(Endpoint, f"/v1/{name}") for name in upstream.served]


def _native(name: str, upstream: Upstream, key: str | None) -> NativeWire:
    base_url = without_version(upstream.base_url) if upstream.wire == "anthropic" else upstream.base_url
    address = Address(base_url, key, upstream.auth_header, upstream.query, upstream.headers)
    return NativeWire(
        name, address, SPEECHES[upstream.wire], _timeouts(upstream), keyless=not upstream.api_key_env
    )


def _translated(name: str, upstream: Upstream, key: str | None) -> LiteLLMProvider:
    base_url = upstream.base_url if upstream.wire == "litellm" else _elsewhere(upstream)
    keyless = not upstream.api_key_env
    return LiteLLMProvider(name, upstream.provider, key, base_url or None, _timeouts(upstream), keyless=keyless)


def _timeouts(upstream: Upstream) -> Timeouts:
    return Timeouts(upstream.connect_timeout_s, upstream.first_byte_timeout_s, upstream.idle_timeout_s)


def _elsewhere(upstream: Upstream) -> str:
    """A native upstream's address, if it is not the provider's own, which LiteLLM knows best."""
    if upstream.base_url == NATIVE_BASE_URLS[upstream.wire]:
        return ""
    return without_version(upstream.base_url) if upstream.wire == "anthropic" else upstream.base_url


async def warm_up(upstreams: Mapping[str, Upstream], keys: Mapping[str, str]) -> None:
    """Imports LiteLLM in a thread before the worker is ready, if a configured upstream needs it: it takes two
    seconds of CPU, which no request should wait for."""
    if any(u.wire != "openai" and (name in keys or not u.api_key_env) for name, u in upstreams.items()):
        await asyncio.to_thread(load)
