"""Idempotency keys over HTTP, on a real ledger: done once, answered as often as it is sent."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, text

from proxy.ledger.tables import agent_secrets, customers, idempotency_keys
from tests.doubles.admin import TOKEN

KEY = {"Idempotency-Key": "3f1d7a52-0b6e-4c53-9a55-5c8f4a9e9a11"}


async def count(client: Any, table: Any) -> int:
    async with client.plane.engine.connect() as connection:
        return int(await connection.scalar(select(func.count()).select_from(table)))


async def test_a_write_that_is_sent_twice_is_done_once_and_answered_the_same(sql_client: Any) -> None:
    """A client whose answer was lost on the way must be able to ask again."""
    first = await sql_client.ask("POST", "/customers", {"name": "Acme", "email": "a@b.example"}, headers=KEY)
    again = await sql_client.ask("POST", "/customers", {"email": "a@b.example", "name": "Acme"}, headers=KEY)

    assert first.status == again.status == 201
    assert again.raw == first.raw
    assert again.headers["ETag"] == first.headers["ETag"]
    assert again.headers["Content-Type"] == first.headers["Content-Type"]
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    assert await count(sql_client, customers) == 1


async def test_twenty_at_once_make_one(sql_client: Any) -> None:
    """A retry storm is one deed: the others are told to wait, that it is done, or get its answer."""
    answers = await asyncio.gather(
        *(sql_client.ask("POST", "/customers", {"name": "Acme"}, headers=KEY) for _ in range(20))
    )

    assert {answer.status for answer in answers} <= {201, 409}
    assert len({answer.raw for answer in answers if answer.status == 201}) == 1
    assert {a.error["code"] for a in answers if a.status == 409} <= {"idempotency_key_in_use", "already_done"}
    assert await count(sql_client, customers) == 1


async def test_another_request_under_the_same_key_is_422(sql_client: Any) -> None:
    """A key that is used for everything would swallow every write but the first."""
    await sql_client.ask("POST", "/customers", {"id": "acme", "name": "Acme"}, headers=KEY)

    for method, path, body in (
        ("POST", "/customers", {"id": "acme", "name": "Acme Corp"}),
        ("PATCH", "/customers/acme", {"name": "Acme"}),
        ("POST", "/agent-types", {"id": "acme", "name": "Acme"}),
    ):
        answer = await sql_client.ask(method, path, body, headers=KEY)
        assert (answer.status, answer.error["code"]) == (422, "idempotency_key_reused")
    assert (await sql_client.ask("GET", "/customers/acme")).json["name"] == "Acme"


async def test_keys_belong_to_a_token(sql_client: Any) -> None:
    """S31: another's key gives neither another's answer nor another's refusal."""
    other = await sql_client.plane.token("operator")
    await sql_client.ask("POST", "/customers", {"name": "Acme"}, headers=KEY)

    answer = await sql_client.ask("POST", "/customers", {"name": "Globex"}, headers=KEY, token=other)

    assert (answer.status, answer.json["name"]) == (201, "Globex")


async def test_a_secret_is_not_told_a_second_time(sql_client: Any) -> None:
    """It is kept nowhere, so the second answer can but say which one was made, and what to do."""
    await furnish(sql_client)
    made = await sql_client.ask("POST", "/agents/scout/secrets", {}, headers=KEY)
    again = await sql_client.ask("POST", "/agents/scout/secrets", {}, headers=KEY)

    assert (again.status, again.error["code"]) == (409, "secret_already_shown")
    assert made.json["id"] in again.error["message"]
    assert again.headers["Location"] == f"/admin/v1/agents/scout/secrets/{made.json['id']}"
    assert (await sql_client.ask("GET", again.headers["Location"].removeprefix("/admin/v1"))).status == 200
    assert await count(sql_client, agent_secrets) == 1
    async with sql_client.plane.engine.connect() as connection:
        everything = [str(row) for row in await connection.execute(select(idempotency_keys))]
    assert made.json["secret"] not in "".join(everything)


async def test_a_token_is_not_told_a_second_time(sql_client: Any) -> None:
    """As an agent's secret."""
    made = await sql_client.ask("POST", "/tokens", {"name": "ci", "role": "owner"}, headers=KEY)
    again = await sql_client.ask("POST", "/tokens", {"name": "ci", "role": "owner"}, headers=KEY)

    assert (again.status, again.error["code"]) == (409, "secret_already_shown")
    assert again.headers["Location"] == f"/admin/v1/tokens/{made.json['id']}"


