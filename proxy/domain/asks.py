"""What a client asks for, read from its wire: the same shape whatever the endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Endpoint = Literal[
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/completions",
    "/v1/embeddings",
]


@dataclass(frozen=True, slots=True)
class Attribution:
    """Who and what a call was for; all optional, at most 256 characters each, never content."""

    user_id: str | None = None
    anonymous_id: str | None = None
    run_id: str | None = None
    step: str | None = None


@dataclass(frozen=True, slots=True)
class Extra:
    """A field, found in the body, that may cost more than the client's own tokens: only with the plan's feature.

    `param` is where it stands ("tools.0"); `feature` is the plan's word for it ("web_search"). `calls` is the
    most that the provider itself may call it in this request, None where nothing in the body bounds it.
    `limited_by` is the field that does, or could ("tools.0.max_uses"); extras that have the same one share it.
    """

    param: str
    feature: str
    calls: int | None = None
    limited_by: str | None = None


@dataclass(slots=True)
class Ask:
    """One request, understood.

    `body` is the parsed JSON object, which the provider re-serialises; nobody forwards raw bytes.
    `input_bound` is a number of tokens that the input cannot exceed: serialised bytes and constants per
    message, tool and modality (reservation.md 3.6). `input_estimate` is a plain guess, used only where an
    estimate is recorded as one. `output_limit` is the client's own limit for one choice, None if it set
    none; `choices` multiplies it. `generates` is false where there is no output at all (embeddings, counting
    tokens): `output_limit` is 0 then. `inputs` says how many texts there are that each may fill the model's
    context by itself (to embed, to complete). `unknown_fields` are top-level fields that the gate has no word for.

    `counts_request` is false for what is no use of a model (counting tokens), which the meter `requests`
    leaves out. `extras` are the fields that only a plan's feature allows. `previous_response_id` continues a
    response that the provider has kept; `stored_items` are ids of what it has kept besides, each with whether the
    request hangs on it. `forward_headers` are the client's headers that go upstream, lower-case
    names, each allowed by name and checked; `query` is what of the client's query goes upstream, mostly empty.
    """

    endpoint: Endpoint
    model: str
    body: dict[str, Any]
    streamed: bool
    usage_asked: bool
    output_limit: int | None
    choices: int
    input_bound: int
    input_estimate: int
    unknown_fields: tuple[str, ...]
    attribution: Attribution
    generates: bool = True
    counts_request: bool = True
    extras: tuple[Extra, ...] = ()
    previous_response_id: str | None = None
    forward_headers: Mapping[str, str] | None = None
    query: str = ""
    inputs: int = 1
    stored_items: Mapping[str, bool] = field(default_factory=dict)

    def prompt(self) -> list[Any]:
        """The parts of the body that are content, for telling what somebody else quotes of them."""
        return [self.body.get(name) for name in CONTENT_FIELDS]


CONTENT_FIELDS = ("messages", "input", "instructions", "prompt", "system", "suffix")
