"""For whom a call was is in each of its events, also in that of an attempt which nobody lived to finish."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gateway_doubles as given
import orjson
import pytest

from proxy.domain.refusals import Refused
from proxy.domain.requests import READERS
from proxy.gateway.journey import serve
from proxy.gateway.ports import OverdueReservation, StoreAway, UpstreamFailed
from proxy.gateway.retries import RetryRule
from proxy.gateway.sweep import orphaned

BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {},
    "/v1/responses": {"input": "hello"},
    "/v1/messages": {"max_tokens": 9},
    "/v1/messages/count_tokens": {},
    "/v1/completions": {"prompt": "hello"},
    "/v1/embeddings": {"input": "hello"},
}
SAID = {
    "faregate-user-id": "anna@example.com",
    "faregate-anonymous-id": "a-1",
    "faregate-run-id": "r-1",
    "faregate-step": "s-1",
}
KEPT = ("digested", "a-1", "r-1", "s-1")


def told(event: dict[str, Any]) -> tuple[Any, ...]:
    return event["user_id"], event["anonymous_id"], event["run_id"], event["step"]


@pytest.fixture(params=READERS)
def call(request: pytest.FixtureRequest, ask: Callable[..., Any]) -> Any:
    call = ask(**BODIES[request.param])
    call.endpoint, call.headers = request.param, SAID
    return call


async def test_a_retry_a_fallback_and_what_failed_before_them(doubles: given.Doubles, call: Any) -> None:
    """Three attempts, three events."""
    models = [given.model("small", fallbacks=("spare",)), given.model("spare")]
    doubles.directory.now = given.policy(models=models, plans=[given.plan(budgets=())])
    doubles.retries["up"] = RetryRule(1, 60)
    failed = UpstreamFailed("unsent", "upstream_unreachable", "x")
    doubles.provider.answers = [failed, failed]
    await serve(call, doubles.house)
    events = doubles.budgets.events()
    assert [(event["model_served"], event["status"]) for event in events] == [
        ("small", "failed"),
        ("small", "failed"),
        ("spare", "succeeded"),
    ]
    assert {told(event) for event in events} == {KEPT}


async def test_an_orphan(doubles: given.Doubles, call: Any) -> None:
    """The sweeper knows of it by what was written down with the reservation."""
    doubles.directory.now = given.policy(plans=[given.plan(budgets=())])
    await serve(call, doubles.house)
    [reservation] = doubles.budgets.reserved
    overdue = OverdueReservation(reservation.ref, reservation.shard, given.NOW_US, 0, (), reservation.record)
    event = orjson.loads(orphaned(overdue).event)
    assert (event["status"], told(event)) == ("orphaned", KEPT)


async def test_what_waits_on_disk(doubles: given.Doubles, call: Any) -> None:
    doubles.directory.now = given.policy(plans=[given.plan(budgets=())])
    doubles.budgets.fails = StoreAway(True)
    await serve(call, doubles.house)
    [(_, settlement)] = doubles.spool.kept
    assert told(orjson.loads(settlement.event)) == KEPT


async def test_what_was_never_answered(doubles: given.Doubles, call: Any) -> None:
    doubles.directory.now = given.policy(plans=[given.plan(budgets=())])
    doubles.provider.answers = [UpstreamFailed("unknown", "upstream_timeout", "x")]
    with pytest.raises(Refused):
        await serve(call, doubles.house)
    assert [told(event) for event in doubles.budgets.events()] == [KEPT]
