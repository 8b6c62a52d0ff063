"""Anthropic's wire: how each of its endpoints is spoken natively."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxy.domain.asks import Endpoint
from proxy.gateway.ports import Dispatch
from proxy.providers.messages_answers import PlainCount, PlainMessage, StreamedMessage
from proxy.providers.native_wire import Speech, without_attribution

THINKING_TOKENS_MIN = 1_024


def messages_body(dispatch: Dispatch) -> dict[str, Any]:
    """The client's body with the upstream's model and the admitted output limit, of which thinking is a part."""
    body = {**count_body(dispatch), "max_tokens": dispatch.output_limit}
    thinking = body.get("thinking")
    if isinstance(thinking, dict) and isinstance(budget := thinking.get("budget_tokens"), int):
        lowered = dispatch.output_limit < (dispatch.ask.output_limit or 0)
        if lowered and budget >= dispatch.output_limit > THINKING_TOKENS_MIN:
            body["thinking"] = {**thinking, "budget_tokens": dispatch.output_limit - 1}
    return body


def count_body(dispatch: Dispatch) -> dict[str, Any]:
    """The client's body with the upstream's model."""
    return {**without_attribution(dispatch.ask.body), "model": dispatch.upstream_model}


def without_version(base_url: str) -> str:
    """The base URL as the paths below want it: some are used to writing it with the /v1 that these begin with."""
    address, mark, query = base_url.partition("?")
    return address.rstrip("/").removesuffix("/v1") + mark + query


ANTHROPIC_SPEECHES: Mapping[Endpoint, Speech] = {
    "/v1/messages": Speech("/v1/messages", messages_body, PlainMessage, StreamedMessage),
    "/v1/messages/count_tokens": Speech("/v1/messages/count_tokens", count_body, PlainCount),
}
