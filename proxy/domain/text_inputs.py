"""Text or tokens, one input or a list of them: how completions and embeddings are given what to read.

A token of an array counts one, a text its bytes; what a server writes around an input (an instruction, its own
first and last tokens) is covered by a constant for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proxy.domain.faults import bad_value, missing, wrong_type
from proxy.domain.request_parts import TOKENS_PER_MESSAGE, Size

SHAPES = "a string, an array of strings, an array of tokens or an array of arrays of tokens"


@dataclass(frozen=True, slots=True)
class TextInputs:
    """How many inputs there are, how many tokens they can be at most, and how many they usually are."""

    count: int
    bound: int
    estimate: int


def read_inputs(body: Mapping[str, Any], name: str, most: int) -> TextInputs:
    """The inputs in the field `name`, at most `most` of them; raises `Refused` (400)."""
    value = body.get(name)
    if value is None:
        raise missing(name)
    size = Size()
    if type(value) is str:
        size.add(value)
        return _measured(1, 0, size)
    if type(value) is not list:
        raise wrong_type(name, SHAPES, value)
    if not value:
        raise bad_value(name, f"it must be {SHAPES}, and not empty")
    if type(value[0]) is int:
        return _measured(1, _tokens(value, name), size)
    if len(value) > most:
        raise bad_value(name, f"it has {len(value)} entries; at most {most} are taken")
    kind = list if type(value[0]) is list else str
    tokens = 0
    for position, each in enumerate(value):
        if type(each) is not kind:
            expected = "an array of tokens, like the first" if kind is list else "a string"
            raise wrong_type(f"{name}.{position}", expected, each)
        if type(each) is list:
            tokens += _tokens(each, f"{name}.{position}")
        else:
            size.add(each)
    return _measured(len(value), tokens, size)


def _tokens(tokens: list[Any], where: str) -> int:
    if not tokens:
        raise bad_value(where, "an array of tokens must not be empty")
    for position, token in enumerate(tokens):
        if type(token) is not int or token < 0:  # a bool is an int to isinstance
            raise wrong_type(f"{where}.{position}", "a token, which is a whole number from 0", token)
    return len(tokens)


def _measured(count: int, tokens: int, size: Size) -> TextInputs:
    return TextInputs(count, tokens + size.text + TOKENS_PER_MESSAGE * count, tokens + size.text // 4)
