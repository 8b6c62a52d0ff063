"""Which reader understands a request of which endpoint. An endpoint without one is not served."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from proxy.domain.asks import Ask
from proxy.domain.chat_requests import read_chat

Reader = Callable[[dict[str, Any], Mapping[str, str], Callable[[str], str]], Ask]
"""(body, headers by lower-case names, digest of a personal user id) -> the ask; raises `Refused` (400)."""

READERS: dict[str, Reader] = {
    "/v1/chat/completions": read_chat,
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
