"""Where a request goes when its first place is not well: the order, the retries and the rests, told as stories."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import gateway_doubles as given
import pytest

from proxy.domain.policy import Budget, RateLimits, Target
from proxy.domain.refusals import Refusal, Refused
from proxy.domain.reservations import Stale
from proxy.gateway import retries
from proxy.gateway.journey import serve
from proxy.gateway.ports import UpstreamFailed
from proxy.gateway.retries import RetryRule
from proxy.gateway.turns import Turns

Ask = Callable[..., Any]

ONE, TWO = Target("up", "small-one"), Target("other", "small-two")
S = 1_000_000


def failure(status: int | None = 503, kind: str = "refused", **more: Any) -> UpstreamFailed:
    return UpstreamFailed(kind, f"failed_{status or kind}", "It failed.", status=status, **more)  # type: ignore[arg-type]


@pytest.fixture
def two(doubles: given.Doubles) -> given.Doubles:
    """A model with two targets, and a fallback at the second's upstream."""
    doubles.providers["other"] = given.FakeProvider()
    doubles.directory.now = given.policy(
        models=[
            given.model("small", targets=(ONE, TWO), fallbacks=("large",)),
            given.model("large", targets=(Target("other", "large"),)),
        ]
    )
    return doubles


async def refusal_of(call: Any, doubles: given.Doubles) -> Refusal:
    with pytest.raises(Refused) as caught:
        await serve(call, doubles.house)
    return caught.value.refusal


def sent(doubles: given.Doubles) -> list[str]:
    """What each upstream was asked for, by the order of the attempts."""
    all_sent = [dispatch for provider in doubles.providers.values() for dispatch in provider.sent]
    return [dispatch.upstream_model for dispatch in sorted(all_sent, key=lambda dispatch: dispatch.attempt)]


def told(doubles: given.Doubles, *names: str) -> list[tuple[Any, ...]]:
    return [tuple(event[name] for name in names) for event in doubles.budgets.events()]


async def queued(turns: Turns) -> None:
    """Waits until somebody waits."""
    async with asyncio.timeout(5):
        while not turns.waiting:
            await asyncio.sleep(0)


async def rest(doubles: given.Doubles, *targets: Target, outage: bool = False) -> None:
    """These targets fail until they rest, or for so long that it is an outage."""
    for time in range(20 if outage else 5):
        doubles.clock.us += 10 * S if time == 4 else 0
        for target in targets:
            doubles.house.rests.failed(given.trail(), target, failure())
    assert {doubles.house.rests.wait_us(target) for target in targets} == {5 * S}


async def test_the_models_targets_go_before_its_fallbacks(two: given.Doubles, ask: Ask) -> None:
    """The same model elsewhere is what was asked for; another model is second best."""
    two.provider.answers = [failure()]
    two.providers["other"].answers = [failure(500)]
    call = ask()
    await serve(call, two.house)
    assert sent(two) == ["small-one", "small-two", "large"]
    assert told(two, "id", "model_served", "upstream", "fallback_from", "fallback_reason") == [
        ("req_1:0", "small", "up", None, None),
        ("req_1:1", "small", "other", "small", "failed_503"),
        ("req_1:2", "large", "other", "small", "failed_500"),
    ]
    assert call.sent_headers["faregate-attempts"] == "3"
    assert [r.first for r in two.budgets.reserved] == [True, False, False]


async def test_if_every_candidate_failed_the_last_error_is_the_answer(two: given.Doubles, ask: Ask) -> None:
    two.provider.answers = [failure(503)]
    two.providers["other"].answers = [failure(500), failure(529)]
    refusal = await refusal_of(ask(), two)
    assert (refusal.status, refusal.code) == (529, "failed_529")
    assert len(sent(two)) == 3


async def test_what_is_wrong_with_the_request_is_tried_nowhere_else(two: given.Doubles, ask: Ask) -> None:
    two.provider.answers = [failure(400, blame="request")]
    assert (await refusal_of(ask(), two)).status == 400
    assert sent(two) == ["small-one"]


