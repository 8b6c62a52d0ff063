"""The reading of a request decides what is held for it: an input bound that is too low is money."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.asks import Ask, Extra
from proxy.domain.attribution import looks_personal
from proxy.domain.chat_requests import FIELDS, IMAGE_TOKENS, read_chat
from proxy.domain.refusals import Refusal, Refused

HELLO = {"role": "user", "content": "hello"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
PIXEL = "data:image/png;base64," + "A" * 10_000


def read(body: dict[str, Any] | None = None, headers: dict[str, str] | None = None, **more: Any) -> Ask:
    return read_chat(
        {"model": "m", "messages": [HELLO], **(body or {}), **more}, headers or {}, lambda v: f"digest-{len(v)}"
    )


def refusal(**body: Any) -> Refusal:
    with pytest.raises(Refused) as caught:
        read(body)
    return caught.value.refusal


def test_a_plain_request_is_understood() -> None:
    """The everyday case, whole."""
    ask = read(temperature=1, max_tokens=50)
    assert (ask.endpoint, ask.model, ask.streamed, ask.usage_asked) == ("/v1/chat/completions", "m", False, False)
    assert (ask.output_limit, ask.choices, ask.unknown_fields) == (50, 1, ())
    assert 9 <= ask.input_bound <= 60
    assert 1 <= ask.input_estimate <= 10


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        ({"model": None}, "model", "Missing required parameter"),
        ({"model": 7}, "model", "expected a string, but got an integer"),
        ({"model": ["m"]}, "model", "an array"),
        ({"model": ""}, "model", "1 to 256"),
        ({"model": "m" * 257}, "model", "1 to 256"),
        ({"messages": None}, "messages", "Missing required parameter"),
        ({"messages": "hi"}, "messages", "an array of objects"),
        ({"messages": []}, "messages", "at least one"),
        ({"messages": ["hi"]}, "messages.0", "an object"),
        ({"messages": [HELLO] * 2001}, "messages", "2000"),
        ({"messages": [{"content": "x"}]}, "messages.0.role", "Missing"),
        ({"messages": [{"role": 1, "content": "x"}]}, "messages.0.role", "a string"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages.0.content", "array of parts"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages.0.content.0", "an object"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content.0.text", "a string"),
        ({"messages": [{**HELLO, "audio": {"id": "a"}}]}, "messages.0.audio", "audio"),
        ({"max_tokens": 0}, "max_tokens", ">= 1, but got 0"),
        ({"max_tokens": -1}, "max_tokens", ">= 1, but got -1"),
        ({"max_tokens": 1.5}, "max_tokens", "expected an integer, but got a decimal"),
        ({"max_tokens": "100"}, "max_tokens", "expected an integer, but got a string"),
        ({"max_tokens": True}, "max_tokens", "expected an integer, but got a boolean"),
        ({"max_tokens": float("nan")}, "max_tokens", "expected an integer"),
        ({"max_tokens": 10**5000}, "max_tokens", "beyond 64 bits"),
        ({"max_completion_tokens": 0}, "max_completion_tokens", ">= 1"),
        ({"max_tokens": 5, "max_completion_tokens": 5}, "max_completion_tokens", "not both"),
        ({"n": 0}, "n", ">= 1"),
        ({"n": 17}, "n", "<= 16"),
        ({"n": 1_000_000}, "n", "<= 16"),
        ({"n": True}, "n", "a boolean"),
        ({"stream": "yes"}, "stream", "a boolean"),
        ({"stream": 1}, "stream", "a boolean"),
        ({"stream": True, "stream_options": [1]}, "stream_options", "an object"),
        (
            {"stream": True, "stream_options": {"include_usage": 1}},
            "stream_options.include_usage",
            "a boolean",
        ),
        ({"stream_options": {"include_usage": True}}, "stream_options", "'stream' is true"),
        ({"tools": {}}, "tools", "an array"),
        ({"tools": [1]}, "tools.0", "an object"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type", "function"),
        ({"tools": [{"type": "function"}]}, "tools.0.function", "a name"),
        ({"tools": [TOOL] * 513}, "tools", "512"),
        ({"functions": "f"}, "functions", "an array"),
        ({"logit_bias": {str(i): 1 for i in range(1025)}}, "logit_bias", "1024"),
        ({"web_search_options": True}, "web_search_options", "an object"),
        ({"service_tier": 7}, "service_tier", "a string"),
        ({"store": True}, "store", "false"),
        ({"store": 0}, "store", "false"),
        ({"modalities": ["text", "audio"]}, "modalities", '["text"]'),
        ({"audio": {"voice": "a"}}, "audio", "Leave it out"),
        ({"prediction": {"type": "content"}}, "prediction", "Leave it out"),
        ({"best_of": 1_000_000}, "best_of", "1"),
        ({"user": 7}, "user", "a string"),
        ({"user": "u" * 257}, "user", "256"),
        ({"user": "a\x00b"}, "user", "control"),
        ({"metadata": "x"}, "metadata", "an object"),
        ({"metadata": {"run_id": 7}}, "metadata.run_id", "a string"),
        ({"metadata": {"step": "s" * 257}}, "metadata.step", "256"),
    ],
)
def test_a_fault_is_a_400_that_names_its_field(body: dict[str, Any], param: str, says: str) -> None:
    """Whoever reads the error must know which field to change, and into what."""
    refused = refusal(**body)
    assert (refused.reason, refused.status, refused.param) == ("bad_request", 400, param)
    assert says in refused.message
    assert refused.type == "invalid_request_error"
    assert refused.code


@pytest.mark.parametrize(
    "name", ["max_tokens", "max_completion_tokens", "n", "stream", "stream_options", "tools", "store", "user"]
)
def test_null_counts_as_absent(name: str) -> None:
    """Clients send null for what they were not given."""
    ask = read({name: None})
    assert (ask.output_limit, ask.choices, ask.streamed) == (None, 1, False)


@pytest.mark.parametrize(
    "body",
    [
        {"store": False},
        {"service_tier": "auto"},
        {"service_tier": "default"},
        {"service_tier": "flex"},
        {"web_search_options": None},
        {"modalities": ["text"]},
        {"best_of": 1},
        {"audio": None},
    ],
)
def test_what_costs_extra_passes_at_its_harmless_value(body: dict[str, Any]) -> None:
    """Frameworks write defaults out; refusing those would refuse the framework."""
    assert (read(body).unknown_fields, read(body).extras) == ((), ())


@pytest.mark.parametrize(
    ("body", "extra"),
    [
        ({"service_tier": "priority"}, Extra("service_tier", "priority_tier")),
        ({"service_tier": "scale"}, Extra("service_tier", "priority_tier")),
        ({"web_search_options": {}}, Extra("web_search_options", "web_search", 1)),
        ({"web_search_options": {"search_context_size": "high"}}, Extra("web_search_options", "web_search", 1)),
    ],
)
def test_what_a_plan_can_allow_is_named_with_its_feature(body: dict[str, Any], extra: Extra) -> None:
    """The same words for the same thing as on the other wires; admission asks the plan for them."""
    assert read(body).extras == (extra,)


@pytest.mark.parametrize("kind", ["input_audio", "file", "video_url", None])
def test_a_part_that_cannot_be_bounded_is_refused(kind: str | None) -> None:
    """A document of unknown length behind an id would be held at nothing."""
    refused = refusal(messages=[{"role": "user", "content": [{"type": kind, kind or "x": {}}]}])
    assert refused.param == "messages.0.content.0.type"


@pytest.mark.parametrize("detail", ["low", "high", "auto"])
def test_a_remote_image_needs_the_plans_word_and_counts_its_worst_case(detail: str) -> None:
    """Nobody here has seen how large it is."""
    part = {"type": "image_url", "image_url": {"url": "HTTPS://example.com/a.png", "detail": detail}}
    ask = read(messages=[HELLO, {"role": "user", "content": [{"type": "text", "text": "what?"}, part, part]}])
    assert ask.extras == (Extra("messages.1.content.1.image_url.url", "remote_images"),)
    assert ask.input_bound >= 2 * IMAGE_TOKENS["high"]


@pytest.mark.parametrize("url", ["file:///etc/passwd", "data:text/html,x", "ftp://example.com/a.png", "a.png", ""])
def test_an_image_that_is_neither_sent_along_nor_on_the_web_is_refused(url: str) -> None:
    """A provider might look for it where nobody else may."""
    refused = refusal(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}])
    assert refused.param == "messages.0.content.0.image_url.url"
    assert not url or url not in refused.message


def test_an_image_counts_its_worst_case_and_not_its_bytes() -> None:
    """Base64 is no text: 10 kB of it are one image."""
    part = {"type": "image_url", "image_url": {"url": PIXEL}}
    ask = read(messages=[{"role": "user", "content": [part, {"type": "text", "text": "what?"}]}])
    assert IMAGE_TOKENS["high"] <= ask.input_bound <= IMAGE_TOKENS["high"] + 100
    low = {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}}
    assert read(messages=[{"role": "user", "content": [low]}]).input_bound < IMAGE_TOKENS["low"] + 100
    assert refusal(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": PIXEL}]}])


def test_unknown_fields_are_named_and_counted() -> None:
    """What the gate has no word for may still reach the prompt."""
    ask = read(documents=["x" * 1000], chat_template_kwargs={})
    assert ask.unknown_fields == ("chat_template_kwargs", "documents")
    assert ask.input_bound >= 1000


TEXT = st.text(max_size=40)
CONTENT = TEXT | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": TEXT}), min_size=1, max_size=3)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "tool"])},
    optional={
        "content": st.none() | CONTENT,
        "name": TEXT,
        "tool_call_id": TEXT,
        "tool_calls": st.lists(st.fixed_dictionaries({"id": TEXT, "function": st.dictionaries(TEXT, TEXT)})),
        "reasoning_content": TEXT,
    },
)


@given(st.lists(MESSAGE, min_size=1, max_size=5), st.lists(TEXT, max_size=3))
def test_the_bound_is_never_below_the_bytes_of_all_text(
    messages: list[dict[str, Any]], descriptions: list[str]
) -> None:
    """A token is at least one byte: whoever hides text anywhere must still have it held."""
    tools = [{"type": "function", "function": {"name": "f", "description": each}} for each in descriptions]
    ask = read(messages=messages, tools=tools)
    assert ask.input_bound >= sum(len(text.encode()) for text in _texts([messages, tools]))


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for each in value for text in _texts(each)]
    if isinstance(value, dict):
        return [text for key, each in value.items() if key != "type" for text in _texts(each)]
    return []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*FIELDS, "unknown"]), JSON, max_size=5))
def test_no_body_makes_the_reader_crash(body: dict[str, Any]) -> None:
    """Anything that JSON can say ends as an Ask or as a refusal."""
    try:
        ask = read(body)
    except Refused:
        return
    assert ask.input_bound > 0
    assert ask.output_limit is None or ask.output_limit >= 1


def test_attribution_prefers_headers_to_the_body() -> None:
    """An agent framework sets headers once; a body field may be somebody else's convention."""
    body = {"user": "u-body", "metadata": {"run_id": "r-body", "step": "s-body"}}
    ask = read(body, {"faregate-user-id": "u-head", "faregate-run-id": "r-head", "faregate-anonymous-id": "anon"})
    assert ask.attribution.user_id == "u-head"
    assert ask.attribution.run_id == "r-head"
    assert ask.attribution.step == "s-body"
    assert ask.attribution.anonymous_id == "anon"
    assert read(safety_identifier="safe").attribution.user_id == "safe"


@pytest.mark.parametrize(
    "user", ["jo@example.com", "Jo <jo@example.co.uk>", "+49 170 1234567", "(555) 123-4567", "4915112345678"]
)
def test_a_user_id_that_is_personal_is_kept_as_a_digest(user: str) -> None:
    """Events are kept for years; addresses and numbers of people are not."""
    assert read(user=user).attribution.user_id == f"digest-{len(user)}"


@pytest.mark.parametrize(
    "user", ["u_42", "12345", "customer@tenant", "2026-11-20T00:00", "7f3c-11ee", "v1.2.3", "alice"]
)
def test_an_ordinary_user_id_is_kept_as_it_is(user: str) -> None:
    """A digest of an id that is no address would only make reports unreadable."""
    assert not looks_personal(user)
