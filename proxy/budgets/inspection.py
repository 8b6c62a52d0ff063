"""The invariants of one shard, checked while the gate serves: nothing is written, nothing is locked.

I1  for each counter, `held` equals the sum of what its held reservations hold
I2  no counter's `used` or `held` is negative
I3  admitted = held + settled + released + expired
I5  every held reservation has exactly one lease and none is long overdue
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from proxy.budgets import scripts
from proxy.budgets.keys import ALL_COUNTERS, ShardKeys

# Counters looked at in one script: enough to be quick, few enough to hold nobody up.
BATCH = 200

# The sweeper comes by every five seconds; what is overdue for longer than this it has missed.
SWEPT_WITHIN_US = 15_000_000


@dataclass(frozen=True, slots=True)
class Check:
    """One invariant: what was seen, what it should be."""

    id: str
    ok: bool
    seen: Any
    expected: Any


@dataclass(frozen=True, slots=True)
class Inspection:
    """One shard at one moment. `counters`: counter name -> (used, held); `events`: not yet in the ledger."""

    shard: int
    now_us: int
    epoch: str | None
    seq: int
    held: int
    events: int
    counters: dict[str, tuple[int, int]]
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)


@dataclass(slots=True)
class _Moment:
    """One reply of the script, with the balances of one batch of counters."""

    now_us: int
    shard: dict[str, str]
    holds: dict[str, str]
    leases: dict[str, int]
    events: int
    balances: dict[str, tuple[int, int]]

    def held_by_counter(self) -> Tally[str]:
        held: Tally[str] = Tally()
        for hold in self.holds.values():
            _, _, _, amounts, names = hold.split("|", 4)
            if amounts:
                held.update(dict(zip(names.split("\t"), map(int, amounts.split(",")), strict=True)))
        return held


async def find_counters(connection: scripts.Connection, shards: Iterable[ShardKeys]) -> dict[int, set[str]]:
    """The keys of every counter by shard: one walk through Redis, however many shards there are."""
    prefixes = {keys.counters: keys.number for keys in shards}
    found: dict[int, set[str]] = {number: set() for number in prefixes.values()}
    cursor = b"0"
    while True:
        cursor, names = await connection.send(("SCAN", cursor, "MATCH", ALL_COUNTERS, "COUNT", BATCH))
        for name in map(bytes.decode, names):
            number = prefixes.get(name[: name.index("}") + 4])
            if number is not None:
                found[number].add(name)
        if cursor == b"0":
            return found


async def inspect_shard(
    connection: scripts.Connection, keys: ShardKeys, lease_us: int, found: Iterable[str] | None = None
) -> Inspection:
    """Looks at a whole shard. Each batch of counters is compared with the reservations of the same moment.

    `found`: the keys of its counters, if somebody has looked for them already.
    """
    if found is None:
        found = (await find_counters(connection, [keys]))[keys.number]
    first = await _moment(connection, keys, ())
    counters: dict[str, tuple[int, int]] = {}
    wrong: dict[str, tuple[int, int]] = {}
    for batch in _batches({*found, *first.held_by_counter()}):
        moment = await _moment(connection, keys, batch)
        held = moment.held_by_counter()
        counters |= moment.balances
        wrong |= {key: (b[1], held[key]) for key, b in moment.balances.items() if b[1] != held[key]}
    number = len(keys.counters)
    return Inspection(
        shard=keys.number,
        now_us=first.now_us,
        epoch=first.shard.get("epoch"),
        seq=int(first.shard.get("seq", 0)),
        held=len(first.holds),
        events=first.events,
        counters={key[number:]: balance for key, balance in counters.items()},
        checks=(
            Check(
                "I1",
                not wrong,
                {key[number:]: seen for key, (seen, _) in wrong.items()},
                {key[number:]: expected for key, (_, expected) in wrong.items()},
            ),
            _no_negative({key[number:]: balance for key, balance in counters.items()}),
            _conserved(first),
            *_leased(first, lease_us),
        ),
    )


def _no_negative(counters: dict[str, tuple[int, int]]) -> Check:
    negative = {name: balance for name, balance in counters.items() if min(balance) < 0}
    return Check("I2", not negative, negative, {})


def _conserved(moment: _Moment) -> Check:
    count = {name: int(moment.shard.get(name, 0)) for name in ("admitted", "settled", "released", "expired")}
    expected = len(moment.holds) + count["settled"] + count["released"] + count["expired"]
    return Check("I3", count["admitted"] == expected, count["admitted"], expected)


def _leased(moment: _Moment, lease_us: int) -> Iterable[Check]:
    unpaired = sorted(moment.holds.keys() ^ moment.leases.keys())
    yield Check("I5", not unpaired, unpaired, [])
    longest_us = max((moment.now_us - deadline for deadline in moment.leases.values()), default=0)
    most_us = lease_us + SWEPT_WITHIN_US
    yield Check("I5", longest_us < most_us, f"overdue for {max(longest_us, 0)} us", f"less than {most_us} us")


def _batches(names: Iterable[str]) -> Iterator[Sequence[str]]:
    every = list(names)
    for first in range(0, len(every), BATCH):
        yield every[first : first + BATCH]


async def _moment(connection: scripts.Connection, keys: ShardKeys, counters: Sequence[str]) -> _Moment:
    names = [keys.shard, keys.held, keys.leases, keys.events, *counters]
    reply = await scripts.INSPECT.run(connection, names, ())
    now_us, shard, holds, leases, events, balances = reply
    figures = [int(figure) for figure in balances]
    return _Moment(
        now_us=now_us,
        shard=_pairs(shard),
        holds=_pairs(holds),
        leases={ref: round(float(deadline)) for ref, deadline in _pairs(leases).items()},
        events=events,
        balances=dict(zip(counters, zip(figures[::2], figures[1::2], strict=True), strict=True)),
    )


def _pairs(flat: Sequence[bytes]) -> dict[str, str]:
    texts = [text.decode() for text in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))
