"""Budgets of several sources, on a real store: what burns first, what goes beyond, who pays, who is paid back."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from books import KEYS, LEASE_US, NOW_US, SHARD, Books, reservation, settlement

from proxy.budgets.recovery import Recovery
from proxy.budgets.restoring import ShardBooks
from proxy.domain.policy import Budget
from proxy.domain.reservations import (
    Balance,
    Counter,
    Exceeded,
    Held,
    Hold,
    LiveReservation,
    Source,
    ToppedUp,
    TopUp,
)
from proxy.gateway.ports import OverdueReservation

DAY_US = 86_400_000_000
DAY = NOW_US // DAY_US * DAY_US
BASE = "acme/customer/b/tokens/"
PLAN, FIRST, LAST = f"{BASE}P1D/{DAY}", f"{BASE}grant:first/-", f"{BASE}grant:last/{DAY + 9 * DAY_US}"


def budget(**terms: Any) -> Budget:
    return Budget("b", "tokens", 100, "P1D", **terms)


def three(**terms: Any) -> Counter:
    """30 of a grant, then the plan's 100, then 50 of another grant."""
    sources = (
        Source(FIRST, 30, 0, None, "first"),
        Source(PLAN, 100, DAY, DAY + DAY_US, None),
        Source(LAST, 50, 0, DAY + 9 * DAY_US, "last"),
    )
    return Counter(PLAN, budget(**terms), DAY, DAY + DAY_US, sources)


async def used(books: Books) -> tuple[int, ...]:
    found = [await books.redis.hget(KEYS.counter(name), "used") for name in (FIRST, PLAN, LAST)]
    return tuple(int(amount or 0) for amount in found)


async def held(books: Books) -> tuple[int, ...]:
    found = [await books.redis.hget(KEYS.counter(name), "held") for name in (FIRST, PLAN, LAST)]
    return tuple(int(amount or 0) for amount in found)


@pytest.mark.parametrize(
    ("asked", "terms", "parts"),
    [
        (0, {}, (0, 0, 0)),
        (30, {}, (30, 0, 0)),
        (131, {}, (30, 100, 1)),
        (180, {}, (30, 100, 50)),
        (181, {}, None),
        (190, {"overage_limit": 10}, (30, 110, 50)),
        (191, {"overage_limit": 10}, None),
        (5_000, {"hard": False}, (30, 4_920, 50)),
    ],
)
async def test_an_amount_is_held_on_the_sources_in_order_and_what_goes_beyond_on_the_plans(
    books: Books, asked: int, terms: dict[str, Any], parts: tuple[int, ...] | None
) -> None:
    """All or nothing over all sources: never an overshoot, never a half-made hold."""
    before = await books.everything()
    reply = await books.budgets.reserve(reservation("req_1:1", (three(**terms), asked)))
    if parts is None:
        left = 180 + terms.get("overage_limit", 0)
        assert reply == Exceeded(NOW_US, (Balance(0, 0, 80, left),))
        assert await books.everything() == before
    else:
        assert reply == Held(NOW_US, 0, 0, (Hold(three(**terms), asked, parts),))
        assert await held(books) == parts


@pytest.mark.parametrize(
    ("came_to", "paid"),
    [(0, (0, 0, 0)), (10, (10, 0, 0)), (131, (30, 100, 1)), (200, (30, 120, 50))],
)
async def test_a_settle_burns_in_order_and_names_the_grants_that_paid(
    books: Books, came_to: int, paid: tuple[int, ...]
) -> None:
    """Which grant paid is in the event: the customer's receipt for what was bought."""
    await books.budgets.reserve(reservation("req_1:1", (three(), 140)))
    await books.budgets.settle(settlement("req_1:1", (three(), came_to)))
    assert (await used(books), await held(books)) == (paid, (0, 0, 0))
    [event] = await books.events()
    charged = {charge["grant_id"]: charge["amount"] for charge in json.loads(event["charged"])}
    expected = {"first": paid[0], None: paid[1], "last": paid[2]}
    assert charged == {grant: amount for grant, amount in expected.items() if amount or grant is None}


async def test_others_holds_are_never_paid_with(books: Books) -> None:
    """What is held for one call is promised to it, however much another came to."""
    await books.budgets.reserve(reservation("req_1:1", (three(), 30)))
    await books.budgets.reserve(reservation("req_2:1", (three(), 10)))
    await books.budgets.settle(settlement("req_2:1", (three(), 160)))
    assert await used(books) == (0, 110, 50)
    await books.budgets.settle(settlement("req_1:1", (three(), 30)))
    assert await used(books) == (30, 110, 50)


