from __future__ import annotations

import asyncio
import json

import pytest
from sqlalchemy import func, select, text

from proxy.ledger.entries import record_events, recorded_among
from proxy.ledger.rows import row_of
from proxy.ledger.tables import set_aside, usage_events


def rows(entries):
    return [row_of(entry.fields, entry.shard) for entry in entries]


async def count(engine) -> int:
    async with engine.connect() as connection:
        return await connection.scalar(select(func.count()).select_from(usage_events))


async def refuse_one(engine, id: str) -> None:
    """Makes the database itself refuse one row, as a constraint of a later schema might."""
    if engine.dialect.name == "sqlite":
        async with engine.begin() as connection:
            await connection.execute(
                text(
                    f"CREATE TRIGGER refuse BEFORE INSERT ON usage_events WHEN NEW.id = '{id}'"
                    " BEGIN SELECT RAISE(ABORT, 'not this one'); END"
                )
            )
        return
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                f" IF NEW.id = '{id}' THEN RAISE 'not this one' USING ERRCODE = '23514'; END IF;"
                " RETURN NEW; END $$"
            )
        )
        await connection.execute(
            text("CREATE TRIGGER refuse BEFORE INSERT ON usage_events FOR EACH ROW EXECUTE FUNCTION refuse()")
        )


async def allow_again(engine) -> None:
    if engine.dialect.name == "postgresql":
        async with engine.begin() as connection:
            await connection.execute(text("DROP FUNCTION refuse CASCADE"))


async def test_a_redelivered_event_is_recorded_once(engine, entry) -> None:
    """A commit whose reply was lost is delivered again; a customer must not be billed twice for it."""
    some = rows([entry() for _ in range(700)])
    assert len((await record_events(engine, some, 1)).inserted) == 700
    again = await record_events(engine, some[:650] + rows([entry("new")]) + some[600:], 1)
    assert again.inserted == {"new:1"}
    assert await count(engine) == 701


async def test_many_writers_of_the_same_events_record_each_once(engine, entry) -> None:
    """Two keepers may read the same entries; together they insert every row exactly once, and say so."""
    some = rows([entry() for _ in range(600)])
    recorded = await asyncio.gather(*(record_events(engine, some, 1) for _ in range(4)))
    assert sum(len(one.inserted) for one in recorded) == 600
    assert await count(engine) == 600


async def test_a_refused_row_is_set_aside_and_holds_up_no_other(engine, entry) -> None:
    """One event that the database will not take must not stop the billing of all that follow."""
    some = [entry(f"req_{n}") for n in range(40)]
    await refuse_one(engine, "req_17:1")
    recorded = await record_events(engine, rows(some), 1)
    await allow_again(engine)
    assert len(recorded.inserted) == 39
    assert recorded.refused.keys() == {"req_17:1"}
    assert "not this one" in recorded.refused["req_17:1"]
    async with engine.connect() as connection:
        (kept,) = (await connection.execute(select(set_aside))).all()
    assert kept.id == "req_17:1"
    assert json.loads(kept.document)["input_tokens"] == 19


async def test_text_that_postgres_cannot_store_is_set_aside(engine, entry) -> None:
    """A NUL in an attribution comes from a client; it must hurt nobody but its own event."""
    recorded = await record_events(engine, rows([entry("a"), entry("b", step="x\0y"), entry("c")]), 1)
    assert {"a:1", "c:1"} <= recorded.inserted
    assert (recorded.inserted | recorded.refused.keys()) == {"a:1", "b:1", "c:1"}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"input_tokens": None}, "input_tokens must be int, not NoneType"),
        ({"input_tokens": 1.5}, "input_tokens must be int, not float"),
        ({"input_tokens": True}, "input_tokens must be int, not bool"),
        ({"input_tokens": 1 << 63}, "input_tokens is 9223372036854775808"),
        ({"cost_usd": "1e3x"}, "cost_usd is '1e3x', no exact decimal"),
        ({"cost_usd": "0.0000000000001"}, "no exact decimal"),
        ({"cost_usd": "9300000"}, "more than one attempt can cost"),
        ({"_seq": "x"}, "seq must be a whole number"),
        ({"_kind": "final"}, "kind is 'final'"),
        ({"_charged": "7,8"}, "charged is no JSON"),
        ({"_kind": "correction", "_prior": "1,2"}, "prior must be"),
    ],
)
def test_an_unreadable_entry_says_what_is_wrong(entry, changes, complaint) -> None:
    """What cannot be recorded is repaired by a person, who needs to know why."""
    one = entry(**changes)
    with pytest.raises(ValueError, match=complaint):
        row_of(one.fields, one.shard)


async def test_a_correction_and_its_first_row_sum_up_to_the_truth(engine, entry) -> None:
    """An attempt's usage is the sum of its rows: an orphan charged too much and is corrected by a late settle."""
    orphan = entry("r", status="orphaned", usage_source="estimated", input_tokens=500, output_tokens=3,
                   uncached_input_tokens=500, cache_read_tokens=0, reasoning_tokens=0, cost_usd="0.000077",
                   billable=False)  # fmt: skip
    late = entry("r", _kind="correction", _late="1", _prior="500,3,77000000", _seq="90")
    both = rows([orphan, late])
    await record_events(engine, both, 1)
    assert both[1]["id"] == "r:1:c90"
    assert (both[1]["late"], both[1]["billable"], both[1]["held"]) == (True, True, [])
    sums = [
        func.sum(usage_events.c[name])
        for name in ("input_tokens", "uncached_input_tokens", "cache_read_tokens", "output_tokens", "cost_pico")
    ]
    async with engine.connect() as connection:
        assert [int(n) for n in (await connection.execute(select(*sums))).one()] == [19, 9, 10, 24, 17_250_000]


async def test_an_event_without_a_known_price_has_no_cost(engine, entry) -> None:
    """Unknown is not zero: a margin that counts it as free would be a lie."""
    await record_events(engine, rows([entry(cost_usd=None)]), 1)
    async with engine.connect() as connection:
        found = (await connection.execute(select(usage_events.c.cost_usd, usage_events.c.cost_pico))).one()
    assert tuple(found) == (None, None)


async def test_which_events_are_recorded_can_be_asked(engine, entry) -> None:
    """What has ended must not be held again after a loss of Redis: the record says what has."""
    there = rows([entry() for _ in range(700)])
    await record_events(engine, there, 1)
    ids = [row["id"] for row in there]
    assert await recorded_among(engine, [*ids, "req_unheard_of:0"]) == set(ids)
    assert await recorded_among(engine, []) == set()
