"""Inputs are what completions and embeddings cost: a bound that is too low is money."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.refusals import Refused
from proxy.domain.text_inputs import read_inputs

TEXT = st.text(max_size=20)
TOKENS = st.lists(st.integers(0, 200_000), min_size=1, max_size=20)
INPUTS = TEXT | st.lists(TEXT, min_size=1, max_size=6) | TOKENS | st.lists(TOKENS, min_size=1, max_size=6)


def singles(value: Any) -> list[Any]:
    return [value] if type(value) is str or type(value[0]) is int else list(value)


@given(INPUTS)
def test_every_input_counts_whatever_shape_it_has(value: Any) -> None:
    """No byte-level tokenizer makes more tokens of a text than it has bytes, and a token is a token."""
    inputs = read_inputs({"input": value}, "input", 8)
    each = singles(value)
    most = sum(len(one) if type(one) is list else len(one.encode("utf-8", "surrogatepass")) for one in each)
    assert inputs.count == len(each)
    assert inputs.bound == most + 16 * len(each)
    assert inputs.estimate <= inputs.bound


def test_the_usual_guess_is_a_quarter_of_the_bytes_and_all_of_the_tokens() -> None:
    """It is charged where nobody reports, so it must neither be nothing nor the bound."""
    assert read_inputs({"input": "a" * 400}, "input", 8).estimate == 100
    assert read_inputs({"input": ["a" * 200, "b" * 200]}, "input", 8).estimate == 100
    assert read_inputs({"input": [[1] * 30, [2] * 12]}, "input", 8).estimate == 42


@pytest.mark.parametrize(
    ("value", "param", "says"),
    [
        (None, "input", "Missing required parameter"),
        (7, "input", "an array of strings"),
        (True, "input", "a boolean"),
        ({"text": "a"}, "input", "got an object"),
        ([], "input", "not empty"),
        (["a", 1], "input.1", "a string"),
        (["a", ["b"]], "input.1", "a string"),
        (["a", None], "input.1", "got null"),
        ([[1], "a"], "input.1", "an array of tokens"),
        ([{"text": "a"}], "input.0", "got an object"),
        ([None], "input.0", "got null"),
        ([True, 1], "input.0", "a boolean"),
        ([1, True], "input.1", "a token"),
        ([1, 2.5], "input.1", "a token"),
        ([1, -1], "input.1", "a token"),
        ([1, "a"], "input.1", "a token"),
        ([[1], []], "input.1", "must not be empty"),
        ([[1], ["a"]], "input.1.0", "a token"),
        (["a"] * 9, "input", "at most 8"),
        ([[1]] * 9, "input", "at most 8"),
    ],
)
def test_what_is_no_input_is_refused_where_it_stands(value: Any, param: str, says: str) -> None:
    """Whoever reads the refusal must find the one wrong entry among two thousand."""
    with pytest.raises(Refused) as caught:
        read_inputs({"input": value}, "input", 8)
    refusal = caught.value.refusal
    assert (refusal.param, refusal.status) == (param, 400)
    assert says in refusal.message


def test_one_array_of_tokens_is_one_input_however_long() -> None:
    """Only a list of inputs is bounded in number; tokens are bounded by what they cost."""
    assert read_inputs({"input": [1] * 5_000}, "input", 8).count == 1
