"""Rolling holds told as short stories: a slice is held, more as the output comes, and the stream ends in time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gateway_doubles as given
import pytest

from proxy.domain.policy import Budget, RateLimits
from proxy.domain.refusals import Refused
from proxy.domain.reservations import Balance, Closed, Exceeded, Lost, ToppedUp
from proxy.domain.usage import Usage
from proxy.gateway.journey import serve
from proxy.gateway.ports import StoreAway
from proxy.gateway.rolling import SLICE_TOKENS

Ask = Callable[..., Any]

BUDGET = Budget("monthly", "tokens", 10_000)
EVENT = b"x" * 250
"""As long as an event of one token is on the wire."""


class Growing(given.FakeAnswer):
    """A stream whose every chunk brings `each` tokens of output."""

    def __init__(self, chunks: int, each: int = 1, **more: Any) -> None:
        super().__init__([EVENT] * chunks, streamed=True, tail=b"[DONE]", observed=0, **more)
        self.each = each

    async def next(self) -> bytes | None:
        chunk = await super().next()
        self.observed += self.each if chunk else 0
        return chunk


@pytest.fixture
def rolling(doubles: given.Doubles) -> given.Doubles:
    """A house whose plan rolls, with a budget of tokens."""
    doubles.directory.now = given.policy(plans=[given.plan(hold="rolling", budgets=(BUDGET,))])
    return doubles


def bound_of(doubles: given.Doubles) -> int:
    return int(doubles.provider.sent[0].ask.input_bound)


def totals(doubles: given.Doubles) -> list[int]:
    """The output that each top-up asked to hold, in all."""
    return [top_up.holds[0].amount - bound_of(doubles) for top_up in doubles.budgets.topped_up]


async def test_a_stream_holds_a_slice_and_may_go_on_to_its_whole_limit(rolling: given.Doubles, ask: Ask) -> None:
    """Holds of the worst case starve the other agents of a customer; the answer may be as long as ever."""
    await serve(ask(stream=True, max_tokens=900), rolling.house)
    [reservation] = rolling.budgets.reserved
    assert reservation.holds[0].amount == bound_of(rolling) + SLICE_TOKENS
    assert rolling.provider.sent[0].output_limit == 900
    assert reservation.rate_tokens == bound_of(rolling) + 900, "the rate limit takes the whole bound"


@pytest.mark.parametrize(("how", "asked"), [({}, 900), ({"stream": True}, 200)])
async def test_plain_calls_and_small_limits_are_held_whole(
    rolling: given.Doubles, ask: Ask, how: dict[str, Any], asked: int
) -> None:
    """Nothing can be observed of a plain call, and less than a slice is no slice."""
    rolling.provider.answers = [Growing(300)] if how else []
    await serve(ask(max_tokens=asked, **how), rolling.house)
    assert rolling.budgets.reserved[0].holds[0].amount == bound_of(rolling) + asked
    assert rolling.budgets.topped_up == []


async def test_more_is_held_before_the_output_reaches_what_is_held(rolling: given.Doubles, ask: Ask) -> None:
    """At every moment what was seen is covered, up to the limit that was asked for; then nothing more is asked."""
    call = ask(stream=True, max_tokens=900)
    rolling.provider.answers = [Growing(900)]
    held = [SLICE_TOKENS]
    ahead = []

    async def top_up(asked: Any) -> Any:
        held.append(asked.holds[0].amount - bound_of(rolling))
        ahead.append(held[-2] - asked.observed_output_tokens)
        return ToppedUp(given.NOW_US, asked.holds)

    rolling.budgets.top_up = top_up  # type: ignore[method-assign]
    await serve(call, rolling.house)
    assert min(ahead) > SLICE_TOKENS // 4, "asked for while there was time"
    assert held == sorted(set(held))
    assert held[-1] == 900
    assert len(held) <= 2 + 900 // (SLICE_TOKENS // 2)
    assert call.wrote[-1] == ("end", b"[DONE]")
    [(_, settlement)] = rolling.budgets.settled
    assert settlement.counters == tuple(h.counter for h in rolling.budgets.reserved[0].holds)
    [event] = rolling.budgets.events()
    assert event["held"][0]["amount"] == bound_of(rolling) + 900
    assert event["error_type"] is None


async def test_every_budget_is_raised_by_what_its_meter_counts(doubles: given.Doubles, ask: Ask) -> None:
    """Money and tokens run out together or not at all; requests and input are held once."""
    meters = ("tokens", "output_tokens", "input_tokens", "requests", "cost_usd")
    budgets = tuple(Budget(meter, meter, 1_000_000) for meter in meters)
    doubles.directory.now = given.policy(plans=[given.plan(hold="rolling", budgets=budgets)])
    doubles.provider.answers = [Growing(500)]
    await serve(ask(stream=True, n=2, max_tokens=900), doubles.house)
    first = {h.counter.budget.meter: h.amount for h in doubles.budgets.reserved[0].holds}
    raised = {h.counter.budget.meter: h.amount for h in doubles.budgets.topped_up[-1].holds}
    bound, seen = bound_of(doubles), doubles.budgets.topped_up[-1].observed_output_tokens
    output = 2 * (-(-seen // 2) + SLICE_TOKENS)
    assert first["output_tokens"] == 2 * SLICE_TOKENS
    assert raised["output_tokens"] == output
    assert raised["tokens"] == bound + output
    assert (raised["input_tokens"], raised["requests"]) == (first["input_tokens"], first["requests"]) == (bound, 1)
    assert raised["cost_usd"] == -(-(bound * 150_000 + output * 600_000) // 1_000_000)


async def test_a_spent_budget_ends_the_stream_in_its_own_wire(rolling: given.Doubles, ask: Ask) -> None:
    """The client gets a clean end that says why, and the customer is charged what was seen and no more."""
    call = ask(stream=True, max_tokens=900)
    rolling.provider.answers = [Growing(900)]
    # 40 more than the slice are left.
    rolling.budgets.top_up_replies = [refused_with(rolling, SLICE_TOKENS + 40)]
    real = rolling.budgets.top_up

    async def top_up(asked: Any) -> Any:
        output = asked.holds[0].amount - bound_of(rolling)
        if output > SLICE_TOKENS + 40:
            own = bound_of(rolling) + (SLICE_TOKENS if len(totals(rolling)) < 2 else SLICE_TOKENS + 40)
            rolling.budgets.top_up_replies = [refused_with(rolling, SLICE_TOKENS + 40, own)]
        else:
            rolling.budgets.top_up_replies = []
        return await real(asked)

    rolling.budgets.top_up = top_up  # type: ignore[method-assign]
    await serve(call, rolling.house)
    assert SLICE_TOKENS + 40 in totals(rolling), "what is left is held to the last token"
    delivered = sum(verb == "write" for verb, _ in call.wrote)
    assert SLICE_TOKENS + 40 <= delivered <= SLICE_TOKENS + 42
    assert call.wrote[-1] == ("end", b"length;[DONE]")
    [event] = rolling.budgets.events()
    assert (event["status"], event["usage_source"], event["error_type"]) == (
        "succeeded",
        "estimated",
        "budget_spent",
    )
    assert (event["output_tokens"], event["billable"]) == (delivered, True)
    assert len(rolling.budgets.topped_up) < 16, "a refusal is not asked again at every chunk"


def refused_with(doubles: given.Doubles, output: int, own: int = 0) -> Exceeded:
    """Others leave room for that much output of this stream, which holds `own` by now."""
    bound = doubles.provider.sent[0].ask.input_bound if doubles.provider.sent else 0
    return Exceeded(given.NOW_US, (Balance(BUDGET.limit - bound - output, own, 0, bound + output - own),))


@pytest.mark.parametrize("trouble", [StoreAway(), Lost(), Closed()])
async def test_what_cannot_be_held_is_not_streamed(rolling: given.Doubles, ask: Ask, trouble: Any) -> None:
    """Redis away in the middle of a stream: what is held is streamed to its end, and no further."""
    call = ask(stream=True, max_tokens=900)
    rolling.provider.answers = [Growing(900)]
    rolling.budgets.top_up_replies = [trouble] * 50
    await serve(call, rolling.house)
    assert rolling.budgets.events()[0]["output_tokens"] == sum(verb == "write" for verb, _ in call.wrote)
    assert SLICE_TOKENS <= rolling.budgets.events()[0]["output_tokens"] <= SLICE_TOKENS + 2
    assert call.wrote[-1] == ("end", b"length;[DONE]")
    assert len(rolling.budgets.topped_up) <= 9
    assert rolling.meters.faults


async def test_a_short_trouble_is_got_over(rolling: given.Doubles, ask: Ask) -> None:
    """Half a slice is time enough to ask again."""
    call = ask(stream=True, max_tokens=400)
    rolling.provider.answers = [Growing(390)]
    rolling.budgets.top_up_replies = [StoreAway(), StoreAway()]
    await serve(call, rolling.house)
    assert call.wrote[-1] == ("end", b"[DONE]")
    assert sum(verb == "write" for verb, _ in call.wrote) == 390


async def test_a_running_total_of_the_provider_is_believed(rolling: given.Doubles, ask: Ask) -> None:
    """Reasoning is not delivered, and costs all the same."""
    rolling.provider.answers = [Growing(40, each=0, usage=Usage(7, 200))]
    await serve(ask(stream=True, max_tokens=900), rolling.house)
    assert rolling.budgets.topped_up[0].observed_output_tokens == 200


async def test_a_stream_whose_end_has_come_is_not_cut(rolling: given.Doubles, ask: Ask) -> None:
    """Nothing more is bought by reading on to the usage report, which is better than any estimate."""
    call = ask(stream=True, max_tokens=900)

    class Over(Growing):
        async def end_by_length(self) -> bytes:
            return b""

    rolling.provider.answers = [Over(300)]
    rolling.budgets.top_up_replies = [Closed()] * 500
    await serve(call, rolling.house)
    assert sum(verb == "write" for verb, _ in call.wrote) == 300
    assert call.wrote[-1] == ("end", b"[DONE]")
    assert rolling.budgets.events()[0]["usage_source"] == "provider"
    assert rolling.budgets.events()[0]["error_type"] is None


# what is left for the output, min_output_tokens, the client's limit; what is held at last, None: refused
@pytest.mark.parametrize(
    ("left", "least", "asked", "held"),
    [
        (100, 16, 900, 100),
        (16, 16, 900, 16),
        (15, 16, 900, None),
        (15, 16, None, None),
        (255, 500, 900, None),
        (10, 16, 10, 10),
        (9, 16, 10, None),
    ],
)
async def test_it_is_refused_only_if_not_even_a_beginning_fits(
    doubles: given.Doubles, ask: Ask, left: int, least: int, asked: int | None, held: int | None
) -> None:
    """A strict plan refuses what may not fit; a rolling one begins, and ends where the budget does."""
    doubles.directory.now = given.policy(
        plans=[given.plan(hold="rolling", min_output_tokens=least, budgets=(BUDGET,))]
    )
    limit = {} if asked is None else {"max_tokens": asked}
    real = doubles.budgets.reserve

    async def reserve(reservation: Any) -> Any:
        bound = reservation.rate_tokens - (asked or 1000)
        if reservation.holds[0].amount > bound + left:
            doubles.budgets.replies = [given.exceeded(bound + left)]
        return await real(reservation)

    doubles.budgets.reserve = reserve  # type: ignore[method-assign]
    call = ask(stream=True, **limit)
    if held is None:
        with pytest.raises(Refused) as caught:
            await serve(call, doubles.house)
        assert caught.value.refusal.budget is not None
        assert caught.value.refusal.budget.can_afford == left
        return
    await serve(call, doubles.house)
    assert doubles.budgets.reserved[-1].holds[0].amount == bound_of(doubles) + held
    assert doubles.provider.sent[0].output_limit == (asked or 1000)


async def test_what_can_never_fit_a_minute_is_refused_though_its_slice_would(
    doubles: given.Doubles, ask: Ask
) -> None:
    """The minute's limit is asked once, for all that the stream may bring: it is never cut for a rate."""
    limits = RateLimits(tokens_per_minute=600)
    doubles.directory.now = given.policy(plans=[given.plan(hold="rolling", rate_limits=limits)])
    with pytest.raises(Refused) as caught:
        await serve(ask(stream=True, max_tokens=900), doubles.house)
    assert caught.value.refusal.reason == "request_too_large"
