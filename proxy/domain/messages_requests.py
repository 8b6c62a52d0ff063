"""Reading a Messages request, and one that only counts its tokens: what it asks for, and how large it can be.

In: the parsed body and the headers. Out: an `Ask`, or `Refused` with a sentence that says which field is wrong and
what would be right. `FIELDS` is the table of every top-level field that the gate has a word for.

Thinking is part of `max_tokens`. What the provider does beside the one answer of the one model (substitutes,
compaction, threads that it keeps) is not in that answer's usage or has no owner, so it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from proxy.domain.asks import Ask, Attribution, Extra
from proxy.domain.attribution import CHARACTERS_MAX, read_attribution
from proxy.domain.faults import fault, missing, wrong_type
from proxy.domain.messages_headers import headers_upstream
from proxy.domain.messages_input import MessagesInput, foreign
from proxy.domain.request_parts import (
    IMAGE_TOKENS_USUAL,
    TOKENS_PER_REQUEST,
    Effect,
    flag,
    json_text,
    read_model,
    unknown_fields,
    whole,
)
from proxy.domain.usage import TOKENS_MAX

FIELDS: dict[str, Effect] = {
    "model": "free",
    "messages": "bounds the input",
    "system": "bounds the input",
    "tools": "bounds the input",
    "tool_choice": "bounds the input",
    "output_config": "bounds the input",
    "output_format": "bounds the input",
    "max_tokens": "limits the output",
    "billing_policy": "costs extra",
    "compaction": "costs extra",
    "container": "costs extra",
    "context_management": "costs extra",
    "fallbacks": "costs extra",
    "inference_geo": "costs extra",
    "mcp_servers": "costs extra",
    "service_tier": "costs extra",
    "speed": "costs extra",
    "thread": "costs extra",
    "cache_control": "free",
    "diagnostics": "free",
    "fallback_credit_token": "free",
    "metadata": "free",
    "stop_sequences": "free",
    "stream": "free",
    "temperature": "free",
    "thinking": "free",
    "top_k": "free",
    "top_p": "free",
}

# The values of a field that costs extra at which it does not; null counts as absent everywhere. "auto" is what a
# request without `service_tier` means: capacity that the operator has bought in advance is used, if there is any.
HARMLESS: dict[str, tuple[Any, ...]] = {
    "billing_policy": ({"type": "billing_policy", "bill_to": "self"},),
    "fallbacks": ([],),
    "inference_geo": ("global",),
    "mcp_servers": ([],),
    "service_tier": ("auto", "standard_only"),
    "speed": ("standard",),
}

# What a field that costs extra needs of the plan; the others are refused on every plan.
NEEDS = {"container": "code_interpreter", "mcp_servers": "mcp", "service_tier": "priority_tier"}

# Why a field that costs extra is refused, where there is more to say than that.
REASONS = {
    "compaction": "Compaction by the provider is not in the usage of the answer.",
    "fallbacks": "Which models may stand in for another is written in Faregate's own policy.",
    "thread": "What a thread holds, and whose it is, only the provider knows. Send the messages themselves.",
}

# What the provider tells the model about the form of its answer, beside the schema.
TOKENS_FOR_FORMAT = 1_024
HARMLESS_EDITS = ("clear_tool_uses_", "clear_thinking_")

# Claude Code says in one field who, and in which session.
_COMPOSITE = re.compile(r"(user_[0-9A-Za-z]+(?:_account_[0-9A-Za-z-]*?)?)_session_([0-9A-Za-z-]+)")
_COMPOSITE_JSON = re.compile(r'"(account_uuid|device_id|session_id)"\s*:\s*"([0-9A-Za-z-]{1,128})"')


def read_messages(body: dict[str, Any], headers: Mapping[str, str], digest_user: Callable[[str], str]) -> Ask:
    """What a Messages request asks for; raises `Refused` (bad_request, 400) for every fault of it.

    `headers` are looked up by lower-case names. `digest_user` makes the keyed digest that is kept instead of a
    user id that is too long or looks like an e-mail address or a phone number.
    """
    model = read_model(body)
    streamed = flag(body, "stream")
    output_limit = whole(body, "max_tokens", TOKENS_MAX, least=0)  # 0 fills the cache, and writes nothing.
    if output_limit is None:
        raise missing("max_tokens")
    found = _input(body)
    extras = _extras(body, found)
    unknown = unknown_fields(body, FIELDS)
    for name in unknown:
        found.size.add(body[name])
    constants = TOKENS_PER_REQUEST + (TOKENS_FOR_FORMAT if _has_format(body) else 0)
    return Ask(
        endpoint="/v1/messages",
        model=model,
        body=body,
        streamed=streamed,
        usage_asked=True,
        output_limit=output_limit,
        choices=1,
        input_bound=found.bound + constants,
        input_estimate=found.size.text // 4 + IMAGE_TOKENS_USUAL * found.size.images + 4 * found.count,
        unknown_fields=(*unknown, *found.unknown),
        attribution=_attribution(body, headers, digest_user),
        extras=extras,
        forward_headers=headers_upstream(headers, {extra.feature for extra in extras}),
    )


def read_count_tokens(body: dict[str, Any], headers: Mapping[str, str], digest_user: Callable[[str], str]) -> Ask:
    """As `read_messages`, of a request that buys nothing: it is counted, and neither answered nor charged.

    So it has no bounds, and nothing in it can cost extra; but the provider would fetch what it names.
    """
    model = read_model(body)
    found = _input(body)
    extras = tuple([extra for extra in found.extras if extra.feature == "remote_images"])
    features = {extra.feature for extra in (*extras, *found.tools.extras)}
    return Ask(
        endpoint="/v1/messages/count_tokens",
        model=model,
        body=body,
        streamed=False,
        usage_asked=False,
        output_limit=0,
        choices=1,
        input_bound=0,
        input_estimate=0,
        unknown_fields=(),
        attribution=_attribution(body, headers, digest_user),
        generates=False,
        counts_request=False,
        extras=extras,
        forward_headers=headers_upstream(headers, features),
    )


def _input(body: dict[str, Any]) -> MessagesInput:
    found = MessagesInput()
    found.read(body.get("messages"))
    if body.get("system") is not None:
        found.content(body["system"], "system")
    if body.get("tools") is not None:
        found.tools.read(body["tools"], "tools", found.size)
    if body.get("mcp_servers") is not None:
        found.tools.read_servers(body["mcp_servers"])
    for name in ("tool_choice", "output_config", "output_format"):
        if body.get(name) is not None:
            if type(body[name]) is not dict:
                raise wrong_type(name, "an object", body[name])
            found.size.add(body[name])
    return found


def _has_format(body: Mapping[str, Any]) -> bool:
    return bool(body.get("output_format") or (body.get("output_config") or {}).get("format"))


def _extras(body: dict[str, Any], found: MessagesInput) -> tuple[Extra, ...]:
    """The fields that a plan's feature allows; raises `Refused` for those that nothing does."""
    extras = [*found.extras, *found.tools.extras]
    for name in _COSTS_EXTRA & body.keys():
        value = body[name]
        harmless = HARMLESS.get(name, ())
        if value is None or any(type(value) is type(each) and value == each for each in harmless):
            continue
        if name == "service_tier":
            if type(value) is not str:
                raise wrong_type(name, "a string", value)
            extras.append(Extra(name, NEEDS[name]))
        elif name == "container":
            extras.append(_container(value))
        elif name == "context_management":
            _check_edits(value, found)
        elif name != "mcp_servers":
            would_do = " or ".join(json_text(each) for each in harmless)
            why = REASONS.get(name, f"'{name}' may cost more than its tokens, which Faregate cannot bound.")
            hint = f"Leave '{name}' out or set it to {would_do}." if harmless else f"Leave '{name}' out."
            raise fault("unsupported_parameter", f"{why} {hint}", name)
    return tuple(extras)


