"""Whom and what a call was for: headers first, then the fields that OpenAI's clients have for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from proxy.domain.asks import Attribution
from proxy.domain.faults import fault, wrong_type

CHARACTERS_MAX = 256

OWN_METADATA = frozenset(("anonymous_id", "run_id", "step"))
"""What is read of `metadata` and means nothing to a provider."""

_NOBODY = Attribution()
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
# A plus, separators or ten digits: shorter plain numbers are somebody's row ids far more often.
_PHONE = re.compile(r"(?:\+[\d\s().\-/]{7,24}|\d{10,15}|\(?\d+[\s().\-/]+[\d\s().\-/]{4,24})")


def read_attribution(
    body: Mapping[str, Any], headers: Mapping[str, str], digest_user: Callable[[str], str]
) -> Attribution:
    """Raises `Refused` (400) for a value that is no text, too long, or carries control characters."""
    metadata = body.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise wrong_type("metadata", "an object", metadata)
    user_id = _header(headers, "faregate-user-id") or _field(body, "user") or _field(body, "safety_identifier")
    anonymous_id = _header(headers, "faregate-anonymous-id")
    run_id, step = _header(headers, "faregate-run-id"), _header(headers, "faregate-step")
    if metadata:
        anonymous_id = anonymous_id or _field(metadata, "anonymous_id", "metadata.anonymous_id")
        run_id = run_id or _field(metadata, "run_id", "metadata.run_id")
        step = step or _field(metadata, "step", "metadata.step")
    if not (user_id or anonymous_id or run_id or step):
        return _NOBODY
    if user_id and looks_personal(user_id):
        user_id = digest_user(user_id)
    if anonymous_id and looks_personal(anonymous_id):
        anonymous_id = digest_user(anonymous_id)
    return Attribution(user_id, anonymous_id, run_id, step)


def looks_personal(user_id: str) -> bool:
    """An e-mail address or a phone number, by the look of it."""
    if "@" in user_id:
        return _EMAIL.search(user_id) is not None
    if _PHONE.fullmatch(user_id.strip()) is None:
        return False
    return 7 <= sum(character.isdigit() for character in user_id) <= 15


def _header(headers: Mapping[str, str], name: str) -> str | None:
    value = headers.get(name)
    return _checked(value, name) if value else None


def _field(holder: Mapping[str, Any], name: str, where: str | None = None) -> str | None:
    value = holder.get(name)
    if value is None:
        return None
    if type(value) is not str:
        raise wrong_type(where or name, "a string", value)
    return _checked(value, where or name) if value else None


def _checked(value: str, where: str) -> str:
    if len(value) > CHARACTERS_MAX:
        raise fault("string_above_max_length", f"'{where}' may have at most {CHARACTERS_MAX} characters.", where)
    if not value.isprintable():
        raise fault("invalid_value", f"'{where}' may not contain control characters.", where)
    return value
