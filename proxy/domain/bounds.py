"""How much an attempt may use at most, in every meter, and how large an output limit a remainder admits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from proxy.domain.money import PICO_PER_MICRO, microusd_charged
from proxy.domain.policy import Budget
from proxy.domain.pricing import Price, bound_pico


@dataclass(slots=True)
class Bounds:
    """The upper bounds of one attempt: input tokens, output tokens of one choice, choices, requests (0 or 1), and
    what calls of the provider's own tools may cost, in picodollars."""

    input_tokens: int
    output_limit: int
    choices: int
    requests: int
    price: Price | None
    calls_pico: int = 0

    @property
    def output_tokens(self) -> int:
        return self.output_limit * self.choices

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_limit * self.choices


def amount(meter: str, bounds: Bounds) -> int:
    """What an attempt within these bounds takes of a meter at most."""
    if meter == "tokens":
        return bounds.tokens
    if meter == "requests":
        return bounds.requests
    if meter == "cost_usd":
        if bounds.price is None:
            raise ValueError("a cost budget cannot bound a model without a price")
        pico = bound_pico(bounds.input_tokens, bounds.output_tokens, bounds.price) + bounds.calls_pico
        return microusd_charged(pico)
    if meter == "input_tokens":
        return bounds.input_tokens
    return bounds.output_tokens


def affordable_output(bounds: Bounds, remaining: Iterable[tuple[Budget, int]]) -> int:
    """The largest output limit that every remainder admits, 0 if none does.

    `remaining` pairs each budget with what is left of it, in its own unit.
    """
    affordable = 1 << 53
    for budget, left in remaining:
        affordable = min(affordable, _affordable(bounds, budget.meter, left))
    return max(0, affordable)


def _affordable(bounds: Bounds, meter: str, left: int) -> int:
    if meter == "tokens":
        return (left - bounds.input_tokens) // bounds.choices
    if meter == "output_tokens":
        return left // bounds.choices
    if meter == "cost_usd":
        assert bounds.price is not None
        spare = left * PICO_PER_MICRO - bound_pico(bounds.input_tokens, 0, bounds.price) - bounds.calls_pico
        if spare < 0:
            return 0
        each = bounds.price.dearest_output() * bounds.choices
        return 1 << 53 if each == 0 else spare // each
    fixed = bounds.requests if meter == "requests" else bounds.input_tokens
    return 1 << 53 if fixed <= left else 0


def first_exceeded(amounts: Sequence[int], left: Sequence[int]) -> int:
    """The index of the first budget that the amounts would exceed; equality is allowed (metering.md D004)."""
    for index, (asked, remaining) in enumerate(zip(amounts, left, strict=True)):
        if asked > remaining:
            return index
    raise ValueError("no budget is exceeded")