@pytest.mark.parametrize(
    ("came_to", "paid"),
    [(190, (30, 110, 50)), (170, (30, 100, 40)), (135, (30, 100, 5)), (120, (30, 90, 0)), (3, (3, 0, 0))],
)
async def test_a_late_settle_burns_more_or_gives_back_overage_first_and_then_in_reverse(
    books: Books, came_to: int, paid: tuple[int, ...]
) -> None:
    """What was charged for an orphan was a guess; the right amount is charged as if it had been known."""
    await books.budgets.reserve(reservation("req_1:1", (three(), 100)))
    await books.turn_clock(NOW_US + LEASE_US)
    overdue = OverdueReservation("req_1:1", SHARD, NOW_US, 0, (30, 70, 0), b"{}")
    await books.budgets.expire(overdue, settlement("req_1:1", (three(), 185)))
    assert await used(books) == (30, 105, 50)
    late = settlement("req_1:1", (three(), came_to), usage=(9, 9, 9))
    assert (await books.budgets.settle(late)).outcome == "late"
    assert await used(books) == paid
    charged = [json.loads(event["charged"]) for event in await books.events()]
    by_name = {name: sum(c["amount"] for part in charged for c in part if c["counter"] == name) for name in
               (FIRST, PLAN, LAST)}  # fmt: skip
    assert tuple(by_name.values()) == paid, "I4: what Redis counts is what the events were charged"


async def test_a_top_up_goes_on_where_the_hold_had_ended(books: Books) -> None:
    reply = await books.budgets.reserve(reservation("req_1:1", (three(overage_limit=5), 20)))
    assert isinstance(reply, Held)
    raised = await books.budgets.top_up(TopUp("req_1:1", SHARD, (Hold(three(overage_limit=5), 185),), 3))
    assert isinstance(raised, ToppedUp)
    assert raised.holds == (Hold(three(overage_limit=5), 185, (30, 105, 50)),)
    more = await books.budgets.top_up(TopUp("req_1:1", SHARD, (Hold(three(overage_limit=5), 186),), 3))
    assert more == Exceeded(NOW_US, (Balance(0, 185, 80, 0),))


async def test_a_release_gives_back_to_every_source(books: Books) -> None:
    await books.budgets.reserve(reservation("req_1:1", (three(), 150)))
    await books.budgets.release(settlement("req_1:1", (three(), 0)))
    assert (await used(books), await held(books)) == ((0, 0, 0), (0, 0, 0))
    [event] = await books.events()
    assert [charge["grant_id"] for charge in json.loads(event["charged"])] == [None]


def of_user(name: str, shared: bool = True, **terms: Any) -> Counter:
    own = f"acme/user:{name}/b/tokens/P1D/{DAY}"
    users = budget(per="user", users_max=2, **terms)
    return Counter(own, users, DAY, DAY + DAY_US, (), (), of_user("-", shared=False, **terms) if shared else None)


async def test_users_beyond_the_bound_share_one_budget_and_known_ones_keep_theirs(books: Books) -> None:
    """Inventing user ids must mint nothing."""
    counted_on = []
    for n, user in enumerate(["ann", "ben", "cid", "dan", "ann"]):
        reply = await books.budgets.reserve(reservation(f"req_{n}:1", (of_user(user), 40)))
        if isinstance(reply, Held):
            assert reply.holds is not None
            counted_on.append(reply.holds[0].counter.name.split("/")[1])
    assert counted_on == ["user:ann", "user:ben", "user:-", "user:-", "user:ann"]
    assert isinstance(await books.budgets.reserve(reservation("req_9:1", (of_user("eve"), 40))), Exceeded)


async def test_a_reserve_whose_reply_was_lost_is_withdrawn_from_the_shared_budget_too(books: Books) -> None:
    """Nobody was told on which counter it is held."""
    for n, user in enumerate(["ann", "ben", "cid"]):
        await books.budgets.reserve(reservation(f"req_{n}:1", (of_user(user), 40)))
    assert await books.balance(of_user("-", shared=False)) == (0, 40)
    await books.budgets.release(settlement("req_2:1", (of_user("cid"), 0)))
    assert await books.balance(of_user("-", shared=False)) == (0, 0)


def rolling(days_on: int, **terms: Any) -> Counter:
    starts = DAY + days_on * DAY_US
    before = tuple(f"{BASE}P1D/{DAY + day * DAY_US}" for day in range(days_on - 1, -1, -1))[:3]
    return Counter(f"{BASE}P1D/{starts}", budget(**terms), starts, starts + DAY_US, (), before)


