"""The invariants over everything (reservation.md 3.5): each shard's own, and Redis against the ledger.

I4 and I7 compare two stores that move. A shard is compared only in a moment in which it stands still: everything
that it has settled is recorded, and nothing was settled while its counters were read. A shard so busy that no
such moment comes is left out, and the answer says how many were.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy.ext.asyncio import AsyncEngine

from proxy.app.store import Store
from proxy.budgets.inspection import Inspection
from proxy.domain.counters import GRANT, expires_us, is_grant
from proxy.gateway.ports import Clock
from proxy.ledger.audit import grant_amounts, highest_limits, overridden, overrun, unmatched_rows
from proxy.ledger.counter_sums import charged_by_counter, highest_seqs

TRIES = 20
WAIT_S = 0.1
SHOWN_MAX = 20
# A counter's name gives the time at which it may go to within a few days.
EXPIRY_MARGIN_US = 5 * 86_400_000_000


@dataclass(frozen=True, slots=True)
class Drift:
    """A counter of a shard, as it stood at `seq`, that is not what it should be.

    `seen` is what Redis holds (None: no such counter), `right` what the ledger (`used`) or the reservations
    (`held`) say.
    """

    shard: int
    epoch: str
    seq: int
    counter: str
    field: Literal["used", "held"]
    seen: int | None
    right: int

    @property
    def difference(self) -> int:
        return (self.seen or 0) - self.right


@dataclass(slots=True)
class Examination:
    """What was found, invariant by invariant; `busy` shards could not be compared with the ledger."""

    checks: list[dict[str, Any]] = field(default_factory=list)
    drifts: list[Drift] = field(default_factory=list)
    busy: list[int] = field(default_factory=list)

    def report(self) -> Mapping[str, Any]:
        """`{"ok", "checks": [{"id", "ok", "seen", "expected"}]}`, one check for each invariant."""
        return {"ok": all(check["ok"] for check in self.checks), "checks": self.checks}


@dataclass(frozen=True, slots=True)
class _Look:
    """A shard, and what the ledger says its counters were charged; None if it never stood still."""

    inspection: Inspection
    charged: Mapping[str, int] | None


async def examine(store: Store, engine: AsyncEngine, shards: int, clock: Clock) -> Examination:
    """Looks at everything, shard after shard, so that neither store is kept from its work. Raises `StoreAway`, and
    what the database's driver says when it is away."""
    found = await store.budgets.find_counters()
    # Busy shards wait for their moment together; quiet ones are read one at a time.
    one_at_a_time = asyncio.Lock()
    looks = await asyncio.gather(
        *(_look(store, engine, shard, found[shard], one_at_a_time) for shard in range(shards))
    )
    examination = Examination(_of_shards([look.inspection for look in looks]))
    examination.busy = [look.inspection.shard for look in looks if look.charged is None]
    unrecorded = [drift for look in looks for drift in _of_used(look)]
    examination.drifts = [drift for look in looks for drift in _of_held(look.inspection)] + unrecorded
    examination.checks.append(_recorded(unrecorded, len(examination.busy)))
    unmatched = await unmatched_rows(engine, clock.now_us())
    examination.checks.append({"id": "I6", "ok": not unmatched, "seen": unmatched, "expected": []})
    examination.checks.append(await _within_limits(looks, engine))
    examination.checks.sort(key=lambda check: str(check["id"]))
    return examination


async def invariants(store: Store, engine: AsyncEngine, shards: int, clock: Clock) -> Mapping[str, Any]:
    """The report of an examination made now."""
    return (await examine(store, engine, shards, clock)).report()


async def _look(
    store: Store, engine: AsyncEngine, shard: int, found: Iterable[str], one_at_a_time: asyncio.Lock
) -> _Look:
    for _ in range(TRIES):
        # Asked cheaply first: a shard that moves is not worth reading whole.
        recorded = (await highest_seqs(engine, [shard]))[shard]
        if recorded == await store.books.seq(shard):
            async with one_at_a_time:
                inspection = await store.budgets.inspect(shard, found)
                charged, recorded = await charged_by_counter(engine, shard)
                # Looked at before, compared after: what was settled in between shows in the sequence.
                still = inspection.events == 0 and recorded == inspection.seq == await store.books.seq(shard)
            if still:
                return _Look(inspection, charged)
        await asyncio.sleep(WAIT_S)
    async with one_at_a_time:
        return _Look(await store.budgets.inspect(shard, found), None)


