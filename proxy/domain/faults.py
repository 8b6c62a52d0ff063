"""Sentences for what is wrong with a body, in the words that OpenAI's clients and their users know."""

from __future__ import annotations

from typing import Any

from proxy.domain.refusals import Refusal, Refused


def fault(code: str, message: str, param: str | None = None) -> Refused:
    """A bad request: 400 with a sentence, a word for the fault and the field at fault."""
    return Refused(Refusal("bad_request", message, 400, code=code, type="invalid_request_error", param=param))


def missing(name: str) -> Refused:
    return fault("missing_required_parameter", f"Missing required parameter: '{name}'.", name)


def wrong_type(name: str, expected: str, value: Any) -> Refused:
    message = f"Invalid type for '{name}': expected {expected}, but got {_kind(value)} instead."
    return fault("invalid_type", message, name)


def bad_value(name: str, what_would_be_right: str) -> Refused:
    return fault("invalid_value", f"Invalid '{name}': {what_would_be_right}.", name)


def too_small(name: str, least: int, value: int) -> Refused:
    message = (
        f"Invalid '{name}': integer below minimum value. Expected a value >= {least}, but got {_shown(value)}."
    )
    return fault("integer_below_min_value", message, name)


def too_large(name: str, most: int, value: int) -> Refused:
    message = (
        f"Invalid '{name}': integer above maximum value. Expected a value <= {most}, but got {_shown(value)}."
    )
    return fault("integer_above_max_value", message, name)


def _shown(value: int) -> str:
    """The number, unless it has so many digits that saying it would cost more than it tells."""
    return str(value) if value.bit_length() <= 64 else "one beyond 64 bits"


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    for kind, name in ((int, "an integer"), (float, "a decimal"), (str, "a string"), (list, "an array")):
        if isinstance(value, kind):
            return name
    return "an object"
