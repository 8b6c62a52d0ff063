"""The journey told as short stories: what a client gets, what is charged, and what is written down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gateway_doubles as given
import pytest

from proxy.domain.policy import Budget, RateLimits
from proxy.domain.refusals import Refusal, Refused
from proxy.domain.reservations import Closed, Full, Held, Limited, Stale, WindowPassed
from proxy.domain.usage import Usage
from proxy.gateway.journey import serve
from proxy.gateway.ports import StoreAway, UpstreamFailed

Ask = Callable[..., Any]


async def refusal_of(call: Any, doubles: given.Doubles) -> Refusal:
    with pytest.raises(Refused) as caught:
        await serve(call, doubles.house)
    return caught.value.refusal


async def test_a_plain_call_is_settled_before_it_is_answered(doubles: given.Doubles, ask: Ask) -> None:
    """A client that saw a complete answer has a usage event, whatever dies next."""
    call = ask(max_tokens=100)
    answered_when_settled = []
    doubles.budgets.settle = watching(
        doubles.budgets.settle, lambda: answered_when_settled.append(list(call.wrote))
    )  # type: ignore[method-assign]
    await serve(call, doubles.house)
    assert answered_when_settled == [[]]
    assert call.wrote == [("answer", b"{}")]
    [event] = doubles.budgets.events()
    assert (event["status"], event["usage_source"], event["billable"]) == ("succeeded", "provider", True)
    assert (event["input_tokens"], event["output_tokens"], event["cost_usd"]) == (7, 5, "0.00000405")
    assert doubles.budgets.settled[0][1].amounts == (12,)


async def test_a_report_beyond_belief_is_charged_all_that_was_held(doubles: given.Doubles, ask: Ask) -> None:
    """Never less than the sane part of it, and never nothing; and nobody is billed for it."""
    doubles.provider.answers = [given.FakeAnswer([b"{}"], usage=Usage(7, 5, disputed=True))]
    await serve(ask(max_tokens=100), doubles.house)
    [(_, settlement)] = doubles.budgets.settled
    assert settlement.amounts == (doubles.budgets.reserved[0].holds[0].amount,)
    assert doubles.budgets.events()[0]["billable"] is False


async def test_the_bound_that_is_held_is_the_bound_that_is_sent(doubles: given.Doubles, ask: Ask) -> None:
    """Never shrink a hold and send more."""
    await serve(ask(), doubles.house)
    [reservation] = doubles.budgets.reserved
    [dispatch] = doubles.provider.sent
    assert dispatch.output_limit == 1000
    assert reservation.holds[0].amount == dispatch.ask.input_bound + 1000


async def test_a_streams_ending_goes_out_only_after_the_settle(doubles: given.Doubles, ask: Ask) -> None:
    call = ask(stream=True)
    doubles.provider.answers = [given.FakeAnswer([b"a", b"b"], streamed=True, tail=b"[DONE]")]
    seen = []
    doubles.budgets.settle = watching(doubles.budgets.settle, lambda: seen.append(len(call.wrote)))  # type: ignore[method-assign]
    await serve(call, doubles.house)
    assert [verb for verb, _ in call.wrote] == ["begin", "write", "write", "end"]
    assert seen == [3]


@pytest.mark.parametrize("secret", [None, "", "sk-1", "fg_live_junk", given.SECRET[:-1] + "!"])
async def test_junk_is_refused_without_a_look_up(doubles: given.Doubles, ask: Ask, secret: str | None) -> None:
    refusal = await refusal_of(ask(secret=secret), doubles)
    assert (refusal.status, refusal.code) == (401, "invalid_api_key")
    assert doubles.directory.reads == 0


async def test_what_was_remembered_is_read_again_when_the_script_says_stale(
    doubles: given.Doubles, ask: Ask
) -> None:
    """A plan swapped a moment ago decides the very next request."""
    await serve(ask(), doubles.house)
    doubles.directory.now = given.policy(2, plans=[given.plan(version=2)])
    doubles.directory.who = given.identity(revision=2)
    doubles.budgets.replies = [Stale("customer")]
    await serve(ask(), doubles.house)
    assert [r.customer_revision for r in doubles.budgets.reserved] == [1, 1, 2]
    assert doubles.budgets.events()[-1]["plan_version"] == 2


async def test_a_request_is_decided_by_one_version_whole(doubles: given.Doubles, ask: Ask) -> None:
    """What the old version's budget could afford is no limit under the new one."""
    doubles.directory.now = given.policy(1)
    await serve(ask(), doubles.house)
    doubles.directory.now = given.policy(2, plans=[given.plan(version=2, default_max_output_tokens=700)])
    doubles.budgets.replies = [given.exceeded(left=300), Stale("policy")]
    await serve(ask(), doubles.house)
    assert doubles.provider.sent[-1].output_limit == 700
    assert doubles.budgets.events()[-1]["plan_version"] == 2


