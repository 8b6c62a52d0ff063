"""The sweeper ends what nobody finished, charges what DESIGN 4 says, and never spins on what does not end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import gateway_doubles as given
import orjson

from proxy.domain.bounds import Bounds
from proxy.domain.policy import Budget, RateLimits
from proxy.domain.reservations import Counter, Hold, Settled, Settlement, Source
from proxy.gateway.ports import OverdueReservation
from proxy.gateway.records import record
from proxy.gateway.standing import Standing
from proxy.gateway.sweep import BATCH, Sweeper, orphaned

COUNTERS = tuple(
    Counter(f"acme/customer/{meter}/{meter}/P1M/0", Budget(meter, meter, 10**9), 0, 10**18)
    for meter in ("tokens", "input_tokens", "output_tokens", "requests", "cost_usd")
)


def overdue(observed: int = 7) -> OverdueReservation:
    event = {"customer_id": "acme", "request_id": "req_1", "attempt": 0, "held": [{"amount": 1} for _ in COUNTERS]}
    plan = given.plan(rate_limits=RateLimits(tokens_per_minute=1000))
    standing = Standing("", given.identity(), given.policy(plans=[plan]))
    holds = tuple(Hold(counter, 1) for counter in COUNTERS)
    kept = record(event, standing, Bounds(100, 50, 1, 1, given.PRICE), holds)
    return OverdueReservation("req_1:0", 3, given.NOW_US, observed, (1, 1, 1, 1, 1), kept)


def test_an_orphan_is_charged_its_input_bound_and_what_was_observed_of_its_output() -> None:
    settlement = orphaned(overdue())
    assert settlement.amounts == (107, 100, 7, 1, 20)  # 100 x 0.15 + 7 x 0.60 = 19.2 microdollars, rounded up
    event = orjson.loads(settlement.event)
    assert (event["status"], event["usage_source"], event["billable"]) == ("orphaned", "estimated", False)
    assert (event["input_tokens"], event["output_tokens"], event["cost_usd"]) == (100, 7, "0.0000192")


def test_an_orphan_says_what_was_held_at_last() -> None:
    """A rolling hold is raised while its record stays as it was written at admission."""
    settlement = orphaned(replace(overdue(), amounts=(300, 100, 200, 1, 40)))
    assert [held["amount"] for held in orjson.loads(settlement.event)["held"]] == [300, 100, 200, 1, 40]


def test_an_orphan_of_several_sources_is_ended_on_those_that_it_was_held_on() -> None:
    """Its record was written before anybody knew on which counter of its user it would be held."""
    plan = Source("acme/user:u/b/tokens/P1M/0", 9, 0, 10**18, None)
    grant = Source("acme/user:u/b/tokens/grant:g/-", 5, 0, None, "g")
    budget = Budget("b", "tokens", 9, per="user", rollover_max=4)
    shared = Counter(
        "acme/user:-/b/tokens/P1M/0",
        budget,
        0,
        10**18,
        tuple(replace(source, name=source.name.replace("user:u", "user:-")) for source in (grant, plan)),
    )
    own = Counter(plan.name, budget, 0, 10**18, (grant, plan), (), shared)
    standing = Standing("", given.identity(), given.policy())
    kept = record({"customer_id": "acme"}, standing, Bounds(100, 50, 1, 1, None), (Hold(own, 150),))
    left = OverdueReservation("req_1:0", 3, given.NOW_US, 7, (5, 145), kept, shared.names)
    settlement = orphaned(left)
    assert settlement.counters[0].sources == shared.sources
    assert settlement.counters[0].budget.rollover_max == 4
    assert (settlement.amounts, settlement.parts) == ((107,), ((5, 145),))
    held = orjson.loads(settlement.event)["held"]
    assert [(row["grant_id"], row["amount"]) for row in held] == [("g", 5), (None, 145)]
    assert orphaned(replace(left, names=own.names)).counters[0].sources == own.sources


class Shards:
    """Always as many overdue as are asked for; `outcome` says what becomes of each."""

    def __init__(self, outcome: str) -> None:
        self.outcome = outcome
        self.looks = 0

    async def overdue(self, shard: int, most: int) -> Sequence[OverdueReservation]:
        self.looks += 1
        return [overdue()] * (most if self.looks < 4 else 0)

    async def expire(self, reservation: OverdueReservation, settlement: Settlement) -> Settled:
        return Settled(self.outcome, 1, given.NOW_US)  # type: ignore[arg-type]


async def test_a_closed_shard_is_left_alone_until_the_next_round() -> None:
    shards = Shards("closed")
    assert await Sweeper(shards, 1, given.FakeMeters()).sweep() == 0
    assert shards.looks == 1


async def test_a_backlog_is_swept_batch_after_batch() -> None:
    shards = Shards("settled")
    sweeper = Sweeper(shards, 1, given.FakeMeters())
    assert await sweeper.sweep() == sweeper.expired == 3 * BATCH
