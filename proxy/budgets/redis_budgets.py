"""Reservations in Redis: one method per script, and the replies decoded into the domain's words.

Every call carries the shard's epoch and the highest `seq` that this process has seen of it. A shard whose
epoch is missing or another one, or whose `seq` lies behind, answers `closed`, and stays so for this process
until `adopt_epochs`: its counters are not to be trusted before somebody has looked.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from proxy.budgets import keys as store_keys
from proxy.budgets import scripts
from proxy.budgets.inspection import Inspection, find_counters, inspect_shard
from proxy.budgets.keys import ShardKeys
from proxy.budgets.reserving import CLOSED, or_dash, reserve_call, reserve_reply
from proxy.budgets.scripts import Argument
from proxy.budgets.sources import ending_texts
from proxy.budgets.top_ups import TOP_UP, top_up_call, top_up_reply
from proxy.budgets.unrecorded import Unrecorded, Verb
from proxy.domain.reservations import (
    Closed,
    Counter,
    Reservation,
    ReserveReply,
    Settled,
    Settlement,
    TopUp,
    TopUpReply,
)
from proxy.gateway.ports import OverdueReservation

FORMAT = "1"
EXTEND_BATCH = 100
REMEMBERED_COUNTERS_MOST = 20_000

# Outcomes that have written an event, which the ledger must get whatever becomes of Redis.
ACKNOWLEDGED = frozenset(("settled", "released", "late", "conflict"))

_OUTCOMES: dict[bytes, Any] = {
    word.encode(): word
    for word in ("settled", "released", "late", "duplicate", "conflict", "unknown", "closed", "tombstone")
}


class WrongShards(Exception):
    """The store was installed otherwise; the message says how, and what to do."""


class _Shard:
    """What this process knows of one shard. `epoch` None: not read yet, or the shard was blank then.

    `suspect`: it answered `closed`, so its epoch is read again before the next call, until it is another one.
    """

    __slots__ = ("epoch", "keys", "seq", "suspect")

    def __init__(self, number: int) -> None:
        self.keys = ShardKeys(number)
        self.epoch: bytes | None = None
        self.seq = 0
        self.suspect = False


class RedisBudgets:
    """`Budgets` and `Sweepable` of the gateway's ports. `lease_s` is how long a hold lives unless extended."""

    def __init__(
        self,
        connection: scripts.Connection,
        shards: int,
        lease_s: float = 60,
        unrecorded: Unrecorded | None = None,
    ) -> None:
        self._connection = connection
        self._unrecorded = unrecorded
        self._shards = [_Shard(number) for number in range(shards)]
        self._lease_us = round(lease_s * 1_000_000)
        self._charge_heads: dict[str, bytes] = {}
        self._vouched = -1

    async def adopt_epochs(self) -> None:
        """Reads every shard's epoch anew and goes by it: at start, and after `closed` replies."""
        await asyncio.gather(*(self._adopt_epoch(shard) for shard in self._shards))

    async def _adopt_epoch(self, shard: _Shard) -> None:
        """A shard without an epoch is not open yet. One with the same epoch and a lower `seq` than we have seen
        was put back to an older state, and stays closed to us until a rebuild gives it another epoch."""
        epoch, seq = await self._connection.send(("HMGET", shard.keys.shard, "epoch", "seq"))
        if epoch is None:
            return
        if epoch == shard.epoch:
            shard.suspect = int(seq or 0) < shard.seq
            shard.seq = max(shard.seq, int(seq or 0))
        else:
            shard.epoch, shard.seq, shard.suspect = epoch, int(seq or 0), False

    async def open_shards(self, epoch: str) -> None:
        """Opens an empty store as a new one: gives `epoch` to shards that have none. Raises `WrongShards`."""
        await self.check_install()
        send = self._connection.send
        await asyncio.gather(*(send(("HSETNX", s.keys.shard, "epoch", epoch)) for s in self._shards))
        await self.adopt_epochs()
        await self.vouch(await self.run_id())

    async def run_id(self) -> bytes:
        """Which server this is, and which life of it."""
        info: bytes = await self._connection.send(("INFO", "server"))
        return next(line[7:] for line in info.split(b"\r\n") if line.startswith(b"run_id:"))

    async def vouch(self, run_id: bytes) -> None:
        """The keeper's word that this life of the server was compared with the ledger and may be reserved on."""
        await self._connection.send(("HSET", store_keys.INSTALL, "vouched", run_id))

    async def _is_vouched(self) -> bool:
        """Whether a keeper has looked at the server behind a new connection. Until then it may be an older state
        that this process cannot tell from a newer one."""
        generation = self._connection.generation
        vouched = await self._connection.send(("HGET", store_keys.INSTALL, "vouched"))
        if vouched is None or vouched != await self.run_id():
            return False
        self._vouched = generation
        return True

    async def check_install(self) -> None:
        """Writes down the number of shards, once; raises `WrongShards` if the store was installed with another:
        every customer's counters would be looked for in another shard than they lie in."""
        send = self._connection.send
        await send(("HSETNX", store_keys.INSTALL, "format", FORMAT))
        await send(("HSETNX", store_keys.INSTALL, "shards", len(self._shards)))
        found = await send(("HMGET", store_keys.INSTALL, "shards", "format"))
        if found[0] != b"%d" % len(self._shards):
            raise WrongShards(
                f"This Redis was installed with redis.shards = {found[0].decode()}, and the settings say"
                f" {len(self._shards)}. The number is fixed at install: set redis.shards = {found[0].decode()},"
                " or point redis.url at a Redis of its own."
            )
        if found[1] != FORMAT.encode():
            raise WrongShards(
                f"This Redis holds format {found[1].decode()} of Faregate's keys, and this version reads format"
                f" {FORMAT}. Run the version that wrote it, or point redis.url at a Redis of its own."
            )

    async def inspect(self, shard: int, counters: Iterable[str] | None = None) -> Inspection:
        """Checks the invariants of one shard: balances, conservation and leases (reservation.md 3.5).

        `counters`: the keys of its counters by `find_counters`; looked for here if they are not given.
        """
        return await inspect_shard(self._connection, self._shards[shard].keys, self._lease_us, counters)

    async def find_counters(self) -> dict[int, set[str]]:
        """The keys of every counter, by shard."""
        return await find_counters(self._connection, (shard.keys for shard in self._shards))

    async def _known(self, number: int) -> _Shard | None:
        """The shard, its epoch read on first use; None while it has none, or nobody vouches for its server."""
        shard = self._shards[number]
        if self._vouched != self._connection.generation and not await self._is_vouched():
            return None
        if shard.epoch is None or shard.suspect:
            await self._adopt_epoch(shard)
        return None if shard.epoch is None else shard

    def _is_in_doubt(self, shard: _Shard) -> bool:
        """Whether something has to be read before the shard may be used: the hot path's one look."""
        return shard.epoch is None or shard.suspect or self._vouched != self._connection.generation

    def seqs(self) -> dict[int, int]:
        """The highest `seq` of each shard that this process has seen."""
        return {number: shard.seq for number, shard in enumerate(self._shards) if shard.seq}

    async def is_vouched(self) -> bool:
        """Whether what Redis says just now may be believed."""
        return self._vouched == self._connection.generation or await self._is_vouched()

    async def reserve(self, reservation: Reservation) -> ReserveReply:
        """Holds every amount or none. Raises `StoreAway`: the outcome is unknown then, so release it."""
        shard = self._shards[reservation.shard]
        if self._is_in_doubt(shard) and await self._known(reservation.shard) is None:
            return CLOSED
        call = reserve_call(shard.keys, cast(bytes, shard.epoch), shard.seq, self._lease_us, reservation)
        reply = reserve_reply(shard.keys.counters, reservation, await scripts.RESERVE.run(self._connection, *call))
        shard.suspect = shard.suspect or reply is CLOSED
        return reply

    async def settle(self, settlement: Settlement) -> Settled:
        """Charges what was really used and writes the usage event; idempotent by reference."""
        shard = self._shards[settlement.shard]
        if self._is_in_doubt(shard) and await self._known(settlement.shard) is None:
            return _NEVER_OPENED
        arguments: list[Argument] = [
            cast(bytes, shard.epoch),
            shard.seq,
            settlement.ref,
            _usage_text(settlement),
            or_dash(settlement.limits.tokens_per_minute),
            settlement.rate_tokens,
            settlement.event,
        ]
        keys = shard.keys
        names = self._ending_keys(keys, settlement, keys.rates(settlement.customer_id))
        self._add_charges(arguments, settlement)
        return self._acknowledged(
            shard, await scripts.SETTLE.run(self._connection, names, arguments), settlement, "settle"
        )

    async def release(self, settlement: Settlement) -> Settled:
        """Gives everything back and writes the terminal event; an unknown reference gets a tombstone."""
        shard = self._shards[settlement.shard]
        if self._is_in_doubt(shard) and await self._known(settlement.shard) is None:
            return _NEVER_OPENED
        arguments: list[Argument] = [cast(bytes, shard.epoch), shard.seq, settlement.ref, settlement.event]
        keys = shard.keys
        # Nobody may know on which of a user's counters it is held, if the reply of the reserve was lost.
        every = [*settlement.counters, *[c.shared for c in settlement.counters if c.shared]]
        names = self._ending_keys(keys, settlement, keys.rates(settlement.customer_id), counters=every)
        for counter in every:
            for source in counter.filled_from:
                # A grant is named only where it was charged something.
                head = self._charge_head(counter, source.name, None) if source.grant_id is None else "-"
                arguments.append(head)
        return self._acknowledged(
            shard, await scripts.RELEASE.run(self._connection, names, arguments), settlement, "release"
        )

    def _acknowledged(self, shard: _Shard, reply: list[Any], settlement: Settlement, verb: Verb) -> Settled:
        settled = _settled(shard, reply)
        if self._unrecorded is not None and settled.outcome in ACKNOWLEDGED:
            self._unrecorded.keep(cast(bytes, shard.epoch), settled.seq, settlement, verb)
        return settled

    def behind(self) -> list[tuple[int, int]]:
        """The shards that know less than they told this process, each with the `seq` that it had told: their data
        were put back to an older state."""
        return [(number, shard.seq) for number, shard in enumerate(self._shards) if shard.suspect]

    async def extend(self, shard: int, observed: Mapping[str, int]) -> frozenset[str]:
        """Renews leases, in batches; returns the references that are held no more.

        A closed shard says nothing about them: they stay with the caller, for the rebuild to adopt.
        """
        known = await self._known(shard)
        if known is None:
            return frozenset()
        items = list(observed.items())
        batches = [items[start : start + EXTEND_BATCH] for start in range(0, len(items), EXTEND_BATCH)]
        lost = await asyncio.gather(*(self._extend_batch(known, batch) for batch in batches))
        return frozenset().union(*lost)

    async def _extend_batch(self, shard: _Shard, batch: Sequence[tuple[str, int]]) -> frozenset[str]:
        arguments: list[Argument] = [cast(bytes, shard.epoch), shard.seq, self._lease_us]
        for ref, tokens in batch:
            arguments += (ref, tokens)
        keys = [shard.keys.shard, shard.keys.leases, shard.keys.observed]
        reply = await scripts.EXTEND.run(self._connection, keys, arguments)
        return frozenset(ref.decode() for ref in reply[1:])

    async def top_up(self, top_up: TopUp) -> TopUpReply:
        """Holds more for a reservation under way, or no more. Raises `StoreAway`: asking again does no harm."""
        shard = await self._known(top_up.shard)
        if shard is None:
            return CLOSED
        call = top_up_call(shard.keys, cast(bytes, shard.epoch), shard.seq, self._lease_us, top_up)
        reply = top_up_reply(shard.keys.counters, top_up, await TOP_UP.run(self._connection, *call))
        shard.suspect = shard.suspect or isinstance(reply, Closed)
        return reply

    async def overdue(self, shard: int, most: int) -> Sequence[OverdueReservation]:
        """At most `most` reservations whose lease has run out by Redis's own time, the longest overdue first."""
        keys = self._shards[shard].keys
        send = self._connection.send
        time, clock_us = await asyncio.gather(send(("TIME",)), send(("HGET", keys.shard, "clock_us")))
        now_us = max(int(time[0]) * 1_000_000 + int(time[1]), int(clock_us or 0))
        refs = await send(("ZRANGE", keys.leases, "-inf", now_us, "BYSCORE", "LIMIT", 0, most))
        if not refs:
            return []
        holds, observed = await asyncio.gather(
            send(("HMGET", keys.held, *refs)), send(("HMGET", keys.observed, *refs))
        )
        # One that was finished between the two questions has no hold any more.
        return [
            _overdue(shard, ref, hold, seen) for ref, hold, seen in zip(refs, holds, observed, strict=True) if hold
        ]

    async def expire(self, overdue: OverdueReservation, settlement: Settlement) -> Settled:
        """Charges an overdue reservation as `settlement` says; `duplicate` if it lives or has ended meanwhile."""
        shard = await self._known(settlement.shard)
        if shard is None:
            return _NEVER_OPENED
        arguments: list[Argument] = [
            cast(bytes, shard.epoch),
            shard.seq,
            settlement.ref,
            overdue.observed_output_tokens,
            _usage_text(settlement),
            settlement.event,
        ]
        self._add_charges(arguments, settlement)
        names = self._ending_keys(shard.keys, settlement)
        return _settled(shard, await scripts.EXPIRE.run(self._connection, names, arguments))

    def _ending_keys(
        self, keys: ShardKeys, settlement: Settlement, *rates: str, counters: Sequence[Counter] | None = None
    ) -> list[str]:
        prefix = keys.counters
        return [
            keys.shard,
            *rates,
            keys.holding(settlement.customer_id),
            keys.held,
            keys.leases,
            keys.observed,
            keys.done(settlement.ref),
            keys.events,
            *[prefix + name for counter in counters or settlement.counters for name in counter.names],
        ]

    def _add_charges(self, arguments: list[Argument], settlement: Settlement) -> None:
        for number, counter in enumerate(settlement.counters):
            amount = settlement.amounts[number]
            if not counter.sources:
                arguments.append(amount)
                arguments.append(self._charge_head(counter, counter.name, None))
                continue
            for source, text in zip(counter.sources, ending_texts(number, counter, amount), strict=True):
                arguments += (text, self._charge_head(counter, source.name, source.grant_id))

    def _charge_head(self, counter: Counter, name: str, grant_id: str | None) -> bytes:
        """A counter's part of the event's `charged`, up to the amount, which only the script knows."""
        # A grant is charged in whatever window runs.
        known_as = name if grant_id is None else f"{name} {counter.starts_us}"
        head = self._charge_heads.get(known_as)
        if head is None:
            charge = {
                "budget_id": counter.budget.id,
                "window_start": counter.starts_us,
                "grant_id": grant_id,
                "counter": name,
            }
            head = json.dumps(charge, separators=(",", ":"))[:-1].encode() + b',"amount":'
            if len(self._charge_heads) >= REMEMBERED_COUNTERS_MOST:
                self._charge_heads.clear()
            self._charge_heads[known_as] = head
        return head


_NEVER_OPENED = Settled("closed", 0, 0)


def _usage_text(settlement: Settlement) -> str:
    input_tokens, output_tokens, cost_pico = settlement.usage
    return f"{input_tokens},{output_tokens},{cost_pico}"


def _settled(shard: _Shard, reply: list[Any]) -> Settled:
    word, seq, now_us = reply
    outcome = _OUTCOMES[word]
    # A closed shard may be another one in the old one's place, whose `seq` must not be mixed up with ours.
    if outcome == "closed":
        shard.suspect = True
    elif seq > shard.seq:
        shard.seq = seq
    return Settled(outcome, seq, now_us)


def _overdue(shard: int, ref: bytes, hold: bytes, observed: bytes | None) -> OverdueReservation:
    head, record = hold.split(b"\n", 1)
    admitted_us, _, _, amounts, counters = head.split(b"|", 4)
    prefix = len(ShardKeys(shard).counters)
    return OverdueReservation(
        ref=ref.decode(),
        shard=shard,
        admitted_us=int(admitted_us),
        observed_output_tokens=int(observed or 0),
        amounts=tuple(int(amount) for amount in amounts.split(b",") if amount),
        record=record,
        names=tuple([name[prefix:] for name in counters.decode().split("\t") if name]),
    )
