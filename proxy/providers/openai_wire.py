"""The OpenAI wire: how each of its endpoints is spoken natively."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxy.domain.asks import Endpoint
from proxy.gateway.ports import Dispatch
from proxy.providers.chat_answers import PlainChat, StreamedChat
from proxy.providers.native_wire import Speech


def chat_body(dispatch: Dispatch) -> dict[str, Any]:
    """The client's body with the upstream's model, the admitted output limit, and usage asked for."""
    ask = dispatch.ask
    body: dict[str, Any] = {**ask.body, "model": dispatch.upstream_model}
    body.pop("max_tokens", None)
    body.pop("max_completion_tokens", None)
    body[dispatch.model.output_limit_field] = dispatch.output_limit
    if ask.streamed:
        body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    return body


OPENAI_SPEECHES: Mapping[Endpoint, Speech] = {
    "/v1/chat/completions": Speech("/chat/completions", chat_body, PlainChat, StreamedChat),
}