@pytest.mark.parametrize("trouble", ["no key", "endpoint", "unknown upstream"])
async def test_a_target_that_cannot_take_the_call_is_passed_over(
    two: given.Doubles, ask: Ask, trouble: str
) -> None:
    """As long as one is left that can."""
    if trouble == "no key":
        two.provider.configured = False
    elif trouble == "endpoint":
        two.provider.serves = lambda endpoint: False  # type: ignore[method-assign]
    else:
        del two.providers["up"]
    await serve(ask(), two.house)
    assert sent(two) == ["small-two"]
    assert told(two, "attempt", "fallback_from") == [(0, None)]


async def test_where_no_target_can_take_the_call_the_first_ones_trouble_is_told(
    two: given.Doubles, ask: Ask
) -> None:
    two.provider.configured = False
    two.providers["other"].serves = lambda endpoint: False  # type: ignore[method-assign]
    assert (await refusal_of(ask(), two)).code == "upstream_not_configured"
    two.provider.configured, two.provider.serves = True, lambda endpoint: False  # type: ignore[method-assign]
    assert (await refusal_of(ask(), two)).code == "unsupported_endpoint"
    assert two.budgets.reserved == []


async def test_a_pinned_upstream_is_the_only_one(
    two: given.Doubles, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one upstream keeps, no other one knows of: neither first nor after a failure."""

    async def kept(*_: Any) -> str:
        return "other"

    monkeypatch.setattr("proxy.gateway.journey.continue_from", kept)
    two.providers["other"].answers = [failure(), failure()]
    assert (await refusal_of(ask(), two)).status == 503
    assert sent(two) == ["small-two", "large"]


async def test_the_policy_that_is_new_decides_where_it_goes(two: given.Doubles, ask: Ask) -> None:
    """Targets that were taken out of the catalogue a moment ago are not called any more."""
    await serve(ask(), two.house)
    two.directory.now = given.policy(2, models=[given.model("small", targets=(TWO,))])
    two.budgets.replies = [Stale("policy")]
    await serve(ask(), two.house)
    assert [d.upstream_model for d in two.providers["other"].sent] == ["small-two"]


RETRIED = [
    # status, kind, blame                 tried again
    (None, "unsent", "upstream", True),
    (408, "refused", "upstream", True),
    (409, "refused", "upstream", True),
    (429, "refused", "upstream", True),
    (500, "refused", "upstream", True),
    (503, "refused", "upstream", True),
    (529, "refused", "upstream", True),
    (None, "unknown", "upstream", False),
    (429, "refused", "operator", False),
    (401, "refused", "operator", False),
    (400, "refused", "request", False),
    (302, "refused", "operator", False),
]


@pytest.mark.parametrize(("status", "kind", "blame", "again"), RETRIED)
async def test_what_may_pass_is_tried_again(
    doubles: given.Doubles, ask: Ask, status: int | None, kind: Any, blame: Any, again: bool
) -> None:
    """Not what was sent and left unanswered: its input has been charged, and it may be under way still."""
    doubles.retries["up"] = RetryRule(1, 20)
    doubles.provider.answers = [failure(status, kind, blame=blame)]
    call = ask()
    if not again:
        await refusal_of(call, doubles)
        assert (len(doubles.provider.sent), doubles.pauses) == (1, [])
        return
    await serve(call, doubles.house)
    assert call.sent_headers["faregate-attempts"] == "2"
    assert doubles.pauses == [0.25]
    assert doubles.meters.retries == [("up", f"failed_{status or kind}")]
    assert told(doubles, "id", "upstream", "status", "fallback_from", "fallback_reason") == [
        ("req_1:0", "up", "failed", None, None),
        ("req_1:1", "up", "succeeded", None, f"failed_{status or kind}"),
    ]


async def test_retries_are_counted_and_further_apart_each_time(doubles: given.Doubles, ask: Ask) -> None:
    doubles.retries["up"] = RetryRule(5, 20)
    doubles.provider.answers = [failure(500) for _ in range(6)]
    assert (await refusal_of(ask(), doubles)).status == 500
    # The fifth failure has lasted long enough for the target to rest: there is no fifth retry.
    assert doubles.pauses == [0.25, 0.5, 1.0, 2.0]
    assert len(doubles.provider.sent) == 5


async def test_a_request_is_counted_once_however_often_it_is_tried(doubles: given.Doubles, ask: Ask) -> None:
    """Rates, concurrency and the meter `requests` count what the client has sent, not what we make of it."""
    doubles.retries["up"] = RetryRule(2, 20)
    doubles.directory.now = given.policy(
        plans=[given.plan(budgets=(Budget("calls", "requests", 10),), rate_limits=RateLimits(60))]
    )
    doubles.provider.answers = [failure(503), failure(503)]
    await serve(ask(), doubles.house)
    assert [r.first for r in doubles.budgets.reserved] == [True, False, False]
    assert [s.amounts for _, s in doubles.budgets.settled] == [(0,), (0,), (1,)]


async def test_it_is_never_tried_sooner_than_the_upstream_asks(doubles: given.Doubles, ask: Ask) -> None:
    doubles.retries["up"] = RetryRule(1, 20)
    doubles.provider.answers = [failure(429, retry_after_s=7)]
    await serve(ask(), doubles.house)
    assert doubles.pauses == [7.0]


async def test_where_the_upstream_asks_for_longer_than_the_deadline_its_answer_is_passed_on(
    doubles: given.Doubles, ask: Ask
) -> None:
    """The client knows better than we whether it can wait that long."""
    doubles.retries["up"] = RetryRule(1, 20)
    doubles.provider.answers = [failure(429, retry_after_s=21)]
    refusal = await refusal_of(ask(), doubles)
    assert (refusal.status, refusal.retry_after_s, doubles.pauses) == (429, 21, [])


async def test_the_deadline_counts_from_when_the_request_came(doubles: given.Doubles, ask: Ask) -> None:
    doubles.retries["up"] = RetryRule(3, 10)
    doubles.provider.answers = [failure(429, retry_after_s=6), failure(429, retry_after_s=6)]
    assert (await refusal_of(ask(), doubles)).status == 429
    assert doubles.pauses == [6.0]


async def test_another_candidate_that_is_ready_goes_before_a_long_wait(two: given.Doubles, ask: Ask) -> None:
    """Seven seconds of nothing help nobody while the second target stands idle."""
    two.retries["up"] = RetryRule(1, 20)
    two.provider.answers = [failure(429, retry_after_s=7)]
    await serve(ask(), two.house)
    assert (sent(two), two.pauses) == (["small-one", "small-two"], [])


async def test_nothing_is_held_while_a_retry_waits_and_leaving_ends_it(doubles: given.Doubles, ask: Ask) -> None:
    doubles.retries["up"] = RetryRule(1, 20)
    doubles.provider.answers = [failure(503)]
    call = ask()
    held_meanwhile = []

    async def pause(seconds: float, of: Any) -> None:
        held_meanwhile.append(len(doubles.budgets.reserved) - len(doubles.budgets.settled))
        of.gone = True

    doubles.house.pause = pause
    await serve(call, doubles.house)
    assert held_meanwhile == [0]
    assert len(doubles.budgets.reserved) == len(doubles.provider.sent) == 1
    assert doubles.meters.answers[0][2] == 499


async def test_a_pause_ends_when_the_client_leaves(ask: Ask) -> None:
    """And is over at once for one that has left."""
    acts: list[Any] = []
    call = ask()
    call.when_gone = acts.append
    waiting = asyncio.ensure_future(retries.pause(30, call))
    await asyncio.sleep(0)
    acts[0]()
    await asyncio.wait_for(waiting, 1)
    assert acts[-1] is None


async def test_a_retry_that_the_budget_refuses_leaves_the_upstreams_error(
    doubles: given.Doubles, ask: Ask
) -> None:
    """The customer was admitted; that somebody else has spent the rest meanwhile is not why it failed."""
    doubles.retries["up"] = RetryRule(1, 20)
    doubles.provider.answers = [failure(503)]
    doubles.budgets.replies = [given.Held(given.NOW_US, 0, 0), given.exceeded(left=1)]
    refusal = await refusal_of(ask(max_tokens=100), doubles)
    assert (refusal.status, "skipped" in refusal.message) == (503, False)
    assert len(doubles.provider.sent) == 1


async def test_a_target_that_rests_is_passed_over(two: given.Doubles, ask: Ask) -> None:
    """Nothing is sent there; the event says why it went elsewhere, and that nothing had failed in this request."""
    await rest(two, ONE)
    await serve(ask(), two.house)
    assert sent(two) == ["small-two"]
    assert told(two, "attempt", "upstream", "fallback_from", "fallback_reason") == [
        (0, "other", "small", "target_rested")
    ]


async def test_if_the_whole_model_rests_its_fallback_answers(two: given.Doubles, ask: Ask) -> None:
    await rest(two, ONE, TWO)
    call = ask()
    await serve(call, two.house)
    assert sent(two) == ["large"]
    assert told(two, "attempt", "fallback_from", "fallback_reason") == [(0, "small", "target_rested")]
    assert two.budgets.reserved[0].first
    assert "faregate-fallbacks-skipped" not in call.sent_headers


async def test_if_all_candidates_rest_nothing_is_reserved_and_the_shortest_rest_is_told(
    two: given.Doubles, ask: Ask
) -> None:
    await rest(two, Target("other", "large"), outage=True)
    two.clock.us -= 8 * S
    await rest(two, ONE, TWO, outage=True)
    refusal = await refusal_of(ask(), two)
    assert (refusal.status, refusal.code, refusal.reason) == (503, "upstream_resting", "upstream")
    assert refusal.retry_after_s == 3
    assert (two.budgets.reserved, sent(two)) == ([], [])


async def test_short_of_an_outage_the_last_resort_is_tried_in_spite_of_its_rest(
    two: given.Doubles, ask: Ask
) -> None:
    """A gate with one provider is no worse off for the rests; its first success ends them."""
    await rest(two, ONE, TWO, Target("other", "large"))
    two.retries["up"] = RetryRule(3, 20)
    two.provider.answers = [failure(500)]
    call = ask()
    await serve(call, two.house)
    assert (sent(two), two.pauses) == (["small-one", "small-two"], [])
    assert told(two, "attempt", "fallback_reason") == [(0, None), (1, "failed_500")]
    assert "faregate-fallbacks-skipped" not in call.sent_headers
    assert two.house.rests.wait_us(TWO) == 0


async def test_a_refusal_of_the_caller_goes_before_a_rest(doubles: given.Doubles, ask: Ask) -> None:
    """Whose secret was revoked is told that, and not to come again in five seconds."""
    await serve(ask(), doubles.house)
    await rest(doubles, Target("up", "small"), outage=True)
    doubles.directory.who = None
    assert (await refusal_of(ask(), doubles)).status == 401


async def test_after_the_rest_one_probe_goes_there_and_closes_it(two: given.Doubles, ask: Ask) -> None:
    await rest(two, ONE)
    two.clock.us += 5 * S
    await serve(ask(), two.house)
    await serve(ask(), two.house)
    assert sent(two) == ["small-one", "small-one"]
    assert two.meters.rests == [("up", "rested"), ("up", "probed"), ("up", "closed")]
    assert not two.house.rests


async def test_while_a_probe_is_out_others_pass_the_target_over(two: given.Doubles, ask: Ask) -> None:
    await rest(two, ONE)
    two.clock.us += 5 * S
    answered = asyncio.Event()
    honest = two.provider.send

    async def slow(dispatch: Any) -> Any:
        await answered.wait()
        return await honest(dispatch)

    two.provider.send = slow  # type: ignore[method-assign]
    probe = asyncio.ensure_future(serve(ask(), two.house))
    async with asyncio.timeout(5):
        while ("up", "probed") not in two.meters.rests:
            await asyncio.sleep(0)
        await serve(ask(), two.house)
    assert [len(provider.sent) for provider in two.providers.values()] == [0, 1]
    answered.set()
    await probe
    assert [len(provider.sent) for provider in two.providers.values()] == [1, 1]


async def test_a_failed_probe_is_not_tried_again_but_elsewhere(two: given.Doubles, ask: Ask) -> None:
    two.retries["up"] = RetryRule(3, 20)
    await rest(two, ONE)
    two.clock.us += 5 * S
    two.provider.answers = [failure(500)]
    await serve(ask(), two.house)
    assert sent(two) == ["small-one", "small-two"]
    assert two.house.rests.wait_us(ONE) == 10 * S


PROBES = [
    "refused by the budget",
    "client gone before",
    "client gone",
    "the request's own fault",
    "fault in between",
]


@pytest.mark.parametrize("ending", PROBES)
async def test_a_probe_that_tells_nothing_leaves_room_for_the_next(
    doubles: given.Doubles, ask: Ask, ending: str
) -> None:
    """Or the target would be shut out for good."""
    target = Target("up", "small")
    await rest(doubles, target)
    doubles.clock.us += 5 * S
    call = ask(max_tokens=100)
    if ending == "refused by the budget":
        doubles.budgets.replies = [given.exceeded(left=1)]
    elif ending == "client gone before":
        call.gone = True
    elif ending == "client gone":
        honest = doubles.provider.send

        async def leaving(dispatch: Any) -> Any:
            call.gone = True
            return await honest(dispatch)

        doubles.provider.send = leaving  # type: ignore[method-assign]
        doubles.provider.answers = [failure(None, "unknown")]
    elif ending == "the request's own fault":
        doubles.provider.answers = [failure(400, blame="request")]
    else:
        doubles.budgets.replies = [RuntimeError()]
    with contextlib.suppress(Refused, RuntimeError):
        await serve(call, doubles.house)
    assert doubles.house.rests.wait_us(target) == 0
    if ending == "client gone":
        doubles.provider.send = honest  # type: ignore[method-assign]
    await serve(ask(), doubles.house)
    assert not doubles.house.rests


NO_FAULTS = [failure(400, blame="request"), UpstreamFailed("refused", "upstream_conflict", "Busy.", status=409)]


@pytest.mark.parametrize("failed", NO_FAULTS, ids=["400", "409"])
async def test_what_is_no_fault_of_the_target_never_makes_it_rest(
    doubles: given.Doubles, ask: Ask, failed: UpstreamFailed
) -> None:
    for _ in range(20):
        doubles.clock.us += S
        doubles.provider.answers = [failed]
        await refusal_of(ask(), doubles)
    assert not doubles.house.rests


async def test_a_rejected_key_makes_a_target_rest(two: given.Doubles, ask: Ask) -> None:
    """It is the operator's trouble, and lasts: the second target should not wait for the first each time."""
    for _ in range(7):
        two.clock.us += S
        two.provider.answers = [failure(401, blame="operator")]
        await serve(ask(), two.house)
    assert [len(provider.sent) for provider in two.providers.values()] == [5, 7]


@pytest.fixture
def saturated(two: given.Doubles) -> given.Doubles:
    """The first target's upstream takes one call at once, which is under way; nobody may wait for long."""
    two.turns["up"] = Turns("up", 1, 1, 0.02, two.clock, two.meters)
    two.turns["up"].free = 0
    return two


async def test_who_waited_too_long_goes_on_to_the_next_candidate(saturated: given.Doubles, ask: Ask) -> None:
    """Nothing was sent, so nothing is charged, and the retries are for others."""
    saturated.retries["up"] = RetryRule(3, 20)
    await serve(ask(), saturated.house)
    assert sent(saturated) == ["small-two"]
    assert told(saturated, "status", "error_type", "fallback_reason") == [
        ("failed", "upstream_saturated", None),
        ("succeeded", None, "upstream_saturated"),
    ]
    assert saturated.budgets.settled[0][1].amounts == (0,)
    assert not saturated.house.rests


async def test_where_nobody_may_wait_any_more_it_is_passed_over_without_a_reservation(
    saturated: given.Doubles, ask: Ask
) -> None:
    saturated.turns["up"] = Turns("up", 0, 0, 30, saturated.clock, saturated.meters)
    await serve(ask(), saturated.house)
    assert told(saturated, "attempt", "upstream", "fallback_from", "fallback_reason") == [
        (0, "other", "small", "upstream_saturated")
    ]


async def test_where_there_is_no_other_candidate_saturation_is_told(saturated: given.Doubles, ask: Ask) -> None:
    """With a time to come again; whether it was late or found the queue full."""
    saturated.directory.now = given.policy(models=[given.model("small", targets=(ONE,))])
    late = await refusal_of(ask(), saturated)
    saturated.turns["up"] = Turns("up", 0, 0, 30, saturated.clock, saturated.meters)
    full = await refusal_of(ask(), saturated)
    for refusal in (late, full):
        assert (refusal.status, refusal.code) == (503, "upstream_saturated")
        assert refusal.retry_after_s == 5
    assert sent(saturated) == []
    assert [verb for verb, _ in saturated.budgets.settled] == ["release"]


async def test_the_slot_is_kept_until_the_answer_has_ended(doubles: given.Doubles, ask: Ask) -> None:
    """A stream is under way until its last byte, and so is what is read on for nobody."""
    turns = doubles.turns["up"] = Turns("up", 1, 0, 30, doubles.clock, doubles.meters)
    free = []
    call = ask(stream=True)
    doubles.provider.answers = [given.FakeAnswer([b"a", b"b"], streamed=True)]

    async def write(chunk: bytes) -> None:
        free.append(turns.free)

    call.write = write
    await serve(call, doubles.house)
    assert (free, turns.free) == ([0, 0], 1)


@pytest.mark.parametrize("ending", ["failure", "fault", "gone"])
async def test_the_slot_comes_back_however_the_attempt_ends(doubles: given.Doubles, ask: Ask, ending: str) -> None:
    turns = doubles.turns["up"] = Turns("up", 1, 0, 30, doubles.clock, doubles.meters)
    call = ask()
    if ending == "gone":
        call.gone = True
    doubles.provider.answers = [
        failure(400, blame="request") if ending == "failure" else given.FakeAnswer([OSError()])
    ]
    with contextlib.suppress(Refused, OSError):
        await serve(call, doubles.house)
    assert turns.free == 1


async def test_what_it_waited_is_in_the_event_and_not_in_its_latency(doubles: given.Doubles, ask: Ask) -> None:
    turns = doubles.turns["up"] = Turns("up", 1, 1, 30, doubles.clock, doubles.meters)
    turns.free = 0
    waiting = asyncio.ensure_future(serve(ask(), doubles.house))
    await queued(turns)
    assert len(doubles.house.leases) == 1
    doubles.clock.us += 3 * S
    turns.give_back()
    await waiting
    [event] = doubles.budgets.events()
    assert (event["queued_ms"], event["latency_ms"], event["ttft_ms"]) == (3000, 0, 0)
    assert event["finished_at"] - event["admitted_at"] == 3 * S
    assert doubles.meters.waits == ["turn"]
    assert turns.free == 1


async def test_a_client_that_leaves_the_queue_is_released_and_never_sent(doubles: given.Doubles, ask: Ask) -> None:
    turns = doubles.turns["up"] = Turns("up", 1, 1, 30, doubles.clock, doubles.meters)
    turns.free = 0
    call = ask()
    acts: list[Any] = []
    call.when_gone = acts.append
    waiting = asyncio.ensure_future(serve(call, doubles.house))
    await queued(turns)
    call.gone = True
    acts[0]()
    await waiting
    assert told(doubles, "status", "error_type") == [("cancelled", "client_gone")]
    assert (doubles.provider.sent, len(doubles.house.leases), turns.waiting) == ([], 0, 0)
