"""What wins over the plan is written whole, shown beside what it leads to, and refused with all its faults."""

from __future__ import annotations

from typing import Any

PATH = "/customers/acme/entitlements"


async def test_overrides_are_replaced_and_shown(furnished: Any) -> None:
    """What is not named is as the plan has it again; money comes back as it was written."""
    body = {
        "features": {"web_search": True, "priority": None},
        "models": {"add": ["gpt-4o"]},
        "budgets": {"money": {"limit": "50.5"}, "monthly-tokens": None, "hourly": {"limit": 5, "window": "PT1H"}},
        "rate_limits": {"requests_per_minute": None},
    }
    put = await furnished.ask("PUT", PATH, body)
    assert put.status == 200
    shown = put.json["overrides"]
    assert (shown["features"], shown["models"]) == (body["features"], body["models"])
    assert shown["budgets"]["money"] == {"limit": "50.5"}
    assert shown["budgets"]["monthly-tokens"] is None
    assert (shown["budgets"]["hourly"]["limit"], shown["budgets"]["hourly"]["window"]) == (5, "PT1H")
    kept = furnished.plane.accounts.kept["customer"]["acme"].overrides
    assert kept["budgets"]["money"] == {"meter": "cost_usd", "limit": 50_500_000}
    again = await furnished.ask("PUT", PATH, shown)
    assert again.json["overrides"] == shown
    assert (await furnished.ask("PUT", PATH, {})).json["overrides"] == {}


async def test_all_faults_are_told_at_once_and_nothing_is_written(furnished: Any) -> None:
    """An admin corrects a form once, not once for each field."""
    body = {"models": ["gpt-5"], "budgets": {"monthly-tokens": {"limit": 1.5}, "x": None}}
    answer = await furnished.ask("PUT", PATH, body)
    assert (answer.status, answer.json["error"]["code"]) == (400, "invalid_overrides")
    assert [fault["path"] for fault in answer.json["error"]["faults"]] == [
        "models[0]",
        "budgets.monthly-tokens.limit",
        "budgets.x",
    ]
    assert "2 more faults" in answer.json["error"]["message"]
    assert furnished.plane.accounts.kept["customer"]["acme"].overrides == {}


async def test_overrides_are_replaced_only_by_who_has_seen_them(sql_client: Any) -> None:
    """The ETag hangs on the overrides and not on the balances, which every call changes."""
    await sql_client.ask("POST", "/customers", {"id": "acme", "name": "A"})
    sql_client.plane.accounts.kept["customer"]["acme"] = object()
    seen = (await sql_client.ask("GET", PATH)).headers["ETag"]
    first = await sql_client.ask("PUT", PATH, {"features": {"web_search": True}}, headers={"If-Match": seen})
    assert first.status == 200
    late = await sql_client.ask("PUT", PATH, {"features": {}}, headers={"If-Match": seen})
    assert late.status == 412
    shown = await sql_client.ask("GET", PATH)
    assert shown.json["overrides"] == {"features": {"web_search": True}}
    assert shown.headers["ETag"] == first.headers["ETag"]
