"""Plans in shadow mode, plans that need a user, and plans that stay open while Redis is away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gateway_doubles as given
import pytest

from proxy.domain.policy import Budget, RateLimits
from proxy.domain.refusals import Refused
from proxy.domain.reservations import Closed, Held, Limited, Stale
from proxy.gateway.journey import serve
from proxy.gateway.ports import StoreAway, UpstreamFailed

Ask = Callable[..., Any]


def shadow(doubles: given.Doubles, **terms: Any) -> None:
    doubles.directory.now = given.policy(
        models=[given.model("small"), given.model("large"), given.model("free", price=None)],
        plans=[given.plan(mode="shadow", **terms)],
    )


def reasons(doubles: given.Doubles) -> list[str]:
    return [key.reason for key in doubles.denials.counted]


async def test_a_spent_budget_is_recorded_and_the_call_is_made_as_it_came(
    doubles: given.Doubles, ask: Ask
) -> None:
    """Adopters want to see what a plan would do before it does it to anybody."""
    shadow(doubles)
    doubles.budgets.replies = [given.exceeded(left=1)]
    await serve(ask(max_tokens=900), doubles.house)
    [decided, made] = doubles.budgets.reserved
    assert [hold.counter.budget.hard for hold in (decided.holds[0], made.holds[0])] == [True, False]
    assert made.holds[0].counter.name == decided.holds[0].counter.name, "usage is counted where it will be"
    assert doubles.provider.sent[0].output_limit == 900
    assert reasons(doubles) == ["shadow:budget"]


async def test_what_a_plan_would_only_have_lowered_is_neither_lowered_nor_recorded(
    doubles: given.Doubles, ask: Ask
) -> None:
    """A shadow that shortens answers is no shadow."""
    shadow(doubles)
    doubles.budgets.replies = [given.exceeded(left=500)]
    await serve(ask(), doubles.house)
    assert doubles.provider.sent[0].output_limit == 1000
    assert reasons(doubles) == []


@pytest.mark.parametrize(
    ("terms", "reply", "body", "reason"),
    [
        ({"models": frozenset({"large"})}, None, {}, "shadow:model_not_allowed"),
        ({"require_user": True}, None, {}, "shadow:bad_request"),
        ({"budgets": (Budget("usd", "cost_usd", 5),)}, None, {"model": "free"}, "shadow:model_unpriced"),
        ({"budgets": (Budget("usd", "cost_usd", 5),)}, None, {"novelty": 1}, "shadow:unknown_parameter"),
        ({"rate_limits": RateLimits(tokens_per_minute=10)}, None, {"max_tokens": 99}, "shadow:request_too_large"),
        (
            {"rate_limits": RateLimits(1)},
            Limited(given.NOW_US, "requests", 5_000_000),
            {},
            "shadow:rate_limited",
        ),
    ],
)
async def test_no_term_of_the_plan_refuses(
    doubles: given.Doubles, ask: Ask, terms: dict[str, Any], reply: Any, body: dict[str, Any], reason: str
) -> None:
    shadow(doubles, **terms)
    doubles.budgets.replies = [reply] if reply else []
    call = ask(**body)
    await serve(call, doubles.house)
    assert call.wrote == [("answer", b"{}")]
    assert reasons(doubles) == [reason]
    assert doubles.budgets.reserved[-1].limits == RateLimits()


async def test_a_fallback_outside_the_plan_stays_outside(doubles: given.Doubles, ask: Ask) -> None:
    """Nobody asked for that model: letting it through would be a deed of the shadow's own."""
    doubles.directory.now = given.policy(
        models=[given.model("small", fallbacks=("large",)), given.model("large")],
        plans=[given.plan(mode="shadow", models=frozenset({"small"}))],
    )
    doubles.budgets.replies = [given.exceeded(left=1)]
    doubles.provider.answers = [UpstreamFailed("refused", "server_error", "It broke.", status=500)]
    with pytest.raises(Refused, match="upstream"):
        await serve(ask(max_tokens=900), doubles.house)
    assert [sent.model.id for sent in doubles.provider.sent] == ["small"]
    assert reasons(doubles)[0] == "shadow:budget"


