"""Reading a chat completions request: what it asks for, and the most input it can turn out to be.

In: the parsed body and the headers. Out: an `Ask`, or `Refused` with a sentence that says which field is
wrong and what would be right. `FIELDS` is the table of every top-level field that the gate has a word for.

The input bound holds for every byte-level tokenizer: a token stands for at least one byte of text, and what a
chat template writes around a message or a tool is covered by a constant. Images are no text: each counts as the
worst case of any model known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from proxy.domain.asks import Ask, Extra
from proxy.domain.attribution import read_attribution
from proxy.domain.faults import bad_value, fault, missing, wrong_type
from proxy.domain.request_parts import (
    IMAGE_TOKENS,
    IMAGE_TOKENS_USUAL,
    TOKENS_PER_MESSAGE,
    TOKENS_PER_REQUEST,
    TOKENS_PER_TOOL,
    TOOLS_MAX,
    Effect,
    Size,
    check_logit_bias,
    check_remote,
    flag,
    forwarded,
    json_text,
    read_model,
    unknown_fields,
    usage_asked,
    whole,
)
from proxy.domain.usage import TOKENS_MAX

FIELDS: dict[str, Effect] = {
    "model": "free",
    "messages": "bounds the input",
    "tools": "bounds the input",
    "functions": "bounds the input",
    "tool_choice": "bounds the input",
    "function_call": "bounds the input",
    "response_format": "bounds the input",
    "max_tokens": "limits the output",
    "max_completion_tokens": "limits the output",
    "n": "multiplies the output",
    "best_of": "costs extra",
    "audio": "costs extra",
    "modalities": "costs extra",
    "prediction": "costs extra",
    "service_tier": "costs extra",
    "store": "costs extra",
    "web_search_options": "costs extra",
    "stream": "free",
    "stream_options": "free",
    "temperature": "free",
    "top_p": "free",
    "top_k": "free",
    "presence_penalty": "free",
    "frequency_penalty": "free",
    "seed": "free",
    "stop": "free",
    "logit_bias": "free",
    "logprobs": "free",
    "top_logprobs": "free",
    "parallel_tool_calls": "free",
    "reasoning_effort": "free",
    "verbosity": "free",
    "metadata": "free",
    "user": "free",
    "safety_identifier": "free",
    "prompt_cache_key": "free",
}

# The values of a field that costs extra at which it does not; null counts as absent everywhere.
HARMLESS: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "modalities": (["text"],),
    "service_tier": ("auto", "default", "flex"),
    "store": (False,),
}

# What a field that costs extra needs of the plan; the others are refused on every plan.
NEEDS = {"service_tier": "priority_tier", "web_search_options": "web_search"}

MESSAGES_MAX = 2_000
CHOICES_MAX = 16


def read_chat(body: dict[str, Any], headers: Mapping[str, str], digest_user: Callable[[str], str]) -> Ask:
    """What a chat request asks for; raises `Refused` (bad_request, 400) for every fault of it.

    `headers` are looked up by lower-case names. `digest_user` makes the keyed digest that is kept instead
    of a user id that looks like an e-mail address or a phone number.
    """
    model = read_model(body)
    unknown = unknown_fields(body, FIELDS)
    extras = _extras(body)
    streamed = flag(body, "stream")
    size = Size()
    _messages(body.get("messages"), size)
    tools = _tools(body, size)
    for name in ("tool_choice", "function_call", "response_format", *unknown):
        if body.get(name) is not None:
            size.add(body[name])
    if size.remote_image is not None:
        extras = (*extras, Extra(size.remote_image, "remote_images"))
    check_logit_bias(body)
    constants = TOKENS_PER_REQUEST + TOKENS_PER_MESSAGE * len(body["messages"]) + TOKENS_PER_TOOL * tools
    return Ask(
        endpoint="/v1/chat/completions",
        model=model,
        body=body,
        streamed=streamed,
        usage_asked=usage_asked(body, streamed),
        output_limit=_output_limit(body),
        choices=whole(body, "n", CHOICES_MAX) or 1,
        input_bound=size.text + size.image_tokens + constants,
        input_estimate=size.text // 4 + IMAGE_TOKENS_USUAL * size.images + 4 * len(body["messages"]),
        unknown_fields=unknown,
        attribution=read_attribution(body, headers, digest_user),
        extras=extras,
        forward_headers=forwarded(headers),
    )


def _extras(body: dict[str, Any]) -> tuple[Extra, ...]:
    """The fields that a plan's feature allows; raises `Refused` for those that nothing does."""
    extras: tuple[Extra, ...] = ()
    for name in _COSTS_EXTRA & body.keys():
        value = body[name]
        harmless = HARMLESS.get(name, ())
        if value is None or any(type(value) is type(each) and value == each for each in harmless):
            continue
        if name == "service_tier":
            if type(value) is not str:
                raise wrong_type(name, "a string", value)
            extras += (Extra(name, NEEDS[name]),)
        elif name == "web_search_options":
            if type(value) is not dict:
                raise wrong_type(name, "an object", value)
            # A model that searches in a chat completion does so once, before it answers.
            extras += (Extra(name, NEEDS[name], calls=1),)
        else:
            would_do = " or ".join(json_text(each) for each in harmless)
            hint = f"Leave it out or set it to {would_do}." if harmless else "Leave it out."
            message = f"'{name}' may cost more than its tokens, which Faregate cannot bound yet. {hint}"
            raise fault("unsupported_parameter", message, name)
    return extras


