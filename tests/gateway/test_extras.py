"""What may cost more than its tokens passes only where the plan says so, and where a budget can pay for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gateway_doubles as given
import orjson
import pytest

from proxy.domain.asks import Extra
from proxy.domain.policy import Budget, RateLimits
from proxy.domain.refusals import Refusal, Refused
from proxy.domain.usage import Usage
from proxy.gateway.extras import check_extras
from proxy.gateway.journey import serve
from proxy.gateway.ports import OverdueReservation, UpstreamFailed
from proxy.gateway.sweep import orphaned

PRICE = replace(given.PRICE, calls={"web_search": 10_000_000_000})
MODEL = given.model("small", price=PRICE)
SEARCH = Extra("tools.0", "web_search", 5, "max_tool_calls")
ENDLESS = replace(SEARCH, calls=None)
UNLIMITED = Extra("mcp_servers.0", "mcp")
FILES = Extra("tools.1", "file_search", 5, "max_tool_calls")
TIER = Extra("service_tier", "priority_tier")
PICTURE = Extra("messages.0.content.0.image_url.url", "remote_images")
ALL = dict.fromkeys(("web_search", "file_search", "mcp", "priority_tier", "remote_images"), True)


def verdict(extra: Extra, meters: str, features: dict[str, Any] = ALL, **model: Any) -> Refusal | None:
    budgets = tuple(Budget(meter, meter, 1_000) for meter in meters.split())
    plan = given.plan(budgets=budgets, features=features)
    try:
        check_extras((extra,), replace(MODEL, **model), plan, given.policy(plans=[plan]))
    except Refused as refused:
        return refused.refusal
    return None


ALLOWED = [
    # extra, meters of the plan's budgets
    (SEARCH, "tokens cost_usd requests input_tokens output_tokens"),
    (ENDLESS, ""),
    (ENDLESS, "requests output_tokens"),
    (UNLIMITED, "requests"),
    (FILES, "tokens"),
    (TIER, "tokens requests"),
    (PICTURE, "tokens cost_usd"),
]


@pytest.mark.parametrize(("extra", "meters"), ALLOWED)
def test_what_a_budget_can_be_sure_to_pay_for_passes(extra: Extra, meters: str) -> None:
    assert verdict(extra, meters) is None


@pytest.mark.parametrize("extra", [SEARCH, TIER, PICTURE, UNLIMITED])
@pytest.mark.parametrize("features", [{}, {"web_search": False, "mcp": None}])
def test_without_the_plans_feature_it_is_refused(extra: Extra, features: dict[str, Any]) -> None:
    """By the field's name, with what it needs, whatever the budgets."""
    refusal = verdict(extra, "", features)
    assert refusal is not None
    assert (refusal.status, refusal.code, refusal.param) == (403, "feature_not_allowed", extra.param)
    assert extra.feature in refusal.message


@pytest.mark.parametrize(
    ("extra", "param", "says"),
    [(ENDLESS, "max_tool_calls", "Set 'max_tool_calls'"), (UNLIMITED, "mcp_servers.0", "without such limits")],
)
@pytest.mark.parametrize("meter", ["tokens", "input_tokens", "cost_usd"])
def test_a_loop_that_nothing_bounds_is_refused_where_a_budget_would_have_to_pay(
    extra: Extra, param: str, says: str, meter: str
) -> None:
    """The field that would bound it is named: the client can mend it."""
    refusal = verdict(extra, meter, price=replace(PRICE, calls={"web_search": 0, "mcp": 0}))
    assert refusal is not None
    assert (refusal.status, refusal.code, refusal.param) == (400, "unbounded_tool", param)
    assert says in refusal.message


@pytest.mark.parametrize("extra", [FILES, UNLIMITED, TIER])
def test_what_nobody_knows_the_price_of_never_passes_a_cost_budget(extra: Extra) -> None:
    """Never admitted unmetered; a price of zero is a price."""
    refusal = verdict(extra, "cost_usd")
    assert refusal is not None
    assert (refusal.status, refusal.code, refusal.param) == (403, "model_unpriced", extra.param)
    assert (extra.feature in refusal.message, "'small'" in refusal.message) == (True, True)
    assert verdict(FILES, "cost_usd", price=replace(PRICE, calls={"file_search": 0})) is None


def searching(doubles: given.Doubles, **plan: Any) -> None:
    doubles.directory.now = given.policy(models=[MODEL], plans=[given.plan(**{"features": ALL, **plan})])


BUDGETS = (Budget("t", "tokens", 10**9), Budget("i", "input_tokens", 10**9), Budget("c", "cost_usd", 10**9))


async def test_calls_are_held_and_charged_and_written_down(doubles: given.Doubles, ask: Any) -> None:
    """Of a context of 100,000 tokens, read once more after the search."""
    searching(doubles, budgets=BUDGETS)
    doubles.provider.answers = [
        given.FakeAnswer([b"{}"], usage=Usage(7, 5, raw={"n": 1}, calls={"web_search": 1}))
    ]
    await serve(ask(max_tokens=100, web_search_options={}), doubles.house)
    [reservation] = doubles.budgets.reserved
    assert [hold.amount for hold in reservation.holds] == [200_100, 200_000, 30_000 + 60 + 10_000]
    [(_, settlement)] = doubles.budgets.settled
    assert settlement.amounts == (12, 7, 10_005)
    [event] = doubles.budgets.events()
    assert event["cost_usd"] == "0.01000405"
    assert event["raw_usage"] == {"n": 1, "calls": {"web_search": 1}}


async def test_an_unanswered_call_is_charged_what_it_may_have_come_to(doubles: given.Doubles, ask: Any) -> None:
    """But for the output, of which nothing was seen."""
    searching(doubles, budgets=BUDGETS)
    doubles.provider.answers = [UpstreamFailed("unknown", "upstream_timeout", "x")]
    with pytest.raises(Refused):
        await serve(ask(max_tokens=100, web_search_options={}), doubles.house)
    assert doubles.budgets.settled[0][1].amounts == (200_000, 200_000, 40_000)


async def test_an_orphan_is_charged_its_calls(doubles: given.Doubles, ask: Any) -> None:
    searching(doubles, budgets=BUDGETS)
    await serve(ask(max_tokens=100, web_search_options={}), doubles.house)
    [reservation] = doubles.budgets.reserved
    overdue = OverdueReservation(
        reservation.ref, reservation.shard, given.NOW_US, 50, (1, 1, 1), reservation.record
    )
    settlement = orphaned(overdue)
    assert settlement.amounts == (200_050, 200_000, 30_000 + 30 + 10_000)
    assert orjson.loads(settlement.event)["cost_usd"] == "0.04003"


async def test_calls_of_unknown_price_leave_the_cost_unknown(doubles: given.Doubles, ask: Any) -> None:
    """Where no cost budget applies they pass; a part of a cost must not look like all of it."""
    searching(doubles)
    doubles.provider.answers = [given.FakeAnswer([b"{}"], usage=Usage(7, 5, calls={"file_search": 2}))]
    await serve(ask(max_tokens=100), doubles.house)
    [event] = doubles.budgets.events()
    assert (event["cost_usd"], event["raw_usage"]) == (None, {"calls": {"file_search": 2}})


async def test_a_token_rate_counts_the_turns(doubles: given.Doubles, ask: Any) -> None:
    """What can never fit is told at once."""
    searching(doubles, budgets=(), rate_limits=RateLimits(tokens_per_minute=150_000))
    with pytest.raises(Refused) as caught:
        await serve(ask(max_tokens=100, web_search_options={}), doubles.house)
    assert caught.value.refusal.code == "request_too_large"
