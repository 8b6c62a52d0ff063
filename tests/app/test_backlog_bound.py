"""The bound on what waits for the ledger: when the gate closes, when it opens, and what the operator sees."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from proxy.app.backlog import BacklogBound, KeeperFigures
from proxy.budgets.backlog import Waiting
from proxy.telemetry import Counters, Merged


@dataclass
class Shards:
    """A store that only counts and marks."""

    events: int = 0
    full: bool = False
    partly: bool = False
    marked: list[bool] = field(default_factory=list)

    async def look(self) -> Waiting:
        return Waiting(self.events, 2_500_000, self.full or self.partly, not self.full)

    async def mark(self, full: bool) -> None:
        self.full, self.partly = full, False
        self.marked.append(full)


def gauges(counters: Counters) -> dict[str, float]:
    merged = Merged()
    return {name: rows[()] for name, rows in merged.total([counters.snapshot()]).gauges.items()}


async def test_the_gate_closes_at_the_bound_and_opens_below_nine_tenths_of_it() -> None:
    """Between the two it stays as it is: a gate at its bound must not flap."""
    shards = Shards()
    bound = BacklogBound(shards, 1000, Counters())
    seen = []
    for shards.events in (0, 950, 999, 1000, 5000, 999, 950, 900, 899, 950, 999):
        await bound.look()
        seen.append(shards.full)
    assert seen == [False, False, False, True, True, True, True, True, False, False, False]
    assert shards.marked == [True, False]


@pytest.mark.parametrize(("events", "marked"), [(1200, [True]), (950, [True]), (10, [False])])
async def test_a_keeper_that_starts_goes_by_the_mark_that_it_finds(events: int, marked: list[bool]) -> None:
    """Keepers come and go, and a shard that was rebuilt meanwhile has lost its mark."""
    shards = Shards(events, partly=True)
    await BacklogBound(shards, 1000, Counters()).look()
    assert shards.marked == marked


async def test_the_operator_sees_backlog_bound_and_lag() -> None:
    """An alert on the lag comes long before the bound."""
    counters = Counters()
    await BacklogBound(Shards(events=1001), 1000, counters).look()
    assert gauges(counters) == {
        "ledger_backlog_events": 1001,
        "ledger_backlog_full": 1,
        "ledger_lag_seconds": 2.5,
    }


@dataclass
class Done:
    recorded: int = 0
    set_aside: int = 0
    expired: int = 0


async def test_what_writer_and_sweeper_have_done_is_counted_once(tmp_path: Path) -> None:
    """These are the counters that say whether the record is kept."""
    counters, done = Counters(), Done(recorded=5)
    figures = KeeperFigures(counters, done, done, tmp_path / "spool")
    await figures.take()
    (tmp_path / "spool").mkdir()
    for name in ("a.spool", "b.spool", "c.damaged"):
        (tmp_path / "spool" / name).touch()
    done.recorded, done.set_aside, done.expired = 7, 1, 2
    await figures.take()
    await figures.take()
    total = Merged().total([counters.snapshot()])
    assert total.counters["events_recorded"][()] == 7
    assert total.counters["events_set_aside"][()] == 1
    assert total.counters["reservations_expired"][()] == 2
    assert total.gauges["spool_files"][()] == 2