def _of_shards(inspections: list[Inspection]) -> list[dict[str, Any]]:
    merged: dict[str, dict[str, Any]] = {}
    for inspection in inspections:
        for check in inspection.checks:
            row = merged.setdefault(check.id, {"id": check.id, "ok": True, "seen": "as expected", "expected": ""})
            if not check.ok:
                row["ok"] = False
                row["seen"] = {"shard": inspection.shard, "seen": _some(check.seen)}
                row["expected"] = {"shard": inspection.shard, "expected": _some(check.expected)}
    return list(merged.values())


def _some(shown: Any) -> Any:
    """Enough to see what is wrong: an answer of a hundred thousand counters helps nobody."""
    if isinstance(shown, dict):
        return dict(list(shown.items())[:SHOWN_MAX])
    return shown[:SHOWN_MAX] if isinstance(shown, list) else shown


def _of_held(inspection: Inspection) -> Iterable[Drift]:
    for check in inspection.checks:
        if check.id == "I1" and not check.ok and inspection.epoch is not None:
            for name, seen in check.seen.items():
                right = check.expected[name]
                yield Drift(inspection.shard, inspection.epoch, inspection.seq, name, "held", seen, right)


def _of_used(look: _Look) -> Iterable[Drift]:
    """What a quiet shard counts as used, and the ledger does not; and counters that the shard has lost."""
    at, charged = look.inspection, look.charged
    if charged is None or at.epoch is None:
        return
    for name, (used, _) in at.counters.items():
        if used != charged.get(name, 0):
            yield Drift(at.shard, at.epoch, at.seq, name, "used", used, charged.get(name, 0))
    for name, amount in charged.items():
        if amount and name not in at.counters:
            expires = expires_us(name)
            if expires is None or at.now_us < expires - EXPIRY_MARGIN_US:
                yield Drift(at.shard, at.epoch, at.seq, name, "used", None, amount)


def _recorded(drifts: list[Drift], busy: int) -> dict[str, Any]:
    """I4: what Redis counts as used is what the ledger's events were charged."""
    shown = drifts[:SHOWN_MAX]
    return {
        "id": "I4",
        "ok": not drifts,
        "seen": {drift.counter: drift.seen for drift in shown} if drifts else {"shards_too_busy": busy},
        "expected": {drift.counter: drift.right for drift in shown},
    }


async def _within_limits(looks: list[_Look], engine: AsyncEngine) -> dict[str, Any]:
    """I7: no counter is beyond the highest limit its budget ever had, but for what was used over the holds; and no
    grant beyond its amount."""
    still = [look.inspection for look in looks if look.charged is not None]
    limits, exempt = await highest_limits(engine), await overridden(engine)
    ids = {_grant_of(name) for at in still for name in at.counters if is_grant(name)}
    amounts = await grant_amounts(engine, ids)
    beyond: dict[str, int] = {}
    for inspection in still:
        for name, (used, held) in inspection.counters.items():
            if is_grant(name):
                limit = amounts.get(_grant_of(name))
            else:
                limit = None if name.split("/", 1)[0] in exempt else limits.get(_budget_of(name))
            if limit is not None and used + held > limit:
                excess = used + held - limit - await overrun(engine, inspection.shard, name)
                if excess > 0:
                    beyond[name] = excess
    return {"id": "I7", "ok": not beyond, "seen": beyond, "expected": {}}


def _grant_of(counter: str) -> str:
    """The grant's id in its counter's name."""
    return counter.rsplit("/", 2)[1].removeprefix(GRANT)


def _budget_of(counter: str) -> tuple[str, str, str]:
    """(budget id, meter, window) of a counter's name; of a name that is none of ours, nothing."""
    parts = counter.rsplit("/", 4)
    return (parts[1], parts[2], parts[3]) if len(parts) == 5 else ("", "", "")