_COSTS_EXTRA = frozenset(name for name, effect in FIELDS.items() if effect == "costs extra")


def _messages(messages: Any, size: Size) -> None:
    if type(messages) is not list:
        raise missing("messages") if messages is None else wrong_type("messages", "an array of objects", messages)
    if not messages:
        raise bad_value("messages", "it must have at least one message")
    if len(messages) > MESSAGES_MAX:
        raise bad_value("messages", f"it has {len(messages)} messages; at most {MESSAGES_MAX} are taken")
    for position, message in enumerate(messages):
        if type(message) is not dict:
            raise wrong_type(f"messages.{position}", "an object", message)
        role = message.get("role")
        if type(role) is not str:
            where = f"messages.{position}.role"
            raise missing(where) if role is None else wrong_type(where, "a string", role)
        content = message.get("content")
        if type(content) is str:
            size.text += len(content) if content.isascii() else len(content.encode("utf-8", "surrogatepass"))
        elif content is not None:
            _parts(content, f"messages.{position}.content", size)
        size.text += len(role) if role.isascii() else 4 * len(role)
        if len(message) != 2 or "content" not in message:
            _rest(message, f"messages.{position}", size)


def _rest(message: dict[str, Any], where: str, size: Size) -> None:
    """What a message carries beside role and content: a name, tool calls, reasoning, …"""
    if message.get("audio") is not None:
        raise fault("unsupported_parameter", "Faregate cannot bound audio yet. Leave it out.", f"{where}.audio")
    size.add({name: value for name, value in message.items() if name != "content" and name != "role"})


def _parts(content: Any, where: str, size: Size) -> None:
    if type(content) is not list:
        raise wrong_type(where, "a string or an array of parts", content)
    size.text += 8 * len(content)
    for position, part in enumerate(content):
        here = f"{where}.{position}"
        if type(part) is not dict:
            raise wrong_type(here, "an object", part)
        kind = part.get("type")
        if kind == "text" or kind == "refusal":
            if type(part.get(kind)) is not str:
                raise wrong_type(f"{here}.{kind}", "a string", part.get(kind))
            size.add(part[kind])
            if len(part) > 2:
                size.add(part)
        elif kind == "image_url":
            _image(part, here, size)
        else:
            message = f"'{here}.type' must be 'text', 'refusal' or 'image_url'; other parts cannot be bounded yet."
            raise fault("unsupported_value", message, f"{here}.type")


def _image(part: dict[str, Any], where: str, size: Size) -> None:
    image = part.get("image_url")
    url = image.get("url") if type(image) is dict else None
    if type(image) is not dict or type(url) is not str:
        raise wrong_type(f"{where}.image_url.url", "a string", url)
    remote = url[:11].lower() != "data:image/"
    if remote:
        check_remote(url, f"{where}.image_url.url")
        size.remote_image = size.remote_image or f"{where}.image_url.url"
    detail = image.get("detail") or "auto"
    if type(detail) is not str or detail not in IMAGE_TOKENS:
        raise bad_value(f"{where}.image_url.detail", "it must be 'low', 'high' or 'auto'")
    if part.keys() - _IMAGE_PART or image.keys() - _IMAGE_URL:
        size.add({name: part[name] for name in part.keys() - _IMAGE_PART})
        size.add({name: image[name] for name in image.keys() - _IMAGE_URL})
    size.images += 1
    size.image_tokens += IMAGE_TOKENS["high" if remote else detail]


_IMAGE_PART = frozenset(("type", "image_url"))
_IMAGE_URL = frozenset(("url", "detail"))


def _tools(body: dict[str, Any], size: Size) -> int:
    count = 0
    for name in ("tools", "functions"):
        tools = body.get(name)
        if tools is None:
            continue
        if type(tools) is not list:
            raise wrong_type(name, "an array of objects", tools)
        if len(tools) > TOOLS_MAX:
            raise bad_value(name, f"it has {len(tools)} entries; at most {TOOLS_MAX} are taken")
        for position, tool in enumerate(tools):
            if type(tool) is not dict:
                raise wrong_type(f"{name}.{position}", "an object", tool)
            if name == "tools":
                _tool(tool, f"tools.{position}")
        size.add(tools)
        count += len(tools)
    return count


def _tool(tool: dict[str, Any], where: str) -> None:
    if tool.get("type") != "function":
        message = f"'{where}.type' must be 'function'; tools that the provider runs belong to other endpoints."
        raise fault("unsupported_value", message, f"{where}.type")
    function = tool.get("function")
    if type(function) is not dict or type(function.get("name")) is not str:
        raise fault("invalid_value", f"'{where}.function' must be an object with a name.", f"{where}.function")


def _output_limit(body: dict[str, Any]) -> int | None:
    new = whole(body, "max_completion_tokens", TOKENS_MAX)
    old = whole(body, "max_tokens", TOKENS_MAX)
    if new is not None and old is not None:
        message = "Set 'max_tokens' or 'max_completion_tokens', not both."
        raise fault("invalid_value", message, "max_completion_tokens")
    return old if new is None else new