async def test_a_revoked_secret_is_refused_after_a_stale(doubles: given.Doubles, ask: Ask) -> None:
    await serve(ask(), doubles.house)
    doubles.directory.who = None
    doubles.budgets.replies = [Stale("secret")]
    assert (await refusal_of(ask(), doubles)).status == 401


async def test_a_refusal_from_memory_is_confirmed_before_it_is_given(doubles: given.Doubles, ask: Ask) -> None:
    """Otherwise a plan that has just been given the model would go on refusing it."""
    doubles.directory.now = given.policy(1, plans=[given.plan(models=frozenset())])
    assert (await refusal_of(ask(), doubles)).code == "model_not_allowed"
    doubles.directory.now = given.policy(2)
    await serve(ask(), doubles.house)
    assert len(doubles.budgets.settled) == 1


async def test_a_suspended_customer_is_told_so_before_the_body_is_looked_at(
    doubles: given.Doubles, ask: Ask
) -> None:
    doubles.directory.who = given.identity(status="suspended")
    assert (await refusal_of(ask(messages=None), doubles)).code == "account_suspended"
    doubles.directory.who = given.identity(revision=2)
    await serve(ask(), doubles.house)


REFUSALS = [
    # what the script answers                    status  code                     reserves tried
    (given.exceeded(left=1), 402, "insufficient_quota", 1),
    (Limited(given.NOW_US, "requests", 1_500_000), 429, "rate_limit_exceeded", 1),
    (Limited(given.NOW_US, "concurrent_requests", 0), 429, "rate_limit_exceeded", 1),
    (Closed(), 503, "gate_unavailable", 1),
    (Full(), 503, "gate_unavailable", 1),
    (StoreAway(sent=False), 503, "gate_unavailable", 1),
]


@pytest.mark.parametrize(("reply", "status", "code", "tried"), REFUSALS)
async def test_a_refused_request_is_counted_and_never_sent(
    doubles: given.Doubles, ask: Ask, reply: Any, status: int, code: str, tried: int
) -> None:
    doubles.directory.now = given.policy(plans=[given.plan(rate_limits=RateLimits(60, 100_000, 1))])
    doubles.budgets.replies = [reply]
    refusal = await refusal_of(ask(max_tokens=500), doubles)
    assert (refusal.status, refusal.code) == (status, code)
    assert len(doubles.budgets.reserved) == tried
    assert doubles.provider.sent == []
    assert [key.reason for key in doubles.denials.counted] == [refusal.reason]


async def test_a_reserve_without_a_reply_is_withdrawn(doubles: given.Doubles, ask: Ask) -> None:
    """It may have been carried out: the hold must not stay."""
    doubles.budgets.replies = [StoreAway(sent=True)]
    assert (await refusal_of(ask(), doubles)).status == 503
    assert doubles.spawned == ["withdraw a reserve without a reply"]


async def test_a_default_is_lowered_to_what_is_affordable(doubles: given.Doubles, ask: Ask) -> None:
    doubles.budgets.replies = [given.exceeded(left=200)]
    await serve(ask(), doubles.house)
    bound = doubles.provider.sent[0].ask.input_bound
    assert doubles.provider.sent[0].output_limit == 200 - bound
    assert doubles.budgets.reserved[-1].holds[0].amount == 200


