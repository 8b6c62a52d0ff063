"""Who may do what: every role at every route, and tokens from their making to their end."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.domain.deeds import ROLES, Role, may
from proxy.web.admin.app import ROUTES
from proxy.web.admin.routes import Route
from tests.doubles.admin import TOKEN

GUARDED = [route for route in ROUTES if not route.open]

QUESTIONS = {"POST /admin/v1/decisions", "POST /admin/v1/plans/validate"}
"""They change nothing; what is asked is only too long for a query."""


def named(route: Route) -> str:
    return f"{route.method} {route.path}"


def path_of(route: Route) -> str:
    return route.path.removeprefix("/admin/v1").format_map(Anything())


class Anything(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return "nobody"


def test_every_route_has_a_least_role_and_none_that_writes_is_for_readers() -> None:
    """A route that nobody thought of is closed, not open: reading takes a reader, all else an operator."""
    assert {route.role for route in GUARDED} <= set(ROLES)
    assert {named(r) for r in GUARDED if not r.reads and r.role == "read-only"} <= QUESTIONS
    assert {named(r) for r in GUARDED if r.role == "owner"} == {
        "POST /admin/v1/tokens",
        "GET /admin/v1/tokens",
        "GET /admin/v1/tokens/{token_id}",
        "DELETE /admin/v1/tokens/{token_id}",
    }


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("route", GUARDED, ids=named)
async def test_each_role_is_enforced_at_each_route(route: Route, role: Role, client: Any) -> None:
    """Not what the table says but what the listener does; the refusal comes before anything is read or done."""
    token = await client.plane.token(role)

    answer = await client.ask(route.method, path_of(route), token=token)

    assert (answer.status == 403) == (not may(role, route.role)), answer.raw
    assert answer.status != 401
    if answer.status == 403:
        assert answer.error["code"] == "insufficient_role"
        assert f"takes the role '{route.role}'" in answer.error["message"]
        assert f"has '{role}'" in answer.error["message"]
        assert [deed.route for deed in client.plane.audit_log.written] == [route.path]


async def test_a_token_is_shown_once_and_works_at_once(client: Any) -> None:
    """What can be read again can be stolen again."""
    made = await client.ask("POST", "/tokens", {"name": "ci", "role": "operator"})
    listed = await client.ask("GET", "/tokens")
    one = await client.ask("GET", f"/tokens/{made.json['id']}")

    assert made.status == 201
    assert made.json["token"].startswith(f"fga_live_{made.json['id']}_")
    assert (made.json["role"], made.json["created_by"]) == ("operator", "bootstrap")
    assert [token["id"] for token in listed.json["data"]] == ["bootstrap", made.json["id"]]
    assert made.json["token"].encode() not in listed.raw + one.raw
    assert b"digest" not in listed.raw + one.raw + made.raw
    assert (await client.ask("GET", "/customers", token=made.json["token"])).status == 200


async def test_a_token_says_when_it_was_used_last(client: Any) -> None:
    """Whoever cleans up must see which tokens nobody uses."""
    made = (await client.ask("POST", "/tokens", {"name": "ci", "role": "read-only"})).json
    assert made["last_used_at"] is None

    await client.ask("GET", "/customers", token=made["token"])

    assert (await client.ask("GET", f"/tokens/{made['id']}")).json["last_used_at"] == "2026-11-20T12:00:00Z"


async def test_a_revoked_token_is_refused_from_the_next_request_on_and_stays_listed(client: Any) -> None:
    """Who looks after a leak must see that it is closed."""
    made = (await client.ask("POST", "/tokens", {"name": "ci", "role": "owner"})).json

    gone = await client.ask("DELETE", f"/tokens/{made['id']}", token=made["token"])

    assert (gone.status, gone.raw) == (204, b"")
    assert (await client.ask("GET", "/customers", token=made["token"])).status == 401
    assert (await client.ask("GET", f"/tokens/{made['id']}")).json["revoked_at"] == "2026-11-20T12:00:00Z"


async def test_the_first_owner_cannot_be_locked_out(client: Any) -> None:
    """Whatever owners do to each other, who starts the gate has a way in."""
    owner = await client.plane.token("owner")

    answer = await client.ask("DELETE", "/tokens/bootstrap", token=owner)

    assert answer.status == 409
    assert answer.error["code"] == "bootstrap_token"
    assert (await client.ask("GET", "/tokens/bootstrap", token=TOKEN)).json["role"] == "owner"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"role": "owner"}, "name"),
        ({"name": "ci"}, "role"),
        ({"name": "ci", "role": "admin"}, "role"),
        ({"name": "ci", "role": "owner", "expires_at": "2026-11-20T12:00:00Z"}, "expires_at"),
        ({"name": "ci", "role": "owner", "token": "mine"}, "token"),
    ],
)
async def test_a_token_that_makes_no_sense_is_refused(body: dict[str, Any], param: str, client: Any) -> None:
    """S27: a role that nobody knows, or a token that the caller has chosen."""
    answer = await client.ask("POST", "/tokens", body)

    assert (answer.status, answer.error["param"]) == (400, param)


async def test_refusals_in_a_row_are_written_down_once(client: Any) -> None:
    """Who may read only must not be able to fill the audit log."""
    token = await client.plane.token("read-only")

    for _ in range(3):
        assert (await client.ask("POST", "/customers", {"name": "a"}, token=token)).status == 403
    await client.ask("DELETE", "/tokens/abc", token=token)

    assert [(deed.method, deed.route) for deed in client.plane.audit_log.written] == [
        ("POST", "/admin/v1/customers"),
        ("DELETE", "/admin/v1/tokens/{token_id}"),
    ]
