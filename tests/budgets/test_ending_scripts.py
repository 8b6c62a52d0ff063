"""settle.lua, release.lua, expire.lua and extend.lua, case by case: the ways in which an attempt ends."""

from __future__ import annotations

import json
from typing import Any

import pytest
from books import KEYS, LEASE_US, NOW_US, SHARD, Books, counter, reservation, settlement
from redis.asyncio import Redis

from proxy.budgets import scripts
from proxy.budgets.hot_connection import HotConnection
from proxy.budgets.scripts import StoreRefused
from proxy.domain.reservations import Held
from proxy.gateway.ports import OverdueReservation

TOKENS, COST = counter("tokens", 100), counter("cost_usd", 100)


def charge(of: Any, amount: int) -> dict[str, Any]:
    return {
        "budget_id": of.budget.id,
        "window_start": of.starts_us,
        "grant_id": None,
        "counter": of.name,
        "amount": amount,
    }


def overdue(observed: int = 0) -> OverdueReservation:
    return OverdueReservation("req_1:1", SHARD, NOW_US, observed, (10,), b"{}")


@pytest.mark.parametrize("actual", [0, 7, 10, 25])
async def test_a_settle_charges_what_was_used_and_writes_the_event_with_it(books: Books, actual: int) -> None:
    """Less, as much and more than was held: the provider has billed it, so it is charged."""
    await books.budgets.reserve(reservation("req_1:1", (TOKENS, 10), (COST, 20)))
    settled = await books.budgets.settle(settlement("req_1:1", (TOKENS, actual), (COST, 5)))
    assert (settled.outcome, settled.seq, settled.now_us) == ("settled", 1, NOW_US)
    assert await books.balance(TOKENS) == (actual, 0)
    assert await books.balance(COST) == (5, 0)
    (event,) = await books.events()
    assert json.loads(event.pop("charged")) == [charge(TOKENS, actual), charge(COST, 5)]
    expected = {"event": '{"id": "req_1:1"}', "kind": "terminal", "seq": "1", "late": "0", "disputed": "0"}
    assert event == expected | {"prior": "0,0,0"}
    for key in (KEYS.held, KEYS.leases, KEYS.observed, KEYS.holding("acme")):
        assert not await books.redis.exists(key)
    assert 3_590 < await books.redis.ttl(KEYS.done("req_1:1")) <= 3_600


async def test_a_settle_counts_once(books: Books) -> None:
    """Whatever is sent again after a lost reply or from a spool must not be billed again."""
    await books.budgets.reserve(reservation())
    await books.budgets.settle(settlement())
    again = await books.budgets.settle(settlement())
    assert (again.outcome, again.seq) == ("duplicate", 1)
    assert await books.balance(TOKENS) == (7, 0)
    assert len(await books.events()) == 1


async def test_another_usage_for_a_settled_reference_is_recorded_once_and_charges_nothing(books: Books) -> None:
    """Two truths about one call are for people to look at; the first one stands meanwhile."""
    await books.budgets.reserve(reservation())
    await books.budgets.settle(settlement())
    other = settlement("req_1:1", (TOKENS, 90), usage=(80, 10, 5))
    outcomes = [(await books.budgets.settle(s)).outcome for s in (other, other, settlement())]
    assert outcomes == ["conflict", "duplicate", "duplicate"]
    assert await books.balance(TOKENS) == (7, 0)
    _, disputed = await books.events()
    assert (disputed["kind"], disputed["disputed"], disputed["late"]) == ("correction", "1", "0")
    assert (disputed["charged"], disputed["prior"], disputed["seq"]) == ("[]", "4,3,1000", "2")


async def test_a_settle_after_expiry_corrects_what_the_orphan_was_charged(books: Books) -> None:
    """A worker that was only slow brings the truth, and the customer pays no more than that."""
    await books.budgets.reserve(reservation())
    await books.turn_clock(NOW_US + LEASE_US)
    orphan = settlement("req_1:1", (TOKENS, 10), usage=(9, 1, 2_000))
    assert (await books.budgets.expire(overdue(), orphan)).outcome == "settled"
    assert await books.balance(TOKENS) == (10, 0)
    late = await books.budgets.settle(settlement())
    assert (late.outcome, late.seq) == ("late", 2)
    assert await books.balance(TOKENS) == (7, 0)
    terminal, correction = await books.events()
    assert json.loads(terminal["charged"]) == [charge(TOKENS, 10)]
    assert (correction["kind"], correction["late"], correction["prior"]) == ("correction", "1", "9,1,2000")
    assert json.loads(correction["charged"]) == [charge(TOKENS, -3)]
    assert (await books.budgets.settle(settlement())).outcome == "duplicate"


async def test_a_settle_after_release_is_charged_in_full(books: Books) -> None:
    """The release was wrong about the upstream: it has billed, and refusing would lose that."""
    await books.budgets.reserve(reservation())
    await books.budgets.release(settlement("req_1:1", (TOKENS, 0)))
    assert (await books.budgets.settle(settlement())).outcome == "late"
    assert await books.balance(TOKENS) == (7, 0)