async def test_a_limit_that_the_client_set_is_refused_with_what_would_be_affordable(
    doubles: given.Doubles, ask: Ask
) -> None:
    doubles.budgets.replies = [given.exceeded(left=200)]
    refusal = await refusal_of(ask(max_tokens=4096), doubles)
    assert refusal.budget is not None
    assert refusal.budget.can_afford == 200 - (refusal.budget.asked - 4096)
    assert doubles.provider.sent == []


async def test_a_clamping_plan_sends_the_smaller_limit(doubles: given.Doubles, ask: Ask) -> None:
    doubles.directory.now = given.policy(plans=[given.plan(on_exceed="clamp")])
    doubles.budgets.replies = [given.exceeded(left=200)]
    await serve(ask(max_tokens=4096), doubles.house)
    assert doubles.provider.sent[0].output_limit < 200


async def test_a_window_that_has_passed_is_worked_out_again(doubles: given.Doubles, ask: Ask) -> None:
    later = given.NOW_US + 40 * 86_400_000_000
    doubles.budgets.replies = [WindowPassed(later), Held(later, 0, 0)]
    await serve(ask(), doubles.house)
    first, second = (r.holds[0].counter for r in doubles.budgets.reserved)
    assert first.starts_us < second.starts_us <= later


async def test_what_can_never_fit_a_minute_is_no_matter_of_waiting(doubles: given.Doubles, ask: Ask) -> None:
    doubles.directory.now = given.policy(plans=[given.plan(rate_limits=RateLimits(None, 500, None))])
    refusal = await refusal_of(ask(max_tokens=600), doubles)
    assert (refusal.status, refusal.code, refusal.retry_after_s) == (400, "request_too_large", None)
    await serve(ask(), doubles.house)
    assert doubles.budgets.reserved[0].rate_tokens == 500


async def test_where_a_decision_hangs_on_it_the_tokens_are_counted_instead_of_the_bytes(
    doubles: given.Doubles, ask: Ask
) -> None:
    """A byte bound is four times what English text takes; it must not refuse what would fit."""
    doubles.directory.now = given.policy(plans=[given.plan(rate_limits=RateLimits(None, 500, None))])
    doubles.tokenizers.counts = 300
    await serve(ask(messages=[{"role": "user", "content": "x" * 1000}], max_tokens=200), doubles.house)
    assert doubles.budgets.reserved[0].rate_tokens == 500


async def test_a_budget_that_bytes_would_exceed_is_asked_again_with_the_tokens(
    doubles: given.Doubles, ask: Ask
) -> None:
    doubles.tokenizers.counts = 300
    doubles.budgets.replies = [given.exceeded(left=500)]
    await serve(ask(messages=[{"role": "user", "content": "x" * 400}], max_tokens=100), doubles.house)
    assert [r.holds[0].amount for r in doubles.budgets.reserved] == [536, 400]


async def test_a_cost_budget_refuses_what_nobody_can_price(doubles: given.Doubles, ask: Ask) -> None:
    costly = given.plan(budgets=(Budget("money", "cost_usd", 1_000_000),))
    doubles.directory.now = given.policy(models=[given.model("small", price=None)], plans=[costly])
    assert (await refusal_of(ask(), doubles)).code == "model_unpriced"
    doubles.directory.now = given.policy(2, plans=[costly])
    assert (await refusal_of(ask(surprise=1), doubles)).code == "unknown_parameter"


FAILURES = [
    # kind       status  blame        charged  event usage_source  client reads
    ("unsent", None, "upstream", 0, 502),
    ("refused", 500, "upstream", 0, 500),
    ("refused", 429, "upstream", 0, 429),
    ("refused", 401, "operator", 0, 502),
    ("refused", 400, "request", 0, 400),
    ("unknown", None, "upstream", None, 502),
]


@pytest.mark.parametrize(("kind", "status", "blame", "charged", "told"), FAILURES)
async def test_what_a_failed_attempt_costs(
    doubles: given.Doubles, ask: Ask, kind: Any, status: Any, blame: Any, charged: int | None, told: int
) -> None:
    """Nothing, if it never left or was refused; its input bound, if nobody knows what became of it."""
    doubles.provider.answers = [UpstreamFailed(kind, "server_error", "It failed.", status=status, blame=blame)]
    refusal = await refusal_of(ask(), doubles)
    assert refusal.status == told
    [(verb, settlement)] = doubles.budgets.settled
    bound = doubles.provider.sent[0].ask.input_bound
    assert (verb, settlement.amounts) == (("release", (0,)) if charged == 0 else ("settle", (bound,)))
    [event] = doubles.budgets.events()
    assert (event["status"], event["usage_source"], event["billable"]) == ("failed", "none", False)


