"""What nobody in his right mind sends, and everybody with a scanner does: refused or kept exactly, never half."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import func, select
from yarl import URL

from proxy.ledger.tables import audit_log, customers
from proxy.web.admin.app import ROUTES
from tests.doubles.admin import TOKEN

KEPT = [
    "\N{GRINNING FACE}\N{WOMAN}\N{ZERO WIDTH JOINER}\N{PERSONAL COMPUTER}",
    "שלום עולם",
    "e\N{COMBINING ACUTE ACCENT}tude",
    "Robert'); DROP TABLE customers;--",
    '" OR ""="',
    "{{7*7}}${7*7}<script>alert(1)</script>",
    "=cmd|'/c calc'!A1",
    "%00%0d%0aSet-Cookie: a=b",
    "x" * 200,
]
REFUSED = [
    "a\x00b",
    "\x1b[2J",
    "a\x7fb",
    "\N{RIGHT-TO-LEFT OVERRIDE}cod.exe",
    "\N{LINE SEPARATOR}",
    "x" * 201,
    "x" * 10_000,
    " ",
    "",
    0,
    -1,
    1e308,
    10**400,
    True,
    None,
    [],
    {},
    ["a"],
    {"$ne": None},
]
IN_FILTERS = [
    "' OR '1'='1",
    "1; DROP TABLE audit_log;--",
    "acme' UNION SELECT digest FROM agent_secrets--",
    "%27",
    "\\",
    "a*",
    "%",
    "_",
    "\N{GRINNING FACE}",
    "../../etc/passwd",
    "-1",
    "99999999999999999999",
    "NaN",
    "x" * 10_000,
    "a\x00b",
]


async def rows(client: Any, table: Any) -> int:
    async with client.plane.engine.connect() as connection:
        return int(await connection.scalar(select(func.count()).select_from(table)))


@pytest.mark.parametrize("name", KEPT)
async def test_strange_names_are_kept_letter_by_letter(name: str, sql_client: Any) -> None:
    """Also in the audit log, and in what a key answers again."""
    headers = {"Idempotency-Key": "k"}
    made = await sql_client.ask("POST", "/customers", {"name": name}, headers=headers)
    again = await sql_client.ask("POST", "/customers", {"name": name}, headers=headers)

    assert (made.status, made.json["name"], again.raw) == (201, name, made.raw)
    assert (await sql_client.ask("GET", f"/customers/{made.json['id']}")).json["name"] == name
    (entry,) = (await sql_client.ask("GET", "/audit-log")).json["data"]
    assert entry["changes"]["name"] == {"from": None, "to": name}
    assert (await sql_client.ask("GET", "/audit-log/verification")).json["ok"]


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: repr(value)[:30])
async def test_what_is_no_name_is_400_and_leaves_nothing(value: Any, sql_client: Any) -> None:
    """Control characters, too much, nothing, and every other type of JSON."""
    answer = await sql_client.ask("POST", "/customers", {"name": value})

    assert answer.status == 400, answer.raw
    assert await rows(sql_client, customers) == await rows(sql_client, audit_log) == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("timezone", 5),
        ("status", "ACTIVE"),
        ("anchor", "2026-13-01T00:00:00Z"),
        ("anchor", "0000-01-01T00:00:00Z"),
        ("anchor", 99999999999999999999),
        ("anchor", True),
        ("email", ["a@b.example"]),
        ("id", "a" * 129),
        ("id", "\N{FULLWIDTH LATIN SMALL LETTER A}"),
        ("address", "x" * 2001),
        ("phone", "x" * 51),
        ("__proto__", {}),
        ("constructor", "x"),
        ("revision", 9),
        ("created_at", "2026-01-01T00:00:00Z"),
    ],
)
async def test_a_field_that_is_wrong_or_not_there_is_400(field: str, value: Any, sql_client: Any) -> None:
    """S27: what slips through is how tenants become admins."""
    answer = await sql_client.ask("POST", "/customers", {"name": "a", field: value})

    assert answer.status == 400, answer.raw
    assert answer.error["param"] == field or value == 99999999999999999999


@pytest.mark.parametrize(
    "raw",
    [
        b'{"name":"a","name":"b"}',
        b'{"name":"a","n\\u0061me":"b"}',
        b'{"name":"\xff"}',
        b'{"name":"\\ud800"}',
        b'{"name":"a"}{"name":"b"}',
        b'\xef\xbb\xbf{"name":"a"}',
        b'{"name":' + b"[" * 100_000,
        b'{"name":"a",}',
        b"{'name':'a'}",
    ],
)
async def test_a_body_that_readers_may_read_differently_is_400(raw: bytes, sql_client: Any) -> None:
    """Duplicate keys, broken text, two documents in one."""
    answer = await sql_client.ask("POST", "/customers", data=raw, headers={"Content-Type": "application/json"})

    assert (answer.status, answer.error["code"]) == (400, "invalid_json")
    assert await rows(sql_client, customers) == 0


FILTERS = [
    (route, name)
    for route in ROUTES
    if route.reads and "{" not in route.path
    for name in (field.alias or name for name, field in route.query.model_fields.items())
]


@pytest.mark.parametrize(("route", "name"), FILTERS, ids=lambda value: getattr(value, "path", value))
async def test_no_filter_is_more_than_a_filter(route: Any, name: str, sql_client: Any) -> None:
    """S29: what looks like SQL finds nothing or is refused, and never fails."""
    await sql_client.ask("POST", "/customers", {"id": "acme", "name": "Acme", "plan": "starter"})
    for value in IN_FILTERS:
        url = URL(sql_client.plane.url + route.path).with_query({name: value})
        answer = await sql_client.session.get(url, headers={"Authorization": f"Bearer {TOKEN}"})
        assert answer.status in (200, 400), (name, value, await answer.text())
        if name not in ("limit", "cursor") and answer.status == 200 and route.path.endswith("/audit-log"):
            assert (await answer.json())["data"] == []
    assert await rows(sql_client, customers) == 1


@pytest.mark.parametrize("header", ["Authorization", "If-Match", "If-None-Match", "Idempotency-Key", "Accept"])
@pytest.mark.parametrize("value", ["' OR 1=1--", "x" * 7000, "\xff\xfe", "*", '""', ",,,", "W/", '"' * 200])
async def test_no_header_brings_it_down(header: str, value: str, sql_client: Any) -> None:
    """S29: a fault on the way to an error message is a fault that needs no token."""
    for method, body in (("GET", None), ("PATCH", {"name": "a"})):
        headers = {"Authorization": f"Bearer {TOKEN}", header: value}
        answer = await sql_client.ask(method, "/customers/acme", body, headers=headers, token=None)
        assert answer.status in (400, 401, 404, 429), answer.raw
