"""A chat answer told as a Message: what both ways of telling it share, and the plain one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proxy.domain.usage import Usage
from proxy.gateway.ports import Answer, Dispatch, UpstreamFailed
from proxy.providers.messages_answers import usage_object
from proxy.providers.native_answers import json_object
from proxy.providers.translation.messages_request import ChatRequest
from proxy.providers.translation.responses_answer import (
    arguments_of,
    dumped,
    thought_of,
    unreadable,
    words_of,
)

_LENGTH = ("length", "max_tokens", "model_length")


@dataclass(frozen=True, slots=True)
class Envelope:
    """What a Message says of itself, whatever the answer: and what of its request bears on how it is told."""

    id: str
    model: str
    request: ChatRequest

    @classmethod
    def of(cls, dispatch: Dispatch, request: ChatRequest) -> Envelope:
        return cls(f"msg_{dispatch.request_id.removeprefix('req_')}", dispatch.ask.model, request)

    def message(
        self, content: list[dict[str, Any]], ending: tuple[str | None, str | None], usage: Usage | None
    ) -> dict[str, Any]:
        """The whole object; `ending` is its stop reason and stop sequence."""
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": ending[0],
            "stop_sequence": ending[1],
            "usage": told_usage(usage),
        }


def told_usage(usage: Usage | None) -> dict[str, Any]:
    """A usage in Messages' shape. It cannot be absent there: nothing yet, or an estimate, is told as well."""
    told = usage_object(usage or Usage())
    if usage is not None and usage.reasoning_tokens:
        told["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return told


def ending_of(finish: Any, hit: str | None, *, called: bool, refused: bool) -> tuple[str, str | None]:
    """Stop reason and stop sequence. Some servers finish with "stop" though they call tools."""
    if finish in _LENGTH:
        return "max_tokens", None
    if finish == "content_filter" or refused:
        return "refusal", None
    if called:
        return "tool_use", None
    return ("stop_sequence", hit) if hit else ("end_turn", None)


def hit_of(choice: Mapping[str, Any], stops: tuple[str, ...]) -> str | None:
    """Which stop sequence has ended the answer, of servers that say so (vLLM, SGLang)."""
    said = choice.get("stop_reason") or choice.get("matched_stop")
    return said if type(said) is str and said in stops else None


def call_id(said: Mapping[str, Any], envelope: Envelope, at: int) -> str:
    """The provider's id of a call, or one of ours where it has none: the result must name something."""
    id = said.get("id")
    return id if type(id) is str and id else f"toolu_{envelope.id.removeprefix('msg_')}_{at}"


def called_name(said: Any) -> str:
    function = said.get("function") if type(said) is dict else None
    name = function.get("name") if type(function) is dict else None
    if type(name) is not str or not name:
        raise unreadable("The model's provider answered with a tool call without a name.")
    return name


class MessageOverChat:
    """A chat completion, told as a Message."""

    streamed = False
    content_type = "application/json"
    tail = b""

    def __init__(self, chat: Answer, envelope: Envelope) -> None:
        self.status = chat.status
        self.provider_request_id = chat.provider_request_id
        self.usage: Usage | None = None
        self.failed = False
        self._chat = chat
        self._envelope = envelope

    @property
    def model_served(self) -> str | None:
        """What the provider calls the model that really answered."""
        return getattr(self._chat, "model_served", None)

    async def read(self) -> bytes:
        """The body; `usage` is set then. Raises `UpstreamFailed`, with the usage where it was reported."""
        try:
            said = json_object(await self._chat.read()) or {}
        except UpstreamFailed as failed:
            raise self._envelope.request.retold(failed) from None
        self.usage = self._chat.usage
        try:
            return dumped(self._told(said))
        except UpstreamFailed as failed:
            failed.usage = self.usage if self.usage and self.usage.source == "provider" else None
            raise

    def _told(self, said: Mapping[str, Any]) -> dict[str, Any]:
        choices = said.get("choices")
        choice = choices[0] if type(choices) is list and choices else None
        message = choice.get("message") if type(choice) is dict else None
        if type(choice) is not dict or type(message) is not dict or choice.get("finish_reason") == "error":
            raise unreadable("The model's provider answered with something that is no chat completion.")
        request, content = self._envelope.request, []
        if request.shows_thinking and (thought := thought_of(message)):
            # Without a signature, since nobody has signed it.
            content.append({"type": "thinking", "thinking": thought, "signature": ""})
        refusal = words_of(message.get("refusal"))
        if text := words_of(message.get("content")) + refusal:
            content.append({"type": "text", "text": text})
        finish = choice.get("finish_reason")
        calls = message.get("tool_calls") or ()
        for at, call in enumerate(calls):
            content.append({**_tool_use(call, cut=finish in _LENGTH), "id": call_id(call, self._envelope, at)})
        hit = hit_of(choice, request.stop_sequences)
        ending = ending_of(finish, hit, called=bool(calls), refused=bool(refusal))
        return self._envelope.message(content, ending, self.usage)

    async def next(self) -> bytes | None:
        raise TypeError("a plain answer has no events; read() it")

    async def end_by_length(self) -> bytes:
        raise TypeError("a plain answer has no events; read() it")

    def observed_output_tokens(self) -> int:
        return self._chat.observed_output_tokens()

    def error_event(self, message: str, code: str) -> bytes:
        raise TypeError("a plain answer has no events; read() it")

    def abort(self) -> None:
        self._chat.abort()


def _tool_use(call: Any, *, cut: bool) -> dict[str, Any]:
    """A call with its arguments as the object that they are.

    Where the output limit has cut them off, nothing can be said of them, as the stop reason tells. What is broken
    otherwise is no answer: made-up arguments must not be run.
    """
    name = called_name(call)
    text = arguments_of(call["function"]).strip()
    arguments = json_object(text.encode("utf-8", "replace")) if text else {}
    if arguments is None:
        if not cut:
            raise unreadable("The model has called a tool with arguments that are no JSON object.")
        arguments = {}
    return {"type": "tool_use", "name": name, "input": arguments}
