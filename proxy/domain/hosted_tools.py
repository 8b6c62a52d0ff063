"""Tools that the provider runs itself within a request: how much more than the client's own words it can come to.

Each call begins another turn of the model's, which is given all that was said and found so far once more and
bills it once more. Nothing tells beforehand how much a tool finds, so every turn may fill the whole context. Most
providers end such a loop after some turns of their own accord; that is a default of theirs and no promise, so only
what the request itself says about the number of calls is a bound.
"""

from __future__ import annotations

from collections.abc import Iterable

from proxy.domain.asks import Ask, Extra
from proxy.domain.features import HOSTED_TOOLS
from proxy.domain.pricing import Price


def hosted(extras: Iterable[Extra]) -> list[Extra]:
    """Those of the extras that are tools which the provider runs."""
    return [extra for extra in extras if extra.feature in HOSTED_TOOLS]


def most_input(ask: Ask, measured: int, context_tokens: int) -> int:
    """The most input tokens of one attempt. `measured` is what the request itself holds at most.

    No provider takes more than the model's context of one input. Calls that nothing bounds count as none here:
    where a budget would have to pay for them, the request is refused.
    """
    if ask.extras and hosted(ask.extras):
        return context_tokens * (1 + most_calls(ask.extras))
    return min(measured, context_tokens * ask.inputs)


def most_calls(extras: Iterable[Extra]) -> int:
    """How often the provider may call its tools, all together, as far as that is bounded."""
    return sum({_limit_of(extra): extra.calls or 0 for extra in hosted(extras)}.values())


def calls_bound_pico(extras: Iterable[Extra], price: Price) -> int:
    """The most that the calls can cost, in picodollars; of tools that share a limit the dearest may use it up."""
    most: dict[str, int] = {}
    for extra in hosted(extras):
        limit = _limit_of(extra)
        most[limit] = max(most.get(limit, 0), (extra.calls or 0) * price.calls.get(extra.feature, 0))
    return sum(most.values())


def _limit_of(extra: Extra) -> str:
    return extra.limited_by or extra.param
