"""Which reader understands a request of which endpoint. An endpoint without one is not served."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from proxy.domain.asks import Ask
from proxy.domain.chat_requests import read_chat
from proxy.domain.completions_requests import read_completions
from proxy.domain.embeddings_requests import read_embeddings
from proxy.domain.messages_requests import read_count_tokens, read_messages
from proxy.domain.responses_requests import read_responses

Reader = Callable[[dict[str, Any], Mapping[str, str], Callable[[str], str]], Ask]
"""(body, headers by lower-case names, digest of a personal user id) -> the ask; raises `Refused` (400)."""

READERS: dict[str, Reader] = {
    "/v1/chat/completions": read_chat,
    "/v1/responses": read_responses,
    "/v1/messages": read_messages,
    "/v1/messages/count_tokens": read_count_tokens,
    "/v1/completions": read_completions,
    "/v1/embeddings": read_embeddings,
}


def read_request(
    endpoint: str,
    query: str,
    body: dict[str, Any],
    headers: Mapping[str, str],
    digest_user: Callable[[str], str],
) -> Ask:
    """The ask of a request at one of the endpoints in `READERS`; raises `Refused` (400)."""
    ask = READERS[endpoint](body, headers, digest_user)
    if query == "beta=true" and endpoint.startswith("/v1/messages"):
        ask.query = query
    return ask