@pytest.mark.parametrize("barred", [False, True])
async def test_a_reference_that_redis_does_not_know_changes_nothing(books: Books, barred: bool) -> None:
    """It goes by way of the spool and the ledger, which never forgets one."""
    if barred:
        await books.budgets.release(settlement())
    before = await books.everything()
    assert (await books.budgets.settle(settlement())).outcome == "unknown"
    assert await books.everything() == before


async def test_a_release_gives_everything_back_and_says_so_once(books: Books) -> None:
    """Every attempt that was admitted has one terminal event, those that came to nothing too."""
    await books.budgets.reserve(reservation("req_1:1", (TOKENS, 10), (COST, 0)))
    nothing = settlement("req_1:1", (TOKENS, 0), (COST, 0))
    outcomes = [(await books.budgets.release(nothing)).outcome for _ in range(2)]
    assert outcomes == ["released", "duplicate"]
    assert await books.balance(TOKENS) == (0, 0)
    (event,) = await books.events()
    assert json.loads(event["charged"]) == [charge(TOKENS, 0), charge(COST, 0)]
    assert (event["kind"], event["prior"]) == ("terminal", "0,0,0")


async def test_a_release_of_the_unknown_leaves_a_tombstone_and_no_event(books: Books) -> None:
    """Its reserve may still be on the way; nothing was ever held, so there is nothing to report."""
    assert (await books.budgets.release(settlement("req_8:1"))).outcome == "tombstone"
    assert (await books.budgets.release(settlement("req_8:1"))).outcome == "duplicate"
    assert await books.events() == []
    assert 3_590 < await books.redis.ttl(KEYS.done("req_8:1")) <= 3_600


async def test_an_extend_renews_what_is_held_and_names_what_is_not(books: Books) -> None:
    """A stream longer than its lease must not be swept while it runs."""
    await books.budgets.reserve(reservation())
    await books.turn_clock(NOW_US + LEASE_US - 1)
    assert await books.budgets.extend(SHARD, {"req_1:1": 40, "lost:1": 3}) == {"lost:1"}
    assert await books.redis.zscore(KEYS.leases, "req_1:1") == NOW_US + 2 * LEASE_US - 1
    assert await books.redis.hgetall(KEYS.observed) == {b"req_1:1": b"40"}
    await books.budgets.extend(SHARD, {"req_1:1": 12})
    assert await books.redis.hgetall(KEYS.observed) == {b"req_1:1": b"40"}


async def test_more_reservations_than_one_script_takes_are_extended_in_batches(books: Books) -> None:
    """A worker with a thousand streams must not hold up everybody else's calls."""
    for n in range(230):
        await books.budgets.reserve(reservation(f"req_{n}:1", (TOKENS, 0)))
    await books.turn_clock(NOW_US + 1)
    observed = {f"req_{n}:1": n for n in range(240)}
    assert await books.budgets.extend(SHARD, observed) == {f"req_{n}:1" for n in range(230, 240)}
    assert await books.redis.zcount(KEYS.leases, NOW_US + 1 + LEASE_US, "+inf") == 230


async def test_what_is_overdue_is_found_with_all_that_the_sweeper_needs(books: Books) -> None:
    """The process that knew the attempt is gone: what Redis kept is all there is to write the event from."""
    await books.budgets.reserve(reservation())
    await books.budgets.extend(SHARD, {"req_1:1": 4})
    await books.turn_clock(NOW_US + LEASE_US - 1)
    assert await books.budgets.overdue(SHARD, 10) == []
    await books.turn_clock(NOW_US + LEASE_US)
    expected = OverdueReservation("req_1:1", SHARD, NOW_US, 4, (10,), b'{"model":"a|b"}', (TOKENS.name,))
    assert await books.budgets.overdue(SHARD, 10) == [expected]


@pytest.mark.parametrize(("after_us", "observed", "outcome"), [
    (LEASE_US, 4, "settled"),
    (LEASE_US - 1, 4, "duplicate"),
    (LEASE_US, 3, "duplicate"),
])  # fmt: skip
async def test_only_what_is_still_overdue_and_was_seen_whole_expires(
    books: Books, after_us: int, observed: int, outcome: str
) -> None:
    """Between looking and sweeping a worker may come back; then the sweeper's sum is wrong."""
    await books.budgets.reserve(reservation())
    await books.budgets.extend(SHARD, {"req_1:1": 4})
    await books.turn_clock(NOW_US + after_us)
    settled = await books.budgets.expire(overdue(observed), settlement("req_1:1", (TOKENS, 8)))
    assert settled.outcome == outcome
    assert await books.balance(TOKENS) == ((8, 0) if outcome == "settled" else (0, 10))
    assert len(await books.events()) == (outcome == "settled")
    assert await books.redis.exists(KEYS.observed) == (outcome == "duplicate")


