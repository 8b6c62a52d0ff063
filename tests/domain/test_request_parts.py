"""What all readers of requests share: read wrongly here, it is read wrongly on every wire."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.refusals import Refused
from proxy.domain.request_parts import (
    LOGIT_BIASES_MAX,
    Size,
    check_logit_bias,
    flag,
    forwarded,
    read_model,
    unknown_fields,
    usage_asked,
    whole,
)


def param_of(caught: pytest.ExceptionInfo[Refused]) -> str | None:
    return caught.value.refusal.param


@given(st.text())
def test_a_text_counts_its_bytes(text: str) -> None:
    """No tokenizer makes more tokens of it; half a character, which JSON allows, has bytes as well."""
    size = Size()
    size.add(text)
    assert size.text == len(text.encode("utf-8", "surrogatepass"))


def test_anything_else_counts_as_it_is_written() -> None:
    size = Size()
    size.add({"a": [1, "é"]})
    assert size.text == len('{"a": [1, "é"]}'.encode())


@pytest.mark.parametrize("value", [0, 17, "4", 4.0, True, [4]])
def test_a_number_out_of_its_range_or_of_another_type_is_refused_by_name(value: Any) -> None:
    """`True` is 1 to Python, and no number to whoever wrote it."""
    with pytest.raises(Refused) as caught:
        whole({"n": value}, "n", 16)
    assert param_of(caught) == "n"
    assert whole({"n": 16}, "n", 16) == 16
    assert whole({"n": None}, "n", 16) is None
    assert whole({"n": 0}, "n", 16, least=0) == 0


@pytest.mark.parametrize("value", [1, "true", [], {}])
def test_a_flag_is_a_boolean_or_absent(value: Any) -> None:
    with pytest.raises(Refused) as caught:
        flag({"stream": value}, "stream")
    assert param_of(caught) == "stream"
    assert not flag({"stream": None}, "stream")
    assert flag({"stream": True}, "stream")


def test_usage_is_asked_for_in_streams_only() -> None:
    """A whole answer has it anyway, and OpenAI refuses the field there."""
    asking = {"stream_options": {"include_usage": True}}
    assert usage_asked(asking, streamed=True)
    assert not usage_asked({"stream_options": None}, streamed=False)
    for body, streamed, param in (
        (asking, False, "stream_options"),
        ({"stream_options": []}, True, "stream_options"),
        ({"stream_options": {"include_usage": "yes"}}, True, "stream_options.include_usage"),
    ):
        with pytest.raises(Refused) as caught:
            usage_asked(body, streamed)
        assert param_of(caught) == param


@pytest.mark.parametrize("biases", [[1], "a", {str(token): 1 for token in range(LOGIT_BIASES_MAX + 1)}])
def test_biases_are_a_bounded_object(biases: Any) -> None:
    with pytest.raises(Refused) as caught:
        check_logit_bias({"logit_bias": biases})
    assert param_of(caught) == "logit_bias"
    check_logit_bias({"logit_bias": {"50256": -100}})
    check_logit_bias({})


def test_a_model_is_a_short_text() -> None:
    assert read_model({"model": "m"}) == "m"
    for model in (None, 7, "", "m" * 257):
        with pytest.raises(Refused) as caught:
            read_model({"model": model})
        assert param_of(caught) == "model"


def test_unknown_fields_are_told_in_order() -> None:
    assert unknown_fields({"model": 1, "z": 1, "b": 1}, {"model": "free"}) == ("b", "z")
    assert unknown_fields({"model": 1}, {"model": "free"}) == ()


def test_of_the_clients_headers_only_a_traces_id_goes_on() -> None:
    """Whatever else a client sends is between it and the gate."""
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    assert forwarded({"traceparent": trace, "authorization": "x", "x-other": "y"}) == {"traceparent": trace}
    assert forwarded({"traceparent": trace + "\r\nx: y"}) is None
    assert forwarded({}) is None
