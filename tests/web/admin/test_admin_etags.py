"""ETags and conditions, on a real ledger: nobody overwrites what they have not seen."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from proxy.web.admin.app import ROUTES
from proxy.web.admin.etags import tag_of
from tests.doubles.directory import NOW

ONES = [route for route in ROUTES if route.reads and route.tagged]


async def furnish(client: Any) -> str:
    """Customer acme with agent scout; returns the ETag of acme."""
    made = await client.ask("POST", "/customers", {"id": "acme", "name": "Acme", "plan": "starter"})
    await client.ask("POST", "/agent-types", {"id": "research", "name": "Research"})
    await client.ask(
        "POST", "/agents", {"id": "scout", "name": "S", "customer_id": "acme", "agent_type_id": "research"}
    )
    return str(made.headers["ETag"])


def test_every_resource_that_is_shown_alone_has_an_etag() -> None:
    """Lists, metrics and what needs no token have none."""
    untagged = {r.path for r in ROUTES if r.reads and not r.tagged and not r.listed}

    assert untagged == {"/metrics", "/healthz"}


async def test_the_etag_is_that_of_what_was_made_changed_and_is_shown(sql_client: Any) -> None:
    """Who has just written need not read to write again."""
    made = await furnish(sql_client)
    shown = await sql_client.ask("GET", "/customers/acme")
    changed = await sql_client.ask("PATCH", "/customers/acme", {"name": "Acme Corp"})

    assert shown.headers["ETag"] == made
    assert not made.startswith("W/")
    assert changed.headers["ETag"] != made
    assert (await sql_client.ask("GET", "/customers/acme")).headers["ETag"] == changed.headers["ETag"]


@pytest.mark.parametrize("form", ["{}", "W/{}", '"x", {}', "*"])
async def test_what_is_known_already_is_not_sent_again(form: str, sql_client: Any) -> None:
    """If-None-Match compares weakly, as RFC 9110 has it."""
    tag = await furnish(sql_client)

    answer = await sql_client.ask("GET", "/customers/acme", headers={"If-None-Match": form.format(tag)})

    assert (answer.status, answer.raw, answer.headers["ETag"]) == (304, b"", tag)
    await sql_client.ask("PATCH", "/customers/acme", {"phone": "1"})
    fresh = await sql_client.ask("GET", "/customers/acme", headers={"If-None-Match": f'"x", {tag}'})
    assert fresh.status == 200


@pytest.mark.parametrize("form", ["{}", '"x", {}', "*"])
async def test_a_change_of_what_was_seen_is_done(form: str, sql_client: Any) -> None:
    """The condition holds."""
    tag = await furnish(sql_client)

    answer = await sql_client.ask(
        "PATCH", "/customers/acme", {"name": "B"}, headers={"If-Match": form.format(tag)}
    )

    assert (answer.status, answer.json["name"]) == (200, "B")


@pytest.mark.parametrize("body", [{"name": "C"}, {}, {"name": "B"}])
async def test_a_change_of_what_has_changed_is_412_and_changes_nothing(
    body: dict[str, Any], sql_client: Any
) -> None:
    """Two admins with the same page open; the second must look again. Also where nothing would change."""
    tag = await furnish(sql_client)
    other = await sql_client.ask("PATCH", "/customers/acme", {"name": "B"})

    answer = await sql_client.ask("PATCH", "/customers/acme", body, headers={"If-Match": tag})

    assert (answer.status, answer.error["code"]) == (412, "precondition_failed")
    assert answer.headers["ETag"] == other.headers["ETag"]
    assert (await sql_client.ask("GET", "/customers/acme")).json == other.json


async def test_a_weak_tag_never_matches(sql_client: Any) -> None:
    """If-Match compares strongly."""
    tag = await furnish(sql_client)

    answer = await sql_client.ask("PATCH", "/customers/acme", {"name": "B"}, headers={"If-Match": f"W/{tag}"})

    assert answer.status == 412


async def test_twenty_changes_of_the_same_state_and_one_wins(sql_client: Any) -> None:
    """Compared inside the transaction: between looking and writing nobody else gets a word in."""
    tag = await furnish(sql_client)

    answers = await asyncio.gather(
        *(
            sql_client.ask("PATCH", "/customers/acme", {"name": f"N{n}"}, headers={"If-Match": tag})
            for n in range(20)
        )
    )

    assert sorted(answer.status for answer in answers) == [200] + [412] * 19
    winner = next(answer for answer in answers if answer.status == 200)
    assert (await sql_client.ask("GET", "/customers/acme")).json == winner.json


async def test_a_subscription_and_a_secret_have_conditions_of_their_own(sql_client: Any) -> None:
    """Each is compared as its own GET shows it."""
    await furnish(sql_client)
    tag = (await sql_client.ask("GET", "/customers/acme/subscription")).headers["ETag"]
    await sql_client.ask("PATCH", "/customers/acme", {"name": "the subscription is the same"})
    put = await sql_client.ask("PUT", "/customers/acme/subscription", {"plan": "pro"}, headers={"If-Match": tag})
    late = await sql_client.ask(
        "PUT", "/customers/acme/subscription", {"plan": "starter"}, headers={"If-Match": tag}
    )
    assert (put.status, late.status) == (200, 412)

    secret = (await sql_client.ask("POST", "/agents/scout/secrets", {})).json["id"]
    path = f"/agents/scout/secrets/{secret}"
    tag = (await sql_client.ask("GET", path)).headers["ETag"]
    assert (await sql_client.ask("DELETE", path, headers={"If-Match": '"other"'})).status == 412
    assert (await sql_client.ask("GET", path)).json["revoked_at"] is None
    assert (await sql_client.ask("DELETE", path, headers={"If-Match": tag})).status == 204


async def test_that_a_token_was_used_does_not_change_its_etag(sql_client: Any) -> None:
    """A token in use could else never be revoked under a condition."""
    made = (await sql_client.ask("POST", "/tokens", {"name": "ci", "role": "operator"})).json
    tag = (await sql_client.ask("GET", f"/tokens/{made['id']}")).headers["ETag"]
    await sql_client.ask("GET", "/customers", token=made["token"])

    shown = await sql_client.ask("GET", f"/tokens/{made['id']}", headers={"If-None-Match": tag})
    gone = await sql_client.ask("DELETE", f"/tokens/{made['id']}", headers={"If-Match": tag})

    assert (shown.status, shown.headers["ETag"]) == (200, tag)
    assert shown.json["last_used_at"] is not None
    assert gone.status == 204


@pytest.mark.parametrize(
    ("method", "path", "tag"),
    [
        ("PATCH", "/customers/acme", "without-quotes"),
        ("PATCH", "/customers/acme", '"a" "b"'),
        ("PATCH", "/customers/acme", ""),
        ("PATCH", "/customers/acme", '"é"'),
        ("POST", "/customers", '"0123"'),
    ],
)
async def test_a_condition_that_cannot_be_kept_is_refused(
    method: str, path: str, tag: str, sql_client: Any
) -> None:
    """A condition that is ignored is worse than none."""
    await furnish(sql_client)

    answer = await sql_client.ask(method, path, {"name": "B"}, headers={"If-Match": tag})

    assert (answer.status, answer.error["param"]) == (400, "If-Match")


def test_the_same_resource_has_the_same_etag_in_any_process() -> None:
    """Two keepers, or the same after a restart, must agree."""
    route = next(route for route in ONES if route.path.endswith("/customers/{customer_id}/subscription"))

    class Customer:
        id, plan, anchor = "acme", "starter", NOW
        subscribed, timezone, scheduled = True, "UTC", None

    assert tag_of(route, Customer()) == '"337643b78767d242029098e2d0cd4bd9"'
