from __future__ import annotations

from datetime import UTC, datetime, timedelta

import orjson
import pytest

from proxy.billing.ports import BadCursor
from proxy.domain.usage_events import FIELDS
from proxy.ledger.denials import deltas_of, record_denials
from proxy.ledger.entries import record_events
from proxy.ledger.reports import SqlReports
from proxy.ledger.rows import row_of

DAY_US = 86_400_000_000
ADMITTED_US = 1_795_200_000_123_456
ADMITTED = datetime(2026, 11, 20, 18, 40, 0, 123456, tzinfo=UTC)


@pytest.fixture
def record(engine):
    async def record(*entries):
        recorded = await record_events(engine, [row_of(entry.fields, entry.shard) for entry in entries], 1)
        assert recorded.refused == {}

    return record


async def all_ids(reports, filters, limit=100):
    ids, cursor = [], None
    while True:
        page = await reports.usage_events(filters, limit, cursor)
        ids += [event["id"] for event in page.data]
        if (cursor := page.next_cursor) is None:
            return ids


async def test_an_event_comes_back_whole(engine, record, entry) -> None:
    """Finance reads these fields; each must be what was recorded, to the last digit."""
    await record(entry("r", cost_usd="0.000017250000", first_byte_at=ADMITTED_US + 1))
    (event,) = (await SqlReports(engine).usage_events({}, 10, None)).data
    assert tuple(event) == FIELDS
    assert event["cost_usd"] == "0.00001725"
    assert event["charged"] == [{"budget_id": "monthly", "window_start": 5, "grant_id": None, "amount": 43}]
    assert event["raw_usage"] == {"prompt_tokens": 19, "completion_tokens": 24}
    assert (event["admitted_at"], event["first_byte_at"]) == (
        "2026-11-20T18:40:00.123456Z",
        "2026-11-20T18:40:00.123457Z",
    )
    assert (event["streamed"], event["billable"], event["anonymous_id"]) == (False, True, None)