@pytest.mark.parametrize(
    ("most", "least", "used_first", "days_on", "granted"),
    [
        (60, 0, 30, 1, 60),
        (60, 0, 80, 1, 20),
        (60, 25, 80, 1, 25),
        (60, 0, 100, 1, 0),
        (20, 20, 100, 1, 20),
        (60, 0, None, 0, 0),
        (300, 0, 70, 2, 130),
        (300, 0, 70, 3, 230),
        (160, 0, 70, 3, 160),
    ],
)
async def test_what_a_window_leaves_is_carried_into_the_next(
    books: Books, most: int, least: int, used_first: int | None, days_on: int, granted: int
) -> None:
    """min(max, max(left, min)); a window that nobody has used has left everything, without any job."""
    terms = {"rollover_max": most, "rollover_min": least}
    if used_first is not None:
        await books.budgets.reserve(reservation("req_0:1", (rolling(0, **terms), used_first)))
        await books.budgets.settle(settlement("req_0:1", (rolling(0, **terms), used_first)))
    await books.turn_clock(NOW_US + days_on * DAY_US)
    now = rolling(days_on, **terms)
    refused = await books.budgets.reserve(reservation("req_1:1", (now, 101 + granted)))
    assert refused == Exceeded(NOW_US + days_on * DAY_US, (Balance(0, 0, granted, 100 + granted),))
    assert await books.redis.hget(KEYS.counter(now.name), "carry") is None, "a refusal touches no window"
    assert isinstance(await books.budgets.reserve(reservation("req_2:1", (now, 100 + granted))), Held)
    assert await books.redis.hget(KEYS.counter(now.name), "carry") == b"%d" % granted


async def test_what_was_carried_in_and_not_used_is_carried_on(books: Books) -> None:
    for day, amount, granted in ((0, 30, 0), (1, 120, 60), (2, 1, 40)):
        now = rolling(day, rollover_max=60)
        await books.turn_clock(NOW_US + day * DAY_US)
        await books.budgets.reserve(reservation(f"req_{day}:1", (now, amount)))
        await books.budgets.settle(settlement(f"req_{day}:1", (now, amount)))
        assert await books.redis.hget(KEYS.counter(now.name), "carry") == b"%d" % granted


async def test_what_was_carried_over_pays_before_the_grants_that_follow(books: Books) -> None:
    filled = three(rollover_max=20, rollover_min=20)
    filled = replace(filled, before=(f"{BASE}P1D/{DAY - DAY_US}",))
    await books.budgets.reserve(reservation("req_1:1", (filled, 160)))
    assert await held(books) == (30, 120, 10)
    await books.budgets.settle(settlement("req_1:1", (filled, 155)))
    assert await used(books) == (30, 120, 5)


async def test_a_window_that_was_rebuilt_without_its_carry_finds_it_again(books: Books) -> None:
    """After a loss of data the ledger's sums bring back what was used; the rest follows from it."""
    await books.redis.hset(KEYS.counter(rolling(0).name), mapping={"used": 70, "held": 0})
    await books.redis.hset(KEYS.counter(rolling(1).name), mapping={"used": 120, "held": 0})
    await books.turn_clock(NOW_US + DAY_US)
    reply = await books.budgets.reserve(reservation("req_1:1", (rolling(1, rollover_max=60), 11)))
    assert reply == Exceeded(NOW_US + DAY_US, (Balance(120, 0, 30, 10),))


async def test_a_rebuilt_shard_knows_how_many_users_have_budgets_of_their_own(books: Books) -> None:
    """Else a loss of data would give everybody room for as many users again."""
    restoring = ShardBooks(books.connection, 16)
    await books.redis.flushdb()
    today = await books.redis.time()
    start = today[0] // 86_400 * DAY_US
    names = [f"acme/user:{user}/b/tokens/P1D/{start}" for user in ("ann", "ben", "-")]
    live = LiveReservation("req_1:1", SHARD, "acme", 1, tuple(names[:1]), (5,), "{}")
    await restoring.restore(SHARD, dict.fromkeys(names, 7), 3, "epoch-2", [live])
    shared = await books.redis.hgetall(KEYS.counter(names[2]))
    assert shared == {b"used": b"7", b"held": b"0", b"users": b"2"}


async def test_what_a_rebuild_holds_stays_held_by_the_next_reserve(books: Books) -> None:
    """Its counter has nothing used yet: taking it for a new one would admit twice what the budget allows."""
    await books.redis.hincrby(KEYS.counter(PLAN), "held", 90)
    plain = Counter(PLAN, budget(), DAY, DAY + DAY_US)
    assert isinstance(await books.budgets.reserve(reservation("req_1:1", (plain, 10))), Held)
    assert await books.balance(plain) == (0, 100)
    assert isinstance(await books.budgets.reserve(reservation("req_2:1", (plain, 1))), Exceeded)


async def test_what_only_the_ledger_knows_is_charged_to_the_sources_that_held_it(books: Books) -> None:
    late = settlement("req_1:1", (three(), 60), parts=((30, 10, 0),))
    assert await Recovery(books.connection, 16).charge(late, (30, 30, 0)) == "charged"
    assert await used(books) == (30, 30, 0)
