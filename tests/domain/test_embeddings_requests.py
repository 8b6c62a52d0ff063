"""The reading of an embeddings request: all input, no output, and many inputs at once."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.domain.asks import Ask
from proxy.domain.embeddings_requests import FIELDS, INPUTS_MAX, read_embeddings
from proxy.domain.refusals import Refusal, Refused


def read(headers: dict[str, str] | None = None, **body: Any) -> Ask:
    return read_embeddings({"model": "m", "input": "hello", **body}, headers or {}, lambda v: f"digest-{len(v)}")


def refusal(**body: Any) -> Refusal:
    with pytest.raises(Refused) as caught:
        read(**body)
    return caught.value.refusal


def test_a_plain_request_is_understood() -> None:
    """Nothing is generated: whoever holds output for it holds too much."""
    ask = read(encoding_format="base64", dimensions=256, user="u-1")
    assert (ask.endpoint, ask.model, ask.streamed, ask.generates) == ("/v1/embeddings", "m", False, False)
    assert (ask.output_limit, ask.choices, ask.inputs, ask.counts_request) == (0, 1, 1, True)
    assert (ask.unknown_fields, ask.attribution.user_id) == ((), "u-1")
    assert 5 <= ask.input_bound <= 60


def test_two_thousand_inputs_are_bounded_together() -> None:
    """Each is read by itself, and all of them are paid for."""
    ask = read(input=["word " * 10] * INPUTS_MAX)
    assert ask.inputs == INPUTS_MAX
    assert 50 * INPUTS_MAX <= ask.input_bound <= 70 * INPUTS_MAX + 100
    assert read(input=[[1, 2, 3]] * 5).input_bound < 5 * 20 + 20


def test_who_asked_is_told_by_header_or_body() -> None:
    assert read({"faregate-run-id": "r1"}, user="anna@example.com").attribution.user_id == "digest-16"
    assert read({"faregate-run-id": "r1"}).attribution.run_id == "r1"


def test_unknown_fields_are_named_and_counted_for_every_input() -> None:
    """An instruction that a server puts before each input is input, as often as there are inputs."""
    ask = read(input=["a", "b"], instruction="c" * 100)
    assert ask.unknown_fields == ("instruction",)
    assert ask.input_bound > 200
    assert read(**dict.fromkeys(FIELDS.keys() - {"model", "input"})).unknown_fields == ()


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        ({"input": None}, "input", "Missing"),
        ({"input": []}, "input", "not empty"),
        ({"input": [{"text": "a"}]}, "input.0", "got an object"),
        ({"input": ["a"] * (INPUTS_MAX + 1)}, "input", f"at most {INPUTS_MAX}"),
        ({"model": 5}, "model", "a string"),
        ({"encoding_format": "int8"}, "encoding_format", "'float' or 'base64'"),
        ({"encoding_format": 1}, "encoding_format", "a string"),
        ({"dimensions": 0}, "dimensions", ">= 1"),
        ({"dimensions": "256"}, "dimensions", "an integer"),
        ({"stream": True}, "stream", "come whole"),
        ({"stream": "yes"}, "stream", "a boolean"),
    ],
)
def test_a_wrong_field_is_refused_by_name(body: dict[str, Any], param: str, says: str) -> None:
    refused = refusal(**body)
    assert (refused.param, refused.status, refused.type) == (param, 400, "invalid_request_error")
    assert says in refused.message


def test_a_stream_that_is_not_wanted_is_no_fault() -> None:
    """Some libraries write `"stream": false` into every body."""
    assert not read(stream=False).streamed
