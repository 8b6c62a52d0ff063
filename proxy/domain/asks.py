"""What a client asks for, read from its wire: the same shape whatever the endpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Endpoint = Literal["/v1/chat/completions"]


@dataclass(frozen=True, slots=True)
class Attribution:
    """Who and what a call was for; all optional, at most 256 characters each, never content."""

    user_id: str | None = None
    anonymous_id: str | None = None
    run_id: str | None = None
    step: str | None = None


@dataclass(slots=True)
class Ask:
    """One request, understood.

    `body` is the parsed JSON object, which the provider re-serialises; nobody forwards raw bytes.
    `input_bound` is a number of tokens that the input cannot exceed: serialised bytes and constants per
    message, tool and modality (reservation.md 3.6). `input_estimate` is a plain guess, used only where an
    estimate is recorded as one. `output_limit` is the client's own limit for one choice, None if it set
    none; `choices` multiplies it. `unknown_fields` are top-level fields that the gate has no word for.
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
