"""Embeddings by way of LiteLLM: what it is given, and its answer in OpenAI's own shape.

Numbers are always asked for, and packed here where the client wants base64: few providers have that. LiteLLM
counts tokens itself for providers that report none (Gemini among them, whatever it reports), and says nothing of
it, so only those are believed that are known to be passed on.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from proxy.domain.asks import Ask
from proxy.domain.usage import Usage
from proxy.gateway.ports import Dispatch, UpstreamFailed
from proxy.providers.delivered import Delivered, estimated
from proxy.providers.litellm_answers import WholeTranslation, text_of
from proxy.providers.untranslatable import untranslatable
from proxy.providers.usage_readers import read_embeddings_usage

# LiteLLM's names of the providers whose own report it passes on, zeros where there is none.
REPORTING = frozenset(
    (
        *("openai", "azure", "mistral", "voyage", "together_ai", "nvidia_nim", "fireworks_ai", "nebius"),
        *("databricks", "hosted_vllm", "openai_like", "lm_studio", "infinity", "openrouter"),
    )
)
# And of those that it can carry embeddings to, counting for them.
EMBEDDING = REPORTING | frozenset(
    (
        *("gemini", "vertex_ai", "cohere", "bedrock", "ollama", "huggingface", "jina_ai", "azure_ai", "watsonx"),
        *("sambanova", "xinference", "volcengine", "ovhcloud", "cometapi", "snowflake", "gigachat", "perplexity"),
        *("github_copilot", "litellm_proxy", "llamafile", "oci", "vercel_ai_gateway", "triton", "sagemaker"),
    )
)
_KNOWN = frozenset(("model", "input", "dimensions", "encoding_format", "metadata", "user"))
# A text of this form is fetched with the operator's key by some of them, and is a file to them.
_REFERENCE = re.compile(
    r"\s*(?:gs://|s3://|files/|https://generativelanguage\.|data:[^,]{0,256};base64,)", re.IGNORECASE
)


def embedding_arguments(dispatch: Dispatch) -> dict[str, Any]:
    """Arguments for `litellm.aembedding`; raises `UpstreamFailed` (400, unsent) naming a bad field."""
    body = dispatch.ask.body
    for name, value in body.items():
        if value is not None and name not in _KNOWN:
            raise untranslatable(name, f"'{name}' cannot be carried over to this model's provider. Leave it out.")
    texts = [body["input"]] if type(body["input"]) is str else body["input"]
    for at, text in enumerate(texts):
        where = "input" if texts is not body["input"] else f"input.{at}"
        if type(text) is not str:
            message = "Tokens mean nothing to another model's provider. Send the text itself as 'input'."
            raise untranslatable("input", message)
        if _REFERENCE.match(text):
            message = f"'{where}' is an address or a file to this model's provider. Only plain text can be sent."
            raise untranslatable(where, message)
    given: dict[str, Any] = {"input": texts}
    if body.get("dimensions") is not None:
        given["dimensions"] = body["dimensions"]
    return given


class EmbeddingsTranslation(WholeTranslation):
    """The vectors in the encoding that the client asked for."""

    def __init__(
        self, answer: Mapping[str, Any], ask: Ask, provider: str, provider_request_id: str | None
    ) -> None:
        usage = _usage(answer.get("usage"), ask, provider)
        packed = ask.body.get("encoding_format") == "base64"
        said = {
            "object": "list",
            "data": [_entry(at, each, packed) for at, each in enumerate(answer.get("data") or [])],
            "model": answer.get("model") or ask.model,
            "usage": {"prompt_tokens": usage.input_tokens, "total_tokens": usage.input_tokens},
        }
        super().__init__(orjson.dumps(said), usage, text_of(answer.get("model")), provider_request_id)


def _usage(report: Any, ask: Ask, provider: str) -> Usage:
    counted = read_embeddings_usage(report)
    if counted is None:
        return estimated(ask, Delivered())
    return counted if provider in REPORTING else replace(counted, source="estimated", raw=None)


def _entry(at: int, each: Mapping[str, Any], packed: bool) -> dict[str, Any]:
    vector = each.get("embedding")
    if packed and isinstance(vector, list):
        try:
            vector = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")
        except (struct.error, OverflowError, TypeError):
            message = "The model's provider answered with an embedding that is not made of numbers."
            raise UpstreamFailed("unknown", "upstream_unreadable", message) from None
    return {"object": "embedding", "index": at, "embedding": vector}
