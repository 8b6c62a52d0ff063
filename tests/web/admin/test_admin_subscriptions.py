"""Which plan a customer is on is changed as it was asked, and what cannot be meant is refused with the reason."""

from __future__ import annotations

from typing import Any

import pytest

PATH = "/customers/acme/subscription"


async def test_a_downgrade_at_the_end_of_the_period_is_shown_and_taken_back(sql_client: Any) -> None:
    """The month counts from the anchor: from 31 January it ends on 30 November, an hour off UTC there."""
    body = {
        "id": "acme",
        "name": "A",
        "plan": "pro",
        "timezone": "Europe/Berlin",
        "anchor": "2026-01-31T12:00:00Z",
    }
    await sql_client.ask("POST", "/customers", body)
    scheduled = await sql_client.ask("PUT", PATH, {"plan": "starter", "when": "period_end"})
    assert scheduled.json == {
        "customer_id": "acme",
        "subscribed": True,
        "plan": "pro",
        "anchor": "2026-01-31T12:00:00Z",
        "timezone": "Europe/Berlin",
        "scheduled": {"plan": "starter", "at": "2026-11-30T12:00:00Z", "cancels": False},
    }
    assert (await sql_client.ask("GET", PATH)).json == scheduled.json
    assert (await sql_client.ask("DELETE", f"{PATH}/scheduled")).json["scheduled"] is None
    assert (await sql_client.ask("DELETE", f"{PATH}/scheduled")).status == 404
    history = (await sql_client.ask("GET", f"{PATH}/history")).json["data"]
    assert [(line["what"], line["plan"]) for line in history] == [
        ("unscheduled", "pro"),
        ("scheduled", "starter"),
        ("started", "pro"),
    ]
    assert history[1]["effective_at"] == "2026-11-30T12:00:00Z"


async def test_a_customer_without_a_subscription_is_on_the_default_plan(sql_client: Any) -> None:
    """From the start where no plan was named, and again once its subscription has ended."""
    made = await sql_client.ask("POST", "/customers", {"id": "acme", "name": "A"})
    assert made.json["plan"] == "starter"
    assert (await sql_client.ask("GET", PATH)).json["subscribed"] is False
    assert (await sql_client.ask("DELETE", PATH)).status == 404
    assert (await sql_client.ask("PUT", PATH, {"plan": "pro", "when": "period_end"})).status == 404
    assert (await sql_client.ask("PUT", PATH, {"plan": "pro"})).json["subscribed"] is True
    ends = (await sql_client.ask("DELETE", f"{PATH}?when=period_end")).json
    assert (ends["plan"], ends["subscribed"]) == ("pro", True)
    assert ends["scheduled"] == {"plan": "starter", "at": "2026-12-20T12:00:00Z", "cancels": True}
    ended = (await sql_client.ask("DELETE", PATH)).json
    assert (ended["plan"], ended["subscribed"], ended["scheduled"]) == ("starter", False, None)


async def test_windows_begin_anew_when_that_is_asked(sql_client: Any) -> None:
    """By an anchor, or by usage "reset", which is an anchor of now."""
    anchor = "2026-11-01T00:00:00Z"
    await sql_client.ask("POST", "/customers", {"id": "acme", "name": "A", "plan": "pro", "anchor": anchor})
    assert (await sql_client.ask("PUT", PATH, {"plan": "starter"})).json["anchor"] == anchor
    moved = (await sql_client.ask("PUT", PATH, {"anchor": "2026-11-05T00:00:00+01:00"})).json
    assert (moved["plan"], moved["anchor"]) == ("starter", "2026-11-04T23:00:00Z")
    reset = (await sql_client.ask("PUT", PATH, {"plan": "pro", "usage": "reset"})).json
    assert (reset["plan"], reset["anchor"]) == ("pro", "2026-11-20T12:00:00Z")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "Name a `plan`"),
        ({"when": "period_end"}, "Name a `plan`"),
        ({"plan": "pro", "anchor": "2026-11-05T00:00:00Z", "when": "period_end"}, "only the `plan` changes"),
        ({"plan": "pro", "usage": "reset", "when": "period_end"}, "only the `plan` changes"),
        ({"usage": "reset", "anchor": "2026-11-05T00:00:00Z"}, "leave one of the two out"),
        ({"plan": "prro"}, "Did you mean 'pro'?"),
        ({"plan": "pro", "when": "tomorrow"}, "'now' or 'period_end'"),
    ],
)
async def test_what_cannot_be_meant_is_refused(body: dict[str, Any], told: str, furnished: Any) -> None:
    """A change that is half understood is a wrong invoice."""
    answer = await furnished.ask("PUT", PATH, body)
    assert (answer.status, told in answer.error["message"]) == (400, True), answer.error


async def test_a_schedule_is_changed_only_by_who_has_seen_it(sql_client: Any) -> None:
    """Two admins: the second must not cancel by accident what the first has just arranged."""
    await sql_client.ask("POST", "/customers", {"id": "acme", "name": "A", "plan": "pro"})
    seen = (await sql_client.ask("GET", PATH)).headers["ETag"]
    await sql_client.ask("PUT", PATH, {"plan": "starter", "when": "period_end"})
    late = await sql_client.ask("DELETE", PATH, headers={"If-Match": seen})
    assert late.status == 412
    assert (await sql_client.ask("GET", PATH)).json["scheduled"]["plan"] == "starter"