async def test_a_refused_write_leaves_its_key_free(sql_client: Any) -> None:
    """Who corrects a mistake need not think about keys: nothing was done under this one."""
    for body in ({"name": ""}, {"name": "Acme", "plan": "nosuch"}):
        assert (await sql_client.ask("POST", "/customers", body, headers=KEY)).status == 400
    assert (await sql_client.ask("PATCH", "/customers/acme", {"name": "A"}, headers=KEY)).status == 404

    assert (await sql_client.ask("POST", "/customers", {"name": "Acme"}, headers=KEY)).status == 201


async def test_what_was_done_but_not_answered_is_not_done_again(sql_client: Any) -> None:
    """Redis away after the commit: the second time must neither write again nor claim that all is well."""
    sql_client.plane.accounts.away = True
    first = await sql_client.ask("POST", "/customers", {"name": "Acme"}, headers=KEY)
    sql_client.plane.accounts.away = False
    again = await sql_client.ask("POST", "/customers", {"name": "Acme"}, headers=KEY)

    assert first.error["code"] == "not_projected"
    assert (again.status, again.error["code"]) == (409, "already_done")
    assert "(customer cus_" in again.error["message"]
    assert await count(sql_client, customers) == 1


async def test_deletions_and_changes_are_replayed_too(sql_client: Any) -> None:
    """Every write, with or without an answer's body."""
    await furnish(sql_client)
    secret = (await sql_client.ask("POST", "/agents/scout/secrets", {})).json["id"]

    for n, (method, path, body) in enumerate(
        (
            ("DELETE", f"/agents/scout/secrets/{secret}", None),
            ("PATCH", "/customers/acme", {"name": "Acme Corp"}),
            ("PUT", "/customers/acme/subscription", {"plan": "pro"}),
            ("PATCH", "/customers/acme", {}),
        )
    ):
        headers = {"Idempotency-Key": f"key {n}"}
        first = await sql_client.ask(method, path, body, headers=headers)
        await sql_client.ask("PATCH", "/customers/acme", {"name": f"Changed meanwhile {n}"})
        again = await sql_client.ask(method, path, body, headers=headers)
        assert first.status in (200, 204)
        assert (again.status, again.raw) == (first.status, first.raw)
        assert again.headers["Idempotency-Replayed"] == "true"


async def test_a_key_is_forgotten_after_a_day(sql_client: Any) -> None:
    """What is kept is bounded."""
    await sql_client.ask("POST", "/customers", {"name": "Acme"}, headers=KEY)
    sql_client.plane.clock.move(timedelta(hours=24, seconds=1))

    assert (await sql_client.ask("POST", "/customers", {"name": "Globex"}, headers=KEY)).status == 201
    sql_client.plane.clock.move(timedelta(hours=24, seconds=1))
    assert await sql_client.plane.keys.sweep() == 1
    assert await count(sql_client, idempotency_keys) == 0


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", "schlüssel", "\N{GRINNING FACE}"])
async def test_a_key_that_is_none_is_refused(key: str, sql_client: Any) -> None:
    """At most 255 printable characters: what is kept is bounded, and can be shown."""
    answer = await sql_client.ask("POST", "/customers", {"name": "Acme"}, headers={"Idempotency-Key": key})

    assert (answer.status, answer.error["code"]) == (400, "invalid_idempotency_key")
    assert await count(sql_client, customers) == 0


async def test_a_key_of_a_read_is_of_no_consequence(sql_client: Any) -> None:
    """Clients that send one with everything are not wrong."""
    for _ in range(2):
        assert (await sql_client.ask("GET", "/customers", headers=KEY)).status == 200
    assert await count(sql_client, idempotency_keys) == 0


async def test_an_answer_that_cannot_be_kept_is_given_all_the_same(sql_client: Any) -> None:
    """The write is done; an error would say that it is not. A second time is told so by the write's own mark."""
    async with sql_client.plane.engine.begin() as connection:
        await connection.execute(
            text(
                "CREATE TRIGGER full BEFORE UPDATE OF status ON idempotency_keys"
                " BEGIN SELECT RAISE(ABORT, 'disk full'); END"
            )
        )
    first = await sql_client.ask("POST", "/customers", {"name": "Acme"}, headers=KEY)
    again = await sql_client.ask("POST", "/customers", {"name": "Acme"}, headers=KEY)

    assert first.status == 201
    assert (again.status, again.error["code"]) == (409, "already_done")


async def furnish(client: Any) -> None:
    for path, body in (
        ("/customers", {"id": "acme", "name": "Acme", "plan": "starter"}),
        ("/agent-types", {"id": "research", "name": "Research"}),
        ("/agents", {"id": "scout", "name": "Scout", "customer_id": "acme", "agent_type_id": "research"}),
    ):
        assert (await client.ask("POST", path, body, token=TOKEN)).status == 201
