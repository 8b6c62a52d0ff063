"""Races: 2,000 at once for 100 places, by four workers; and five budgets at once, all or none of them held."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from typing import Any

from chaos_gate import Place, open_place
from chaos_servers import valkey
from chaos_table import Row, Scale
from crowd import Crowd, Shot
from gatehouse import budgets, plan, until

from proxy.budgets.hot_connection import HotConnection
from proxy.budgets.keys import ShardKeys, secret_field
from proxy.budgets.redis_budgets import RedisBudgets
from proxy.domain.policy import Budget, RateLimits
from proxy.domain.reservations import Counter as BudgetCounter
from proxy.domain.reservations import Exceeded, Held, Hold, Reservation, Settlement

PLACES = 100
SHARD = 5


async def racers(scale: Scale, seed: int) -> Row:
    """Each round is a customer that has never called; every answer is held back until all are decided.

    Who is told 503 (a machine that has no time for Redis) has not been decided on, and asks again. A hold whose
    reply was lost is withdrawn a moment later, so a round with a 503 in it may end below the limit, never above.
    """
    rounds, racing = (20, 300) if scale == "small" else (200, 2000)
    dice, seen, against = random.Random(seed), Counter[str](), []
    plans = {"hundred": plan("hundred", [("requests", PLACES)])}
    async with contextlib.AsyncExitStack() as opened:
        place = await opened.enter_async_context(open_place(workers=4, plans=plans, customers=(), lease_s=60))
        crowd, latecomers = [await opened.enter_async_context(Crowd.of(count)) for count in (4, 1)]
        for number in range(rounds):
            secret = await place.gate.customer(f"r{number}", "hundred")
            race = _Race(place, crowd, latecomers, secret, racing)
            await race.run(dice)
            used = (await budgets(place.gate, f"r{number}"))["requests"]
            seen.update(admitted=race.admitted, refused=race.refused, overshoot=max(0, race.admitted - PLACES))
            seen.update({"asked again after 503": race.again, "short of 100": race.admitted < PLACES})
            wanted = race.admitted if race.again and race.admitted < PLACES else PLACES
            if (race.admitted, race.refused, used["used"], used["held"]) != (wanted, racing - wanted, wanted, 0):
                against.append(f"round {number}: {race.admitted} admitted, {race.refused} refused, then {used}")
        against += await place.broken_invariants()
    return Row(f"{racing} at once for {PLACES} places, 4 gate workers", rounds, dict(seen), not against, against)


class _Race:
    """One customer, and all who want its hundred places."""

    def __init__(self, place: Place, crowd: Crowd, latecomers: Crowd, secret: str, racing: int) -> None:
        self._place, self._crowd, self._latecomers = place, crowd, latecomers
        self._secret, self._racing = secret, racing
        self.admitted = self.refused = self.again = 0

    async def run(self, dice: random.Random) -> None:
        upstream = self._place.upstream
        upstream.forget()
        upstream.hold()
        message = [{"role": "user", "content": "x" * dice.randint(1, 40)}]
        shot: Shot = (self._secret, {"model": "small", "max_tokens": 20, "messages": message})
        asking, crowd = self._racing, self._crowd
        while asking:
            before = len(upstream.calls)
            crowd.fire(f"{self._place.gate.url}/v1/chat/completions", [shot] * asking)
            await until(lambda: sum(crowd.statuses.values()) + len(upstream.calls) - before >= asking, 60)  # noqa: B023
            self.refused += crowd.statuses[402]
            asking = asking - crowd.statuses[402] - (len(upstream.calls) - before)
            self.again += asking
            crowd = self._latecomers
            # Everybody has asked once; whoever has to ask again is not held up by those who wait for answers.
            upstream.release()
        self.admitted = len(upstream.calls)
        await until(lambda: self._crowd.statuses[200] + self._latecomers.statuses[200] >= self.admitted, 60)


async def five_budgets(scale: Scale, seed: int) -> Row:
    """At the level of the scripts: reserves with random amounts against five small budgets, and random endings."""
    decisions = 4_000 if scale == "small" else 100_000
    async with valkey("--appendonly", "no") as server:
        connection = HotConnection(server.url, deadline_s=10)
        await connection.start()
        try:
            shard = _Shard(RedisBudgets(connection, 16), connection, random.Random(seed))
            await shard.open()
            await shard.decide(decisions)
            return await shard.row(decisions)
        finally:
            await connection.close()


class _Shard:
    """One customer's five counters in Redis, and beside them what must stand in them."""

    def __init__(self, store: RedisBudgets, connection: HotConnection, dice: random.Random) -> None:
        self._store, self._connection, self._dice = store, connection, dice
        self._counters = [
            BudgetCounter(f"acme:b{n}:0", Budget(f"b{n}", "tokens", dice.randint(1500, 6000)), 0, None)
            for n in range(5)
        ]
        self._held: dict[str, tuple[int, ...]] = {}
        self._used = [0] * 5
        self._keys = ShardKeys(SHARD)
        self.seen = Counter[str]()
        self.against: list[str] = []

    async def open(self) -> None:
        await self._store.open_shards("epoch-1")
        await self._connection.send(("HSET", self._keys.customer("acme"), "rev", 3, secret_field("sec_1"), 0))
        await self._connection.send(("HSET", self._keys.shard, "policy", 2))

    async def decide(self, decisions: int) -> None:
        """A hundred at once, looked into in between and after."""
        for first in range(0, decisions, 100):
            deeds: list[Any] = [self._reserve(f"req_{first + at}:1") for at in range(100)]
            deeds += [self._end(ref) for ref in self._dice.sample(sorted(self._held), len(self._held) // 2)]
            deeds.append(self._look())
            self._dice.shuffle(deeds)
            await asyncio.gather(*deeds)
            if first % 1000 == 0:
                await self._compare()
                await self._empty()

    async def _reserve(self, ref: str) -> None:
        amounts = tuple(self._dice.randint(0, 60) for _ in range(5))
        holds = tuple(Hold(c, a) for c, a in zip(self._counters, amounts, strict=True))
        who = ("acme", SHARD, "sec_1", 3, 2, True)
        reply = await self._store.reserve(Reservation(ref, *who, holds, RateLimits(), 0, b"{}"))
        self.seen[type(reply).__name__.lower()] += 1
        if isinstance(reply, Held):
            self._held[ref] = amounts
        elif isinstance(reply, Exceeded):
            fits = [
                state.used + state.held + a <= c.budget.limit
                for state, a, c in zip(reply.states, amounts, self._counters, strict=True)
            ]
            if all(fits):
                self.against.append(f"{ref} was refused and would have fitted")
        else:
            self.against.append(f"{ref}: {reply}")

    async def _end(self, ref: str) -> None:
        amounts = self._held.pop(ref)
        used = tuple(self._dice.randint(0, amount) for amount in amounts)
        released = self._dice.random() < 0.3
        charged = (0,) * 5 if released else used
        ending = Settlement(
            ref,
            "acme",
            SHARD,
            tuple(self._counters),
            charged,
            0,
            RateLimits(),
            (0, 0, 0),
            b'{"id":"%b"}' % ref.encode(),
        )
        await (self._store.release if released else self._store.settle)(ending)
        self._used = [a + b for a, b in zip(self._used, charged, strict=True)]

    async def _look(self) -> None:
        """The script's own atomic look at the shard, while everybody is at it."""
        for check in (await self._store.inspect(SHARD)).checks:
            if not check.ok:
                self.against.append(f"{check.id}: {check.seen}, not {check.expected}")

    async def _compare(self) -> None:
        for at, counter in enumerate(self._counters):
            said = await self._connection.send(("HMGET", self._keys.counter(counter.name), "used", "held"))
            used, held = (int(value or 0) for value in said)
            wanted = (self._used[at], sum(amounts[at] for amounts in self._held.values()))
            self.seen["half-held"] += held != wanted[1]
            if (used, held) != wanted or used + held > counter.budget.limit:
                self.against.append(f"{counter.name}: {(used, held)}, not {wanted}, of {counter.budget.limit}")

    async def _empty(self) -> None:
        """A new window, as it were: else the budgets would soon be spent and everything denied."""
        await asyncio.gather(*(self._end(ref) for ref in sorted(self._held)))
        for counter in self._counters:
            await self._connection.send(("DEL", self._keys.counter(counter.name)))
        await self._connection.send(("DEL", self._keys.events))
        self._used = [0] * 5

    async def row(self, decisions: int) -> Row:
        await self._compare()
        enough = min(self.seen["held"], self.seen["exceeded"]) > decisions // 20
        if not enough:
            self.against.append(f"too one-sided to prove anything: {dict(self.seen)}")
        counts = {"held": self.seen["held"], "denied": self.seen["exceeded"], "half-held": self.seen["half-held"]}
        return Row("five budgets at once, random denials", decisions, counts, not self.against, self.against)