async def test_a_fallback_is_an_attempt_of_its_own(doubles: given.Doubles, ask: Ask) -> None:
    """Each with its own reservation, its own price and its own event; one the plan forbids is skipped."""
    doubles.directory.now = given.policy(
        models=[
            given.model("small", fallbacks=("forbidden", "large")),
            given.model("forbidden"),
            given.model("large", price=replace(given.PRICE, input=1_500_000, output=6_000_000)),
        ],
        plans=[given.plan(models=frozenset({"small", "large"}))],
    )
    doubles.provider.answers = [
        UpstreamFailed("refused", "overloaded", "Busy.", status=503),
        given.FakeAnswer([b"{}"], usage=Usage(7, 5)),
    ]
    call = ask()
    await serve(call, doubles.house)
    first, second = doubles.budgets.events()
    assert (first["id"], first["status"], first["model_served"]) == ("req_1:0", "failed", "small")
    assert (second["id"], second["model_served"], second["cost_usd"]) == ("req_1:1", "large", "0.0000405")
    assert (second["fallback_from"], second["fallback_reason"]) == ("small", "overloaded")
    assert [r.first for r in doubles.budgets.reserved] == [True, False]
    assert call.sent_headers["faregate-model"] == "large"
    assert call.sent_headers["faregate-attempts"] == "2"
    assert call.sent_headers["faregate-fallbacks-skipped"] == "forbidden"


async def test_a_request_is_counted_once_however_many_attempts_it_takes(doubles: given.Doubles, ask: Ask) -> None:
    doubles.directory.now = given.policy(
        models=[given.model("small", fallbacks=("large",)), given.model("large")],
        plans=[given.plan(budgets=(Budget("calls", "requests", 10),))],
    )
    doubles.provider.answers = [UpstreamFailed("unknown", "timeout", "Slow.")]
    await serve(ask(), doubles.house)
    assert [s.amounts for _, s in doubles.budgets.settled] == [(1,), ()]


async def test_nothing_falls_back_once_the_client_has_a_byte(doubles: given.Doubles, ask: Ask) -> None:
    """A broken stream ends with the wire's own error, never with a forged ending of the answer."""
    doubles.directory.now = given.policy(models=[given.model("small", fallbacks=("large",)), given.model("large")])
    broken = UpstreamFailed("unknown", "reset", "Gone.")
    doubles.provider.answers = [
        given.FakeAnswer([b"a", broken], streamed=True, usage=Usage(7, 2, source="estimated"))
    ]
    call = ask(stream=True)
    await serve(call, doubles.house)
    assert [verb for verb, _ in call.wrote] == ["begin", "write", "end"]
    [event] = doubles.budgets.events()
    assert (event["status"], event["usage_source"], event["output_tokens"]) == ("failed", "estimated", 2)
    assert len(doubles.provider.sent) == 1


async def test_a_settle_that_redis_did_not_take_is_spooled(doubles: given.Doubles, ask: Ask) -> None:
    """The answer goes out all the same: what was used is safe on disk."""
    doubles.budgets.fails = StoreAway()
    call = ask()
    await serve(call, doubles.house)
    assert call.wrote == [("answer", b"{}")]
    assert [verb for verb, _ in doubles.spool.kept] == ["settle"]


async def test_a_client_that_left_before_sending_costs_nothing(doubles: given.Doubles, ask: Ask) -> None:
    call = ask()
    call.gone = True
    await serve(call, doubles.house)
    assert doubles.provider.sent == []
    assert [verb for verb, _ in doubles.budgets.settled] == ["release"]


def watching(act: Any, see: Callable[[], None]) -> Any:
    async def wrapped(settlement: Any) -> Any:
        see()
        return await act(settlement)

    return wrapped
