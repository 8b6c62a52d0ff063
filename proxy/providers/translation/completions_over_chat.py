"""Completions on an upstream that serves chat completions only: the prompt becomes one message of a user.

What a chat cannot do (tokens, several prompts, a suffix, the prompt given back, probabilities in completions'
shape, the best of several) is refused by name, before anything is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from proxy.domain.usage import Usage
from proxy.gateway.ports import Answer, Dispatch, UpstreamFailed
from proxy.providers.endings import picked
from proxy.providers.events import data_of, split
from proxy.providers.native_answers import json_object
from proxy.providers.untranslatable import untranslatable
from proxy.providers.upstream import Carrier

# Said by a chat in the same words.
_CARRIED = frozenset(
    (
        *("model", "n", "stream", "stream_options", "temperature", "top_p", "top_k", "presence_penalty"),
        *("frequency_penalty", "seed", "stop", "logit_bias", "user"),
    )
)
# Known to the gate, and of no effect on what a chat answers; the output limit is set by the gate itself.
_SET_ASIDE = frozenset(("max_tokens", "metadata"))
_COMMON = ("id", "created", "model", "system_fingerprint")


class CompletionsOverChat:
    """Carries `/v1/completions` by `chat`, the upstream's carrier of chat completions."""

    def __init__(self, chat: Carrier) -> None:
        self._chat = chat

    async def send(self, dispatch: Dispatch) -> Answer:
        """Send and wait for the answer's head; raises `UpstreamFailed`, naming fields as the client does."""
        body = chat_body_of(dispatch.ask.body)
        ask = replace(dispatch.ask, endpoint="/v1/chat/completions", body=body)
        try:
            return CompletionsAnswer(await self._chat(replace(dispatch, ask=ask)))
        except UpstreamFailed as failed:
            raise _retold(failed) from None


def chat_body_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """The chat that stands for a completion; raises `UpstreamFailed` (400, unsent) naming a field without one."""
    made: dict[str, Any] = {"messages": [{"role": "user", "content": _prompt(body["prompt"])}]}
    for name, value in body.items():
        if value is None or name in _SET_ASIDE or name == "prompt":
            continue
        if name in _CARRIED:
            made[name] = value
        elif not _means_nothing(name, value, body):
            message = f"'{name}' cannot be carried over to this model, which is a chat model. Leave it out."
            raise untranslatable(name, message)
    return made


def _prompt(prompt: Any) -> str:
    if type(prompt) is list and len(prompt) == 1:
        prompt = prompt[0]
    if type(prompt) is not str:
        message = "This model is a chat model: 'prompt' must be one text, neither tokens nor several prompts."
        raise untranslatable("prompt", message)
    return prompt


def _means_nothing(name: str, value: Any, body: Mapping[str, Any]) -> bool:
    if name == "best_of":
        return bool(value == (body.get("n") or 1))
    return (name == "echo" and value is False) or (name == "suffix" and value == "")


def _retold(failed: UpstreamFailed) -> UpstreamFailed:
    if failed.param is not None:
        if failed.param.startswith("messages"):
            failed.param = "prompt"
        elif failed.param == "max_completion_tokens":
            failed.param = "max_tokens"
    return failed


class CompletionsAnswer:
    """A chat answer, plain or streamed, told as a completion. What it costs is the chat's own report."""

    def __init__(self, chat: Answer) -> None:
        self.status = chat.status
        self.streamed = chat.streamed
        self.content_type = chat.content_type
        self.provider_request_id = chat.provider_request_id
        self.usage: Usage | None = None
        self.tail = b""
        self.failed = False
        self._chat = chat

    async def read(self) -> bytes:
        """The body; `usage` is set then. Raises `UpstreamFailed`."""
        try:
            body = await self._chat.read()
        except UpstreamFailed as failed:
            raise _retold(failed) from None
        self._follow()
        said = json_object(body)
        if said is None or type(said.get("choices")) is not list:
            raise _unreadable(self.usage)
        usage = {"usage": said["usage"]} if said.get("usage") is not None else {}
        return orjson.dumps({**_told(said, "message"), **usage})

    async def next(self) -> bytes | None:
        """Whole events, ready to forward; None at the end. Raises `UpstreamFailed`, `usage` being set then too."""
        while True:
            try:
                events = await self._chat.next()
            finally:
                self._follow()
            if events is None:
                return None
            try:
                told = b"".join([_event_told(event) for event in split(events)])
            except UpstreamFailed:
                await self._give_up()
                raise
            if told:
                return told

    async def end_by_length(self) -> bytes:
        """See `Answer`."""
        ending = await self._chat.end_by_length()
        self._follow()
        return b"".join([_event_told(event) for event in split(ending)])

    def observed_output_tokens(self) -> int:
        return self._chat.observed_output_tokens()

    def error_event(self, message: str, code: str) -> bytes:
        return self._chat.error_event(message, code)

    def abort(self) -> None:
        self._chat.abort()

    def _follow(self) -> None:
        self.usage, self.tail, self.failed = self._chat.usage, self._chat.tail, self._chat.failed

    async def _give_up(self) -> None:
        """The upstream is dropped, which settles what is known of the usage."""
        self._chat.abort()
        try:
            while await self._chat.next() is not None:
                pass
        except UpstreamFailed:
            pass
        self._follow()


def _event_told(event: bytes) -> bytes:
    """A chunk told as a completion's; what is none (a comment, an error) as it is. Empty where nothing is left."""
    data = data_of(event).strip()
    if not data:
        return event
    said = json_object(data)
    if said is None:
        raise _unreadable(None)
    if said.get("error") or type(said.get("choices")) is not list:
        return event
    told = _told(said, "delta")
    usage = {"usage": said["usage"]} if "usage" in said else {}
    if not any(choice["text"] or choice["finish_reason"] for choice in told["choices"]) and not usage.get("usage"):
        return b""
    return b"data: %b\n\n" % orjson.dumps({**told, **usage})


def _told(said: Mapping[str, Any], part: str) -> dict[str, Any]:
    choices = [_choice(choice, part) for choice in said["choices"] if type(choice) is dict]
    return {**picked(said, _COMMON), "object": "text_completion", "choices": choices}


def _choice(choice: Mapping[str, Any], part: str) -> dict[str, Any]:
    message = choice.get(part)
    text = message.get("content") if type(message) is dict else None
    return {
        "text": text if type(text) is str else "",
        "index": choice.get("index") or 0,
        "logprobs": None,
        "finish_reason": choice.get("finish_reason"),
    }


def _unreadable(usage: Usage | None) -> UpstreamFailed:
    message = "The model's provider answered with something that is no chat completion."
    return UpstreamFailed("unknown", "upstream_unreadable", message, usage=usage)
