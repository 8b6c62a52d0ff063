"""What the readers of all endpoints share: how input is measured, and how a field is read or refused.

An input bound holds for every byte-level tokenizer: a token stands for at least one byte of text, and what a
template writes around a message or a tool is covered by a constant. Pictures are no text: each counts as the
worst case of any model known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from json import JSONEncoder
from typing import Any, Literal

from proxy.domain.faults import bad_value, fault, missing, too_large, too_small, wrong_type

Effect = Literal["free", "bounds the input", "limits the output", "multiplies the output", "costs extra"]

MODEL_CHARACTERS_MAX = 256
TOOLS_MAX = 512
LOGIT_BIASES_MAX = 1_024

# What a template may write around them, generously.
TOKENS_PER_REQUEST = 16
TOKENS_PER_MESSAGE = 16
TOKENS_PER_TOOL = 64

# The dearest image of any model known: gpt-4o-mini's eight tiles (2,833 + 8 × 5,667). `low` is honoured by
# OpenAI alone, so it takes the dearest image of the others (Claude's 4,784) where that is more.
IMAGE_TOKENS = {"low": 4_784, "high": 48_169, "auto": 48_169}
IMAGE_TOKENS_USUAL = 1_000

UNBOUNDED = 1 << 40
"""Input whose size nothing in the body tells (a PDF, a stored conversation): the model's context bounds it."""

json_text = JSONEncoder(ensure_ascii=False, check_circular=False).encode

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Size:
    """Bytes of text, and images with their worst case, as they are found.

    `remote_image` is where the first image by a remote URL stands, if there is one.
    """

    __slots__ = ("image_tokens", "images", "remote_image", "text")

    def __init__(self) -> None:
        self.text = 0
        self.images = 0
        self.image_tokens = 0
        self.remote_image: str | None = None

    def add(self, value: Any) -> None:
        """Counts any JSON value by its compact text."""
        text = value if type(value) is str else json_text(value)
        self.text += len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def read_model(body: Mapping[str, Any]) -> str:
    model = body.get("model")
    if type(model) is not str:
        raise missing("model") if model is None else wrong_type("model", "a string", model)
    if not 0 < len(model) <= MODEL_CHARACTERS_MAX:
        raise bad_value("model", f"it must have 1 to {MODEL_CHARACTERS_MAX} characters")
    return model


def unknown_fields(body: dict[str, Any], fields: Mapping[str, Effect]) -> tuple[str, ...]:
    """The top-level fields that `fields` has no word for, sorted."""
    return () if body.keys() <= fields.keys() else tuple(sorted(body.keys() - fields.keys()))


def flag(holder: Mapping[str, Any], name: str, where: str | None = None) -> bool:
    value = holder.get(name)
    if value is not None and type(value) is not bool:
        raise wrong_type(where or name, "a boolean", value)
    return bool(value)


def whole(holder: Mapping[str, Any], name: str, most: int, where: str | None = None, least: int = 1) -> int | None:
    """An integer from `least` to `most`, None if absent or null."""
    value = holder.get(name)
    if value is None:
        return None
    where = where or name
    if type(value) is not int:  # a bool is an int to isinstance
        raise wrong_type(where, "an integer", value)
    if value < least:
        raise too_small(where, least, value)
    if value > most:
        raise too_large(where, most, value)
    return value


def check_remote(url: str, where: str) -> None:
    """An image that is not sent along must be somewhere on the web; raises `Refused` (400)."""
    if not url[:8].lower().startswith(("https://", "http://")):
        message = f"'{where}' must be a data: URL (data:image/…;base64,…) or an http(s) address."
        raise fault("invalid_image_url", message, where)


def usage_asked(body: Mapping[str, Any], streamed: bool) -> bool:
    """Whether a stream of chunks shall report its usage to the client."""
    options = body.get("stream_options")
    if options is None:
        return False
    if type(options) is not dict:
        raise wrong_type("stream_options", "an object", options)
    if not streamed:
        raise bad_value("stream_options", "it is only allowed when 'stream' is true")
    return flag(options, "include_usage", "stream_options.include_usage")


def check_logit_bias(body: Mapping[str, Any]) -> None:
    biases = body.get("logit_bias")
    if biases is not None and (type(biases) is not dict or len(biases) > LOGIT_BIASES_MAX):
        raise bad_value("logit_bias", f"it must be an object of at most {LOGIT_BIASES_MAX} tokens")


def forwarded(headers: Mapping[str, str]) -> dict[str, str] | None:
    """The client's headers that go upstream on every wire: a trace's id, if it is one."""
    trace = headers.get("traceparent")
    if trace is None or _TRACEPARENT.fullmatch(trace) is None:
        return None
    return {"traceparent": trace}
