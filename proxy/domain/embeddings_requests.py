"""Reading an embeddings request: texts or tokens, of which no output is made.

In: the parsed body and the headers. Out: an `Ask`, or `Refused` with a sentence that says which field is wrong and
what would be right. `FIELDS` is the table of every top-level field that the gate has a word for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from proxy.domain.asks import Ask
from proxy.domain.attribution import read_attribution
from proxy.domain.faults import bad_value, fault, wrong_type
from proxy.domain.request_parts import (
    TOKENS_PER_REQUEST,
    Effect,
    Size,
    flag,
    forwarded,
    read_model,
    unknown_fields,
    whole,
)
from proxy.domain.text_inputs import read_inputs

FIELDS: dict[str, Effect] = {
    "model": "free",
    "input": "bounds the input",
    "dimensions": "free",
    "encoding_format": "free",
    "metadata": "free",
    "user": "free",
}

INPUTS_MAX = 2_048
DIMENSIONS_MAX = 65_536
ENCODINGS = ("float", "base64")


def read_embeddings(body: dict[str, Any], headers: Mapping[str, str], digest_user: Callable[[str], str]) -> Ask:
    """What an embeddings request asks for; raises `Refused` (bad_request, 400) for every fault of it.

    `headers` are looked up by lower-case names. `digest_user` makes the keyed digest that is kept instead of a
    user id that looks like an e-mail address or a phone number.
    """
    model = read_model(body)
    if flag(body, "stream"):
        raise fault("unsupported_parameter", "Embeddings come whole: leave 'stream' out.", "stream")
    unknown = unknown_fields(body, FIELDS)
    inputs = read_inputs(body, "input", INPUTS_MAX)
    size = Size()
    for name in unknown:
        size.add(body[name])
    whole(body, "dimensions", DIMENSIONS_MAX)
    encoding = body.get("encoding_format")
    if encoding is not None:
        if type(encoding) is not str:
            raise wrong_type("encoding_format", "a string", encoding)
        if encoding not in ENCODINGS:
            raise bad_value("encoding_format", "it must be 'float' or 'base64'")
    return Ask(
        endpoint="/v1/embeddings",
        model=model,
        body=body,
        streamed=False,
        usage_asked=False,
        output_limit=0,
        choices=1,
        input_bound=inputs.bound + size.text * inputs.count + TOKENS_PER_REQUEST,
        input_estimate=inputs.estimate,
        unknown_fields=unknown,
        attribution=read_attribution(body, headers, digest_user),
        generates=False,
        forward_headers=forwarded(headers),
        inputs=inputs.count,
    )
