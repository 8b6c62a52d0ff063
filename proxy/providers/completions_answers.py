"""Answers of completions on the OpenAI wire: chat's chunks, with a `text` where chat has a `delta`.

With `echo` the prompt comes back before what was made of it. Nobody made it, so no estimate counts it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxy.domain.asks import Ask
from proxy.providers.chat_answers import PlainChat, StreamedChat
from proxy.providers.connections import Head
from proxy.providers.delivered import Delivered
from proxy.providers.exchanges import Exchange


class PlainCompletions(PlainChat):
    """A text completion, or one of each prompt."""

    def _delivered_in(self, body: bytes) -> Delivered:
        delivered = Delivered(echoed_bytes(self._ask))
        delivered.add(body)
        return delivered


class StreamedCompletions(StreamedChat):
    """A stream of text completions, ended by `[DONE]`."""

    chunk_object = "text_completion"
    no_more: Mapping[str, Any] = {"text": ""}

    def __init__(self, head: Head, exchange: Exchange, ask: Ask) -> None:
        super().__init__(head, exchange, ask)
        self._delivered = Delivered(echoed_bytes(ask))


def echoed_bytes(ask: Ask) -> int:
    """About how many bytes of the answer are the prompts, given back."""
    return 4 * ask.input_estimate * (ask.choices // ask.inputs) if ask.body.get("echo") else 0
