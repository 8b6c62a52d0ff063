"""The event by which a provider fails its own stream: passed on as it is, unless it tells what it must not.

A provider's text may quote our key, our account or an address. Then the error is told anew, and what clients act
on, its type and its code, stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from proxy.providers.events import data_of
from proxy.providers.native_answers import json_object
from proxy.providers.upstream_errors import harmless_word, tells_secrets

SENTENCE = "The model's provider failed in the middle of its answer."
_WORDS = ("type", "code", "param", "status")


def without_secrets(event: bytes, api_key: str | None) -> bytes:
    """The event itself, byte for byte, or one that says the same without secrets."""
    said = json_object(data_of(event))
    if said is None:
        return event
    response = said.get("response")
    if isinstance(response, dict) and _tells(response.get("error"), api_key):
        said = {**said, "response": {**response, "error": _anew(response["error"])}}
    elif said.get("error") and _tells(said["error"], api_key):
        said = {**said, "error": _anew(said["error"])}
    elif said.get("type") == "error" and not said.get("error") and _tells(said, api_key):
        number = {name: said[name] for name in ("sequence_number",) if type(said.get(name)) is int}
        said = {**_anew(said), **number}
    else:
        return event
    named = b"".join(line + b"\n" for line in event.splitlines() if line.startswith((b"event:", b"id:")))
    return named + b"data: %b\n\n" % orjson.dumps(said)


def _tells(error: Any, api_key: str | None) -> bool:
    if isinstance(error, str):
        return tells_secrets(error, api_key)
    if isinstance(error, Mapping):
        return any(_tells(value, api_key) for value in error.values())
    return isinstance(error, list) and any(_tells(value, api_key) for value in error)


def _anew(error: Any) -> Any:
    if not isinstance(error, dict):
        return SENTENCE
    kept: dict[str, Any] = {}
    for name in _WORDS:
        if name in error:
            value = error[name]
            kept[name] = value if value is None or type(value) is int else harmless_word(value)
    return {**kept, "message": SENTENCE}
