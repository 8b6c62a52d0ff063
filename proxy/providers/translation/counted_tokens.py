"""Counting the tokens of a Messages request for a model whose upstream cannot count them: by a guess, here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from proxy.domain.messages_input import MessagesInput
from proxy.domain.request_parts import IMAGE_TOKENS_USUAL
from proxy.domain.usage import NOTHING_USED, Usage
from proxy.gateway.ports import Answer, Dispatch
from proxy.providers.translation.messages_request import chat_request
from proxy.providers.upstream import Carrier


class TokensCountedHere:
    """Carries `/v1/messages/count_tokens` nowhere: nothing is sent, and nothing is used.

    The guess is that of the gate for an answer without usage: four bytes of text to a token. What could not be
    sent to the model is refused here too, by the same rules.
    """

    def __init__(self, chat: Carrier) -> None:
        self._chat = chat

    async def send(self, dispatch: Dispatch) -> Answer:
        """Raises `UpstreamFailed` (400, unsent) for what the model could not be asked."""
        chat_request(dispatch.ask)
        return CountedTokens(guess(dispatch.ask.body))


def guess(body: Mapping[str, Any]) -> int:
    """About how many tokens the input has; at least one."""
    found = MessagesInput()
    found.read(body["messages"])
    if body.get("system") is not None:
        found.content(body["system"], "system")
    for name in ("tools", "tool_choice", "output_config", "output_format"):
        if body.get(name) is not None:
            found.size.add(body[name])
    return max(1, found.size.text // 4 + IMAGE_TOKENS_USUAL * found.size.images + 4 * found.count)


class CountedTokens:
    """The answer: `{"input_tokens": N}`."""

    streamed = False
    status = 200
    content_type = "application/json"
    tail = b""
    failed = False
    provider_request_id: str | None = None

    def __init__(self, tokens: int) -> None:
        self.usage: Usage | None = NOTHING_USED
        self._body = orjson.dumps({"input_tokens": tokens})

    async def read(self) -> bytes:
        return self._body

    async def next(self) -> bytes | None:
        raise TypeError("a plain answer has no events; read() it")

    async def end_by_length(self) -> bytes:
        raise TypeError("a plain answer has no events; read() it")

    def observed_output_tokens(self) -> int:
        return 0

    def error_event(self, message: str, code: str) -> bytes:
        raise TypeError("a plain answer has no events; read() it")

    def abort(self) -> None:
        return None
