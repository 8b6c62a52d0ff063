"""The reading of a completions request decides what is held for it: every prompt, and every choice of each."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.asks import Ask
from proxy.domain.completions_requests import BEST_OF_MAX, FIELDS, PROMPTS_MAX, read_completions
from proxy.domain.refusals import Refusal, Refused
from proxy.domain.usage import TOKENS_MAX


def read(headers: dict[str, str] | None = None, **body: Any) -> Ask:
    return read_completions({"model": "m", "prompt": "hello", **body}, headers or {}, lambda v: f"digest-{len(v)}")


def refusal(**body: Any) -> Refusal:
    with pytest.raises(Refused) as caught:
        read(**body)
    return caught.value.refusal


def test_a_plain_request_is_understood() -> None:
    """The everyday case, whole."""
    ask = read(max_tokens=50, temperature=0.5, user="u-1")
    assert (ask.endpoint, ask.model, ask.streamed, ask.usage_asked) == ("/v1/completions", "m", False, False)
    assert (ask.output_limit, ask.choices, ask.inputs, ask.generates) == (50, 1, 1, True)
    assert (ask.unknown_fields, ask.attribution.user_id) == ((), "u-1")
    assert 5 <= ask.input_bound <= 60


@pytest.mark.parametrize(
    ("body", "choices", "inputs"),
    [
        ({}, 1, 1),
        ({"n": 3}, 3, 1),
        ({"best_of": 4}, 4, 1),
        ({"n": 3, "best_of": 5}, 5, 1),
        ({"n": 3, "best_of": None}, 3, 1),
        ({"prompt": ["a", "b"]}, 2, 2),
        ({"prompt": ["a", "b"], "n": 3}, 6, 2),
        ({"prompt": ["a", "b"], "n": 2, "best_of": 5}, 10, 2),
        ({"prompt": [1, 2, 3], "n": 2}, 2, 1),
        ({"prompt": [[1, 2], [3]], "n": 2}, 4, 2),
    ],
)
def test_everything_that_is_made_is_counted_shown_or_not(body: dict[str, Any], choices: int, inputs: int) -> None:
    """The provider bills the ones that were not the best as well, and each prompt has its own."""
    ask = read(**body)
    assert (ask.choices, ask.inputs) == (choices, inputs)


def test_the_largest_request_stays_exact_in_a_counter() -> None:
    """Counters are doubles in Redis: beyond 2^53 a hold would be rounded."""
    assert PROMPTS_MAX * BEST_OF_MAX * TOKENS_MAX < 1 << 53


@given(st.lists(st.text(max_size=30), min_size=1, max_size=5), st.text(max_size=30))
def test_the_suffix_comes_after_every_prompt(prompts: list[str], suffix: str) -> None:
    """It is read once for each completion, so it is paid for once for each."""
    ask = read(prompt=prompts, suffix=suffix)
    bytes_of = [len(text.encode("utf-8", "surrogatepass")) for text in (*prompts, suffix)]
    assert ask.input_bound >= sum(bytes_of[:-1]) + len(prompts) * bytes_of[-1]


def test_a_limit_of_nothing_is_allowed() -> None:
    """With `echo` it is how the probabilities of a prompt are asked for."""
    assert read(max_tokens=0, echo=True, logprobs=1).output_limit == 0
    assert read().output_limit is None


def test_a_stream_may_ask_for_its_usage() -> None:
    ask = read(stream=True, stream_options={"include_usage": True})
    assert (ask.streamed, ask.usage_asked) == (True, True)
    assert read(stream=True, n=2, best_of=2).choices == 2


def test_unknown_fields_are_named_and_counted() -> None:
    """A server that makes something of one may make input of it."""
    ask = read(min_p=0.1, guided_json={"a": "b" * 100})
    assert ask.unknown_fields == ("guided_json", "min_p")
    assert ask.input_bound > 100
    assert read(**dict.fromkeys(FIELDS.keys() - {"model", "prompt"})).unknown_fields == ()


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        ({"prompt": None}, "prompt", "Missing"),
        ({"prompt": [["a"]]}, "prompt.0.0", "a token"),
        ({"prompt": ["a"] * (PROMPTS_MAX + 1)}, "prompt", f"at most {PROMPTS_MAX}"),
        ({"model": None}, "model", "Missing"),
        ({"suffix": 7}, "suffix", "a string"),
        ({"max_tokens": -1}, "max_tokens", ">= 0, but got -1"),
        ({"max_tokens": True}, "max_tokens", "a boolean"),
        ({"max_tokens": "16"}, "max_tokens", "an integer"),
        ({"n": 0}, "n", ">= 1"),
        ({"n": 17}, "n", "<= 16"),
        ({"best_of": 0}, "best_of", ">= 1"),
        ({"best_of": 21}, "best_of", "<= 20"),
        ({"n": 3, "best_of": 2}, "best_of", "at least 'n', which is 3"),
        ({"stream": True, "best_of": 2}, "best_of", "in a stream"),
        ({"stream": 1}, "stream", "a boolean"),
        ({"echo": 1}, "echo", "a boolean"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "when 'stream' is true"),
        ({"logit_bias": [1]}, "logit_bias", "an object"),
        ({"user": 7}, "user", "a string"),
    ],
)
def test_a_wrong_field_is_refused_by_name(body: dict[str, Any], param: str, says: str) -> None:
    """Nothing goes upstream that could mean more than was held."""
    refused = refusal(**body)
    assert (refused.param, refused.status, refused.type) == (param, 400, "invalid_request_error")
    assert says in refused.message
