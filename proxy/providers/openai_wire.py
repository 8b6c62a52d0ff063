"""The OpenAI wire: how each of its endpoints is spoken natively."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxy.domain.asks import Endpoint
from proxy.gateway.ports import Dispatch
from proxy.providers.chat_answers import PlainChat, StreamedChat
from proxy.providers.completions_answers import PlainCompletions, StreamedCompletions
from proxy.providers.embeddings_answers import PlainEmbeddings
from proxy.providers.native_wire import Speech, without_attribution
from proxy.providers.responses_answers import PlainResponses, StreamedResponses, responses_body


def chat_body(dispatch: Dispatch) -> dict[str, Any]:
    """The client's body with the upstream's model, the admitted output limit, and usage asked for."""
    ask = dispatch.ask
    body: dict[str, Any] = {**without_attribution(ask.body), "model": dispatch.upstream_model}
    body.pop("max_tokens", None)
    body.pop("max_completion_tokens", None)
    body[dispatch.model.output_limit_field] = dispatch.output_limit
    if ask.streamed:
        body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    return body


def completions_body(dispatch: Dispatch) -> dict[str, Any]:
    """As chat's; the limit of a completion has one name everywhere."""
    ask = dispatch.ask
    body = {**without_attribution(ask.body), "model": dispatch.upstream_model, "max_tokens": dispatch.output_limit}
    if ask.streamed:
        body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    return body


def embeddings_body(dispatch: Dispatch) -> dict[str, Any]:
    """The client's body with the upstream's model."""
    return {**without_attribution(dispatch.ask.body), "model": dispatch.upstream_model}


OPENAI_SPEECHES: Mapping[Endpoint, Speech] = {
    "/v1/chat/completions": Speech("/chat/completions", chat_body, PlainChat, StreamedChat),
    "/v1/completions": Speech("/completions", completions_body, PlainCompletions, StreamedCompletions),
    "/v1/responses": Speech("/responses", responses_body, PlainResponses, StreamedResponses),
    "/v1/embeddings": Speech("/embeddings", embeddings_body, PlainEmbeddings),
}