async def test_pages_are_newest_first_and_complete(engine, record, entry) -> None:
    """An export walks the pages; it must meet every event once, though many share an instant."""
    await record(*(entry(f"r{n:02d}", admitted_at=ADMITTED_US + n // 4) for n in range(20)))
    ids = await all_ids(SqlReports(engine), {}, limit=3)
    assert ids == [f"r{n:02d}:1" for n in reversed(range(20))]
    with pytest.raises(BadCursor):
        await SqlReports(engine).usage_events({}, 10, "nonsense")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("customer_id", "other"),
        ("agent_id", "other"),
        ("request_id", "other"),
        ("user_id", "other"),
        ("run_id", "other"),
        ("step", "other"),
        ("model", "other"),
        ("status", "failed"),
    ],
)
async def test_each_filter_finds_its_events_alone(engine, record, entry, field, value) -> None:
    """Somebody else's usage in a customer's list is a leak."""
    await record(entry("a"), entry(**({"request_id": "b"} | {field: value})), entry("c"))
    (found,) = await all_ids(SqlReports(engine), {field: value, "user_id" if field != "user_id" else "step": None})
    assert found == ("other:1" if field == "request_id" else "b:1")


async def test_from_is_included_and_to_is_not(engine, record, entry) -> None:
    """Two adjoining periods must add up to the whole, without an event in both."""
    await record(*(entry(f"r{n}", admitted_at=ADMITTED_US + n) for n in range(3)))
    one = timedelta(microseconds=1)
    period = {"from": ADMITTED + one, "to": ADMITTED + 2 * one}
    assert await all_ids(SqlReports(engine), period) == ["r1:1"]


async def test_wrong_questions_are_refused(engine) -> None:
    """A filter that is silently ignored answers another question than was asked."""
    reports = SqlReports(engine)
    for ask in (
        reports.usage_events({"customer": "acme"}, 10, None),
        reports.usage_events({"from": "yesterday"}, 10, None),
        reports.usage_events({"from": datetime(2026, 1, 1)}, 10, None),  # noqa: DTZ001
        reports.usage(["week"], {}),
    ):
        with pytest.raises(ValueError, match=r"known are|must be a moment|no timezone"):
            await ask


async def test_sums_are_exact_where_floats_and_64_bits_are_not(engine, record, entry) -> None:
    """Nine million dollars and a picodollar: an invoice must add up to the last digit."""
    await record(
        *(entry(f"r{n}", cost_usd="9000000.000000000001", input_tokens=1 << 40) for n in range(3)),
        entry("r0", _kind="correction", _prior="0,0,18000000000000000002", cost_usd="9000000", _seq="77"),
    )
    (total,) = await SqlReports(engine).usage([], {})
    assert total["cost_usd"] == "18000000.000000000001"
    assert total["input_tokens"] == 3 * (1 << 40) + 19
    assert (total["requests"], total["attempts"]) == (3, 3)


async def test_groups_are_summed_apart(engine, record, entry) -> None:
    """Money is shown where the call went, not where it was asked to go."""
    await record(
        entry("a"),
        entry("a", attempt=2, model_served="claude", cost_usd="0.5", user_id=None),
        entry("b", admitted_at=ADMITTED_US + DAY_US, cost_usd=None),
    )
    by = await SqlReports(engine).usage(["model"], {})
    assert [(row["model"], row["requests"], row["attempts"], row["cost_usd"]) for row in by] == [
        ("claude", 1, 1, "0.5"),
        ("gpt-4o-mini", 2, 2, "0.00001725"),
    ]
    days = await SqlReports(engine).usage(["day", "customer"], {"agent_id": "agt_1"})
    assert [(row["day"], row["customer"], row["input_tokens"]) for row in days] == [
        ("2026-11-20", "acme", 38),
        ("2026-11-21", "acme", 19),
    ]
    users = await SqlReports(engine).usage(["user", "agent", "step"], {})
    assert {(row["user"], row["output_tokens"]) for row in users} == {("u1", 48), (None, 24)}


async def test_no_usage_is_zero(engine) -> None:
    """A new customer's page shows zeros, not an error."""
    (total,) = await SqlReports(engine).usage([], {"customer_id": "nobody"})
    assert (total["requests"], total["input_tokens"], total["cost_usd"]) == (0, 0, "0")
    assert await SqlReports(engine).usage(["day"], {}) == []


async def test_denials_are_listed_newest_first(engine) -> None:
    """Support asks why a customer was refused, and when."""
    base = {"agent_id": "a", "model": "m", "count": 2, "sample_request_id": "r", "sample_message": "Spent."}
    deltas = [
        base | {"id": f"d{n}", "minute": 29_920_000 + n // 2, "customer_id": f"c{n}", "reason": "budget"}
        for n in range(4)
    ]
    await record_denials(engine, deltas_of({"deltas": orjson.dumps(deltas)}), ADMITTED_US)
    reports = SqlReports(engine)
    first = await reports.denials({"reason": "budget"}, 3, None)
    rest = await reports.denials({"reason": "budget"}, 3, first.next_cursor)
    assert [row["customer_id"] for row in (*first.data, *rest.data)] == ["c3", "c2", "c1", "c0"]
    assert first.data[0] == base | {
        "minute": "2026-11-20T18:41:00.000000Z",
        "customer_id": "c3",
        "reason": "budget",
        "shadow": False,
    }
    assert orjson.loads(orjson.dumps(first.data)) == first.data, "the admin plane must be able to write it"
    assert (await reports.denials({"shadow": True}, 9, None)).data == []
    assert len((await reports.denials({"shadow": False}, 9, None)).data) == 4
    late = await reports.denials({"from": datetime(2026, 11, 20, 18, 40, 30, tzinfo=UTC)}, 9, None)
    assert {row["customer_id"] for row in late.data} == {"c2", "c3"}
