"""What an attempt costs us: the price of each part of its tokens, exact in picodollars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from proxy.domain.usage import Usage


@dataclass(frozen=True, slots=True)
class Price:
    """Picodollars per token of each part (and per request). `None`: that part's price is the plain one.

    A cached token without a price of its own is charged as plain input: dearer, never forgotten. The plain price
    of what is written to the cache for an hour is that of a shorter time. `calls` has picodollars per call of the
    tools that the provider runs itself, by the plan's word for each ("web_search"); others are not known.
    """

    input: int
    output: int
    cached_input: int | None = None
    cache_write: int | None = None
    audio_input: int | None = None
    audio_output: int | None = None
    request: int = 0
    version: str = ""
    cache_write_1h: int | None = None
    calls: Mapping[str, int] = field(default_factory=dict, hash=False)

    def dearest_input(self) -> int:
        """The price that no input token can exceed, whatever part it turns out to be."""
        parts = (self.cached_input, self.cache_write, self.cache_write_1h, self.audio_input)
        return max(self.input, *(part or 0 for part in parts))

    def dearest_output(self) -> int:
        return max(self.output, self.audio_output or 0)

    def knows(self, usage: Usage) -> bool:
        """Whether it says what everything that was used costs."""
        return not usage.calls or usage.calls.keys() <= self.calls.keys()


def cost_pico(usage: Usage, price: Price) -> int:
    """The exact cost of what was used. The parts of the input are disjoint; reasoning is part of the output.

    A call of unknown price counts nothing (see `Price.knows`): no cost budget lets one through.
    """
    cached = price.input if price.cached_input is None else price.cached_input
    written = price.input if price.cache_write is None else price.cache_write
    written_1h = written if price.cache_write_1h is None else price.cache_write_1h
    heard = price.input if price.audio_input is None else price.audio_input
    spoken = price.output if price.audio_output is None else price.audio_output
    return (
        usage.uncached_input_tokens * price.input
        + usage.cache_read_tokens * cached
        + (usage.cache_write_tokens - usage.cache_write_1h_tokens) * written
        + usage.cache_write_1h_tokens * written_1h
        + usage.audio_input_tokens * heard
        + (usage.output_tokens - usage.audio_output_tokens) * price.output
        + usage.audio_output_tokens * spoken
        + price.request
        + (calls_pico(usage.calls, price) if usage.calls else 0)
    )


def calls_pico(calls: Mapping[str, int], price: Price) -> int:
    return sum(count * price.calls.get(feature, 0) for feature, count in calls.items())


def bound_pico(input_bound: int, output_bound: int, price: Price) -> int:
    """The most that an attempt within these bounds can cost, but for what the provider's own tools do."""
    return input_bound * price.dearest_input() + output_bound * price.dearest_output() + price.request