async def test_what_has_expired_expires_once(books: Books) -> None:
    """Two keepers may sweep the same shard for a moment."""
    await books.budgets.reserve(reservation())
    await books.turn_clock(NOW_US + LEASE_US)
    for outcome in ("settled", "duplicate"):
        assert (await books.budgets.expire(overdue(), settlement())).outcome == outcome
    assert await books.balance(TOKENS) == (7, 0)
    assert await books.budgets.overdue(SHARD, 10) == []


@pytest.mark.parametrize("bad", ["nan", "-1", "007", "1.5", "1e3", "", str(2**53)])
async def test_an_amount_that_is_no_integer_is_refused_without_a_write(books: Books, bad: str) -> None:
    """There is no rollback: what fails in the middle of the writes leaves half a settle behind."""
    await books.budgets.reserve(reservation())
    before = await books.everything()
    for name, script, keys, arguments in _raw_endings():
        for position in {"settle": (1, 5, 7), "release": (1,), "expire": (1, 3, 6), "extend": (1, 2, 4)}[name]:
            changed = [bad if n == position else argument for n, argument in enumerate(arguments)]
            with pytest.raises(StoreRefused, match="BADARG"):
                await script.run(books.connection, keys, changed)
    assert await books.everything() == before


async def test_usage_must_be_three_integers(books: Books) -> None:
    """Corrections are worked out from it, long after whoever wrote it is gone."""
    await books.budgets.reserve(reservation())
    before = await books.everything()
    for position, script, keys, arguments in (
        (3, *_raw_endings()[0][1:]),
        (4, *_raw_endings()[2][1:]),
    ):
        for bad in ("", "1,2", "1,2,-3", "1,2,3,4", "a,b,c"):
            changed = [bad if n == position else argument for n, argument in enumerate(arguments)]
            with pytest.raises(StoreRefused, match="BADARG usage"):
                await script.run(books.connection, keys, changed)
    assert await books.everything() == before


async def test_an_ending_for_other_counters_than_were_held_is_refused(books: Books) -> None:
    """Charging some of them would leave the others held for ever."""
    await books.budgets.reserve(reservation("req_1:1", (TOKENS, 10), (COST, 10)))
    await books.turn_clock(NOW_US + LEASE_US)
    before = await books.everything()
    for end in (books.budgets.settle, books.budgets.release):
        with pytest.raises(StoreRefused, match="another number of counters"):
            await end(settlement())
    with pytest.raises(StoreRefused, match="another number of counters"):
        await books.budgets.expire(overdue(), settlement())
    assert await books.everything() == before


async def test_a_full_store_takes_no_reservation_and_every_ending(start_valkey: Any) -> None:
    """What is under way must be booked though memory is short: booking it is what frees memory."""
    server = start_valkey()
    connection = HotConnection(server.url)
    await connection.start()
    redis: Redis = Redis.from_url(server.url)
    books = Books(redis, connection)
    await books.open()
    for n in (1, 2, 3):
        assert isinstance(await books.budgets.reserve(reservation(f"req_{n}:1")), Held)
    await redis.config_set("maxmemory", 1)
    with pytest.raises(StoreRefused, match="OOM"):
        await books.budgets.reserve(reservation("req_4:1"))
    assert await books.balance(TOKENS) == (0, 30)
    assert (await books.budgets.settle(settlement("req_1:1"))).outcome == "settled"
    assert (await books.budgets.release(settlement("req_2:1", (TOKENS, 0)))).outcome == "released"
    assert await books.budgets.extend(SHARD, {"req_3:1": 1}) == frozenset()
    await redis.config_set("maxmemory", 0)
    await books.turn_clock(NOW_US + LEASE_US)
    await redis.config_set("maxmemory", 1)
    swept = OverdueReservation("req_3:1", SHARD, NOW_US, 1, (10,), b"{}")
    assert (await books.budgets.expire(swept, settlement("req_3:1"))).outcome == "settled"
    assert await books.balance(TOKENS) == (14, 0)
    await connection.close()
    await redis.aclose()


def _raw_endings() -> list[tuple[str, scripts.Script, list[str], list[Any]]]:
    ending = [KEYS.holding("acme"), KEYS.held, KEYS.leases, KEYS.observed, KEYS.done("req_1:1"), KEYS.events]
    of = KEYS.counter(TOKENS.name)
    rates = [KEYS.shard, KEYS.rates("acme"), *ending, of]
    expiring = [KEYS.shard, *ending, of]
    head = '{"amount":'
    return [
        ("settle", scripts.SETTLE, rates, ["epoch-1", 0, "req_1:1", "1,2,3", "9", 1, "{}", 7, head]),
        ("release", scripts.RELEASE, rates, ["epoch-1", 0, "req_1:1", "{}", head]),
        (
            "expire",
            scripts.EXPIRE,
            expiring,
            ["epoch-1", 0, "req_1:1", 0, "1,2,3", "{}", 7, head],
        ),
        ("extend", scripts.EXTEND, [KEYS.shard, KEYS.leases, KEYS.observed], ["epoch-1", 0, 60, "req_1:1", 4]),
    ]
