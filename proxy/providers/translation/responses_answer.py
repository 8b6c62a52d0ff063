"""A Response object made of what a chat upstream has answered, and a plain chat answer told as one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from proxy.domain.usage import Usage
from proxy.gateway.ports import Answer, Dispatch, UpstreamFailed
from proxy.providers.native_answers import json_object
from proxy.providers.responses_answers import usage_object

# Said again in the answer, with what Responses says where the client has said nothing.
ECHOED: dict[str, Any] = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "temperature": None,
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": None,
    "truncation": "disabled",
    "user": None,
}

FAILED = "The model's provider failed in the middle of its answer."
INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class Reply:
    """One call's Response: its id, what it says again of the request, and the shapes of its items."""

    def __init__(self, dispatch: Dispatch) -> None:
        body = dispatch.ask.body
        self._name = dispatch.request_id.rpartition("_")[2]
        self._model = dispatch.ask.model
        self._echo = {name: usual if body.get(name) is None else body[name] for name, usual in ECHOED.items()}
        self._echo["text"] = {"format": {"type": "text"}, **(body.get("text") or {})}

    def id_of(self, kind: str, index: int) -> str:
        """The id of an output item: `msg_…_0`."""
        return f"{kind}_{self._name}_{index}"

    def response(
        self,
        chat: Mapping[str, Any],
        status: str,
        output: Sequence[Mapping[str, Any]],
        usage: Mapping[str, Any] | None = None,
        *,
        reason: str | None = None,
        error: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The whole object. `chat` is a chat answer or chunk, `reason` why it is incomplete."""
        created = chat.get("created")
        tier = chat.get("service_tier")
        return {
            "id": f"resp_{self._name}",
            "object": "response",
            "created_at": created if type(created) is int else 0,
            "status": status,
            "error": error,
            "incomplete_details": {"reason": reason} if reason else None,
            "model": self._model,
            "output": output,
            "previous_response_id": None,
            "service_tier": tier if type(tier) is str else None,
            "store": False,
            "usage": usage,
            **self._echo,
        }


def reported(usage: Usage | None) -> dict[str, Any] | None:
    """What the provider reports of the usage, in Responses' shape; None where it is only estimated."""
    return usage_object(usage) if usage is not None and usage.source == "provider" else None


def text_part(text: str, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def refusal_part(refusal: str) -> dict[str, Any]:
    return {"type": "refusal", "refusal": refusal}


def thought_part(text: str) -> dict[str, Any]:
    return {"type": "reasoning_text", "text": text}


def message_item(id: str, parts: Sequence[Mapping[str, Any]], status: str) -> dict[str, Any]:
    return {"id": id, "type": "message", "status": status, "role": "assistant", "content": parts}


def reasoning_item(id: str, parts: Sequence[Mapping[str, Any]], status: str) -> dict[str, Any]:
    return {"id": id, "type": "reasoning", "status": status, "summary": [], "content": parts}


def call_item(id: str, call_id: str, name: str, arguments: str, status: str) -> dict[str, Any]:
    return {
        "id": id,
        "type": "function_call",
        "status": status,
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
    }


def dumped(value: Any) -> bytes:
    """JSON of what somebody else has said: half a character, which orjson refuses, goes out as it came."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, separators=(",", ":")).encode("ascii")


def words_of(content: Any) -> str:
    """A text, or the texts of a list of parts, as some servers answer."""
    if type(content) is list:
        return "".join(words_of(part.get("text")) for part in content if type(part) is dict)
    return content if type(content) is str else ""


def thought_of(message: Mapping[str, Any]) -> str:
    """What a server tells of the reasoning, under either of its names."""
    return words_of(message.get("reasoning_content")) or words_of(message.get("reasoning"))


def objects_in(value: Any) -> list[dict[str, Any]]:
    """The objects of a list; of anything else none."""
    return [each for each in value if type(each) is dict] if type(value) is list else []


def logprobs_of(choice: Mapping[str, Any]) -> list[dict[str, Any]]:
    told = choice.get("logprobs")
    tokens = objects_in(told.get("content")) if type(told) is dict else []
    return [
        {**_token(each), "top_logprobs": [_token(top) for top in objects_in(each.get("top_logprobs"))]}
        for each in tokens
    ]


def _token(said: Mapping[str, Any]) -> dict[str, Any]:
    return {"token": said.get("token"), "logprob": said.get("logprob"), "bytes": said.get("bytes") or []}


def arguments_of(function: Mapping[str, Any]) -> str:
    """Of a call: the JSON text, which a few servers send as the object that it stands for."""
    arguments = function.get("arguments")
    if arguments is None or type(arguments) is str:
        return arguments or ""
    return dumped(arguments).decode()


def unreadable(message: str) -> UpstreamFailed:
    return UpstreamFailed("unknown", "upstream_unreadable", message)


class PlainOverChat:
    """A chat completion, told as a Response. `retold` puts a failure into the client's words."""

    streamed = False
    content_type = "application/json"
    tail = b""

    def __init__(self, chat: Answer, reply: Reply, retold: Callable[[UpstreamFailed], UpstreamFailed]) -> None:
        self.status = chat.status
        self.provider_request_id = chat.provider_request_id
        self.usage: Usage | None = None
        self.failed = False
        self._chat = chat
        self._reply = reply
        self._retold = retold

    async def read(self) -> bytes:
        """The body; `usage` is set then. Raises `UpstreamFailed`."""
        try:
            said = json_object(await self._chat.read()) or {}
        except UpstreamFailed as failed:
            raise self._retold(failed) from None
        self.usage = self._chat.usage
        try:
            return self._told(said)
        except UpstreamFailed as failed:
            failed.usage = self.usage
            raise

    def _told(self, said: Mapping[str, Any]) -> bytes:
        choices = objects_in(said.get("choices"))
        choice = choices[0] if choices else {}
        message = choice.get("message")
        if type(message) is not dict:
            raise unreadable("The model's provider answered with something that is no chat completion.")
        if choice.get("error") or choice.get("finish_reason") == "error":
            raise UpstreamFailed("unknown", "upstream_server_error", FAILED)
        reason = INCOMPLETE.get(str(choice.get("finish_reason")))
        status = "incomplete" if reason else "completed"
        output = self._output(choice, message, status)
        return dumped(self._reply.response(said, status, output, reported(self.usage), reason=reason))

    def _output(self, choice: Mapping[str, Any], message: Mapping[str, Any], status: str) -> list[dict[str, Any]]:
        """The items; if the answer is incomplete, it is the last of them that is."""
        output: list[dict[str, Any]] = []
        thought, text, refusal = thought_of(message), words_of(message.get("content")), message.get("refusal")
        if thought:
            output.append(reasoning_item(self._reply.id_of("rs", 0), [thought_part(thought)], "completed"))
        calls = objects_in(message.get("tool_calls"))
        parts = [text_part(text, logprobs_of(choice))] if text else []
        if type(refusal) is str and refusal:
            parts.append(refusal_part(refusal))
        if parts or not calls:
            content = parts or [text_part("", [])]
            output.append(message_item(self._reply.id_of("msg", len(output)), content, "completed"))
        for call in calls:
            output.append(self._call(call, len(output)))
        output[-1]["status"] = status
        return output

    def _call(self, call: Mapping[str, Any], index: int) -> dict[str, Any]:
        function = call.get("function")
        if type(function) is not dict or type(function.get("name")) is not str:
            raise unreadable("The model's provider answered with a tool call without a name.")
        id = self._reply.id_of("fc", index)
        call_id = call["id"] if type(call.get("id")) is str and call["id"] else self._reply.id_of("call", index)
        return call_item(id, call_id, function["name"], arguments_of(function), "completed")

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
