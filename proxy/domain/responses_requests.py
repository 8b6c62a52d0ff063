"""Reading a Responses request: what it asks for, and the most input it can turn out to be.

In: the parsed body and the headers. Out: an `Ask`, or `Refused` with a sentence that says which field is wrong and
what would be right. `FIELDS` is the table of every top-level field that the gate has a word for.

What the provider keeps for itself (conversations, prompt templates, background runs) has no size that the body
tells and no owner that the gate knows, so it is refused. A previous response is neither: the gate has a record of
each, see gateway/responses.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from proxy.domain.asks import Ask, Extra
from proxy.domain.attribution import read_attribution
from proxy.domain.faults import bad_value, fault, missing, wrong_type
from proxy.domain.request_parts import (
    IMAGE_TOKENS_USUAL,
    TOKENS_PER_MESSAGE,
    TOKENS_PER_REQUEST,
    TOKENS_PER_TOOL,
    Effect,
    flag,
    forwarded,
    json_text,
    read_model,
    unknown_fields,
    whole,
)
from proxy.domain.responses_input import ResponsesInput, check_id
from proxy.domain.usage import TOKENS_MAX

FIELDS: dict[str, Effect] = {
    "model": "free",
    "input": "bounds the input",
    "instructions": "bounds the input",
    "tools": "bounds the input",
    "tool_choice": "bounds the input",
    "text": "bounds the input",
    "previous_response_id": "bounds the input",
    "max_output_tokens": "limits the output",
    "background": "costs extra",
    "conversation": "costs extra",
    "prompt": "costs extra",
    "service_tier": "costs extra",
    "context_management": "costs extra",
    "moderation": "costs extra",
    "access_programs": "costs extra",
    "max_tool_calls": "free",
    "parallel_tool_calls": "free",
    "store": "free",
    "stream": "free",
    "stream_options": "free",
    "include": "free",
    "reasoning": "free",
    "truncation": "free",
    "temperature": "free",
    "top_p": "free",
    "top_logprobs": "free",
    "image": "free",
    "metadata": "free",
    "client_metadata": "free",
    "prompt_cache_key": "free",
    "prompt_cache_options": "free",
    "prompt_cache_retention": "free",
    "safety_identifier": "free",
    "user": "free",
}

# The values of a field that costs extra at which it does not; null counts as absent everywhere.
HARMLESS: dict[str, tuple[Any, ...]] = {
    "background": (False,),
    "service_tier": ("auto", "default", "flex"),
    "context_management": ([],),
    "access_programs": ({"cyber": "standard"},),
}

# What a field that costs extra needs of the plan; the others are refused on every plan.
NEEDS = {"service_tier": "priority_tier"}

# Why a field that costs extra is refused, where there is more to say than that.
REASONS = {
    "background": "Responses in the background outlive their request, which Faregate cannot meter.",
    "conversation": "What a conversation holds, and whose it is, only the provider knows."
    " Continue a response by 'previous_response_id', or send the items as 'input'.",
    "prompt": "What a stored prompt holds only the provider knows. Send its text as 'instructions' and 'input'.",
    "context_management": "Compaction by the provider uses a model beside the one that answers.",
}

TOOL_CALLS_MAX = 10_000


def read_responses(body: dict[str, Any], headers: Mapping[str, str], digest_user: Callable[[str], str]) -> Ask:
    """What a Responses request asks for; raises `Refused` (bad_request, 400) for every fault of it.

    `headers` are looked up by lower-case names. `digest_user` makes the keyed digest that is kept instead
    of a user id that looks like an e-mail address or a phone number.
    """
    model = read_model(body)
    unknown = unknown_fields(body, FIELDS)
    extras = _extras(body)
    streamed = flag(body, "stream")
    _check_options(body, streamed)
    previous = body.get("previous_response_id")
    if previous is not None:
        check_id(previous, "previous_response_id")
    found = _input(body, previous)
    for name in ("tool_choice", "text", *unknown):
        if body.get(name) is not None:
            found.size.add(body[name])
    if found.size.remote_image is not None:
        extras.append(Extra(found.size.remote_image, "remote_images"))
    calls = whole(body, "max_tool_calls", TOOL_CALLS_MAX)
    constants = TOKENS_PER_REQUEST + TOKENS_PER_MESSAGE * (found.count + 1) + TOKENS_PER_TOOL * found.tools.count
    return Ask(
        endpoint="/v1/responses",
        model=model,
        body=body,
        streamed=streamed,
        usage_asked=True,
        output_limit=whole(body, "max_output_tokens", TOKENS_MAX),
        choices=1,
        input_bound=found.bound + constants,
        input_estimate=found.size.text // 4 + IMAGE_TOKENS_USUAL * found.size.images + 4 * found.count,
        unknown_fields=unknown,
        attribution=read_attribution(body, headers, digest_user),
        extras=(*extras, *found.tools.extras_of(calls)),
        previous_response_id=previous,
        stored_items=found.stored_items,
        forward_headers=forwarded(headers),
    )


def _input(body: dict[str, Any], previous: str | None) -> ResponsesInput:
    found = ResponsesInput()
    if body.get("input") is not None:
        found.read(body["input"])
    elif previous is None:
        raise missing("input")
    instructions = body.get("instructions")
    if instructions is not None:
        if type(instructions) is not str:
            raise wrong_type("instructions", "a string", instructions)
        found.size.add(instructions)
    if body.get("tools") is not None:
        found.tools.read(body["tools"], "tools")
    return found


def _extras(body: dict[str, Any]) -> list[Extra]:
    """The fields that a plan's feature allows; raises `Refused` for those that nothing does."""
    extras = []
    for name in FIELDS.keys() & body.keys():
        value = body[name]
        if FIELDS[name] != "costs extra" or value is None:
            continue
        harmless = HARMLESS.get(name, ())
        if any(type(value) is type(each) and value == each for each in harmless):
            continue
        if name == "service_tier":
            if type(value) is not str:
                raise wrong_type(name, "a string", value)
            extras.append(Extra(name, NEEDS[name]))
            continue
        would_do = " or ".join(json_text(each) for each in harmless)
        why = REASONS.get(name, "What it costs beside the tokens is not known.")
        hint = f"Leave '{name}' out or set it to {would_do}." if harmless else f"Leave '{name}' out."
        raise fault("unsupported_parameter", f"{why} {hint}", name)
    return extras


def _check_options(body: dict[str, Any], streamed: bool) -> None:
    """The parts of free fields that are not free."""
    flag(body, "store")
    options = body.get("stream_options")
    if options is not None:
        if type(options) is not dict:
            raise wrong_type("stream_options", "an object", options)
        if not streamed:
            raise bad_value("stream_options", "it is only allowed when 'stream' is true")
    for name in ("reasoning", "text", "prompt_cache_options"):
        if body.get(name) is not None and type(body[name]) is not dict:
            raise wrong_type(name, "an object", body[name])
    reasoning, caching = body.get("reasoning") or {}, body.get("prompt_cache_options") or {}
    if reasoning.get("mode") not in (None, "standard"):
        message = "'reasoning.mode' may only be 'standard': what other modes cost is not known."
        raise fault("unsupported_value", message, "reasoning.mode")
    if caching.get("ttl") not in (None, "30m"):
        message = "'prompt_cache_options.ttl' may only be '30m': what a longer life costs is not known."
        raise fault("unsupported_value", message, "prompt_cache_options.ttl")
    if caching.get("comparison_response_id") is not None:
        where = "prompt_cache_options.comparison_response_id"
        raise fault("unsupported_parameter", f"'{where}' is not available. Leave it out.", where)