async def test_what_no_plan_can_allow_is_refused_in_shadow_too(doubles: given.Doubles, ask: Ask) -> None:
    shadow(doubles)
    with pytest.raises(Refused, match="model_not_found"):
        await serve(ask(model="none"), doubles.house)
    doubles.budgets.replies = [Closed()]
    with pytest.raises(Refused, match="gate_unavailable"):
        await serve(ask(), doubles.house)


async def test_a_plan_that_has_left_shadow_mode_meanwhile_refuses(doubles: given.Doubles, ask: Ask) -> None:
    """Enforcing must act on the next request: what was remembered decides nothing."""
    shadow(doubles)
    await serve(ask(), doubles.house)
    doubles.directory.now = given.policy(2)
    doubles.budgets.replies = [Stale("policy"), given.exceeded(left=0)]
    with pytest.raises(Refused, match="budget"):
        await serve(ask(max_tokens=5), doubles.house)


async def test_a_plan_that_needs_a_user_says_so_before_the_model_is_looked_for(
    doubles: given.Doubles, ask: Ask
) -> None:
    doubles.directory.now = given.policy(plans=[given.plan(require_user=True)])
    with pytest.raises(Refused) as caught:
        await serve(ask(model="none"), doubles.house)
    told = caught.value.refusal
    assert (told.status, told.code, told.param) == (400, "user_required", "user")
    await serve(ask(user="u1"), doubles.house)


async def test_budgets_per_user_are_counted_by_user(doubles: given.Doubles, ask: Ask) -> None:
    per_user = Budget("mine", "tokens", 10_000, per="user")
    doubles.directory.now = given.policy(plans=[given.plan(budgets=(per_user,))])
    for body in ({"user": "u1"}, {"user": "u/2"}, {}):
        await serve(ask(**body), doubles.house)
    subjects = [r.holds[0].counter.name.split("/")[1] for r in doubles.budgets.reserved]
    assert subjects == ["user:u1", "user:u%2F2", "user:-"]
    shared = doubles.budgets.reserved[0].holds[0].counter.shared
    assert shared is not None
    assert shared.name == doubles.budgets.reserved[2].holds[0].counter.name


def stays_open(doubles: given.Doubles) -> None:
    doubles.directory.now = given.policy(plans=[given.plan(budgets=(), on_store_failure="open")])


@pytest.mark.parametrize("away", [StoreAway(sent=False), StoreAway(sent=True), Closed()])
async def test_a_plan_without_limits_may_stay_open_while_redis_is_away(
    doubles: given.Doubles, ask: Ask, away: Any
) -> None:
    """An internal plan has nothing that Redis could protect; its usage is recorded all the same."""
    stays_open(doubles)
    await serve(ask(), doubles.house)
    doubles.budgets.replies = [away]
    doubles.budgets.outcome = "unknown"
    doubles.clock.us += 59_000_000
    call = ask()
    await serve(call, doubles.house)
    assert call.wrote == [("answer", b"{}")]
    assert len(doubles.spool.kept) == 1
    assert doubles.spawned == [], "nothing is withdrawn under the feet of the call"


@pytest.mark.parametrize(("first", "later_us"), [(True, 61_000_000), (False, 0)])
async def test_it_closes_once_nobody_has_verified_the_caller_for_a_minute(
    doubles: given.Doubles, ask: Ask, first: bool, later_us: int
) -> None:
    """A revoked secret must not live on for as long as Redis is away."""
    stays_open(doubles)
    if first:
        await serve(ask(), doubles.house)
    doubles.clock.us += later_us
    doubles.budgets.replies = [StoreAway(sent=False), Held(given.NOW_US, 0, 0)]
    with pytest.raises(Refused, match="gate_unavailable"):
        await serve(ask(), doubles.house)