_COSTS_EXTRA = frozenset(name for name, effect in FIELDS.items() if effect == "costs extra")


def _container(container: Any) -> Extra:
    if type(container) is str:
        raise foreign("container")
    if type(container) is not dict:
        raise wrong_type("container", "an object", container)
    if container.get("id") is not None:
        raise foreign("container.id")
    return Extra("container", NEEDS["container"])


def _check_edits(management: Any, found: MessagesInput) -> None:
    """Edits that take something out of the context are free; one that sums it up uses a model for it."""
    if type(management) is not dict:
        raise wrong_type("context_management", "an object", management)
    edits = management.get("edits") or []
    if type(edits) is not list:
        raise wrong_type("context_management.edits", "an array of objects", edits)
    for position, edit in enumerate(edits):
        where = f"context_management.edits.{position}"
        kind = edit.get("type") if type(edit) is dict else None
        if type(kind) is not str:
            raise wrong_type(f"{where}.type", "a string", kind)
        if kind.startswith("compact"):
            message = f"{REASONS['compaction']} Leave '{where}' out."
            raise fault("unsupported_value", message, f"{where}.type")
        if not kind.startswith(HARMLESS_EDITS):
            found.unknown.append(where)


def _attribution(
    body: Mapping[str, Any], headers: Mapping[str, str], digest_user: Callable[[str], str]
) -> Attribution:
    """Who and what for. `metadata.user_id` is never refused for its length: clients put more than an id there."""
    metadata = body.get("metadata")
    if type(metadata) is not dict:
        return read_attribution({"metadata": metadata}, headers, digest_user)
    user = metadata.get("user_id")
    if user is not None and type(user) is not str:
        raise wrong_type("metadata.user_id", "a string", user)
    who, session = _composite(user) if user else (user, None)
    if who is not None and (len(who) > CHARACTERS_MAX or not who.isprintable()):
        who = digest_user(who)
    said = {**metadata, "run_id": metadata.get("run_id") or session}
    return read_attribution({"user": who, "metadata": said}, headers, digest_user)


def _composite(user: str) -> tuple[str, str | None]:
    """The user and the session of a user id that holds both; else the id as it is."""
    if user.startswith("{"):
        parts = dict(_COMPOSITE_JSON.findall(user))
        who = parts.get("account_uuid") or parts.get("device_id")
        return (who, parts.get("session_id")) if who else (user, None)
    both = _COMPOSITE.fullmatch(user)
    return (both[1], both[2]) if both else (user, None)
