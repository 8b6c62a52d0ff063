"""Reading a completions request: prompts, and how much text may be made of them.

In: the parsed body and the headers. Out: an `Ask`, or `Refused` with a sentence that says which field is wrong and
what would be right. `FIELDS` is the table of every top-level field that the gate has a word for.

Every prompt gets `n` choices; with `best_of` the provider makes (and bills) that many and shows `n` of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from proxy.domain.asks import Ask
from proxy.domain.attribution import read_attribution
from proxy.domain.faults import bad_value, wrong_type
from proxy.domain.request_parts import (
    TOKENS_PER_REQUEST,
    Effect,
    Size,
    check_logit_bias,
    flag,
    forwarded,
    read_model,
    unknown_fields,
    usage_asked,
    whole,
)
from proxy.domain.text_inputs import read_inputs
from proxy.domain.usage import TOKENS_MAX

FIELDS: dict[str, Effect] = {
    "model": "free",
    "prompt": "bounds the input",
    "suffix": "bounds the input",
    "max_tokens": "limits the output",
    "n": "multiplies the output",
    "best_of": "multiplies the output",
    "echo": "free",
    "logprobs": "free",
    "stream": "free",
    "stream_options": "free",
    "temperature": "free",
    "top_p": "free",
    "top_k": "free",
    "presence_penalty": "free",
    "frequency_penalty": "free",
    "seed": "free",
    "stop": "free",
    "logit_bias": "free",
    "metadata": "free",
    "user": "free",
}

# Together with the largest output limit they stay below what a counter can hold exactly.
PROMPTS_MAX = 256
CHOICES_MAX = 16
BEST_OF_MAX = 20


def read_completions(body: dict[str, Any], headers: Mapping[str, str], digest_user: Callable[[str], str]) -> Ask:
    """What a completions request asks for; raises `Refused` (bad_request, 400) for every fault of it.

    `headers` are looked up by lower-case names. `digest_user` makes the keyed digest that is kept instead of a
    user id that looks like an e-mail address or a phone number.
    """
    model = read_model(body)
    unknown = unknown_fields(body, FIELDS)
    streamed = flag(body, "stream")
    prompts = read_inputs(body, "prompt", PROMPTS_MAX)
    suffix, size = _suffix(body), Size()
    for name in unknown:
        size.add(body[name])
    check_logit_bias(body)
    flag(body, "echo")
    return Ask(
        endpoint="/v1/completions",
        model=model,
        body=body,
        streamed=streamed,
        usage_asked=usage_asked(body, streamed),
        output_limit=whole(body, "max_tokens", TOKENS_MAX, least=0),
        choices=prompts.count * _made_of_each(body, streamed),
        input_bound=prompts.bound + (suffix + size.text) * prompts.count + TOKENS_PER_REQUEST,
        input_estimate=prompts.estimate + suffix * prompts.count // 4,
        unknown_fields=unknown,
        attribution=read_attribution(body, headers, digest_user),
        forward_headers=forwarded(headers),
        inputs=prompts.count,
    )


def _suffix(body: dict[str, Any]) -> int:
    """The bytes of what comes after each completion."""
    suffix = body.get("suffix")
    if suffix is None:
        return 0
    if type(suffix) is not str:
        raise wrong_type("suffix", "a string", suffix)
    size = Size()
    size.add(suffix)
    return size.text


def _made_of_each(body: dict[str, Any], streamed: bool) -> int:
    """How many completions are made of each prompt, shown or not."""
    shown = whole(body, "n", CHOICES_MAX) or 1
    made = whole(body, "best_of", BEST_OF_MAX)
    if made is None:
        return shown
    if made < shown:
        raise bad_value("best_of", f"it must be at least 'n', which is {shown}")
    if streamed and made > shown:
        raise bad_value(
            "best_of", "the best ones are known at the end only, so it cannot be more than 'n' in a stream"
        )
    return made
