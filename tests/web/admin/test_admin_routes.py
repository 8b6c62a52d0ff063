"""Every route of the admin plane: what it does, and how it refuses."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from proxy.domain.deeds import by_the_gate
from proxy.domain.secrets import ADMIN_PREFIX, SECRET_RANDOM_BYTES, make_secret
from proxy.gateway.ports import StoreAway
from proxy.web.admin.app import ROUTES
from proxy.web.admin.routes import Route
from tests.doubles.admin import DIGEST

GUARDED = [route for route in ROUTES if not route.open]
WITH_BODY = [route for route in ROUTES if route.body]
WITH_ID = [route for route in ROUTES if "{" in route.path]
LISTS = [route for route in ROUTES if route.listed and "limit" in route.query.model_fields]

BODIES: dict[str, dict[str, Any]] = {
    "create_customer": {"name": "Globex"},
    "change_customer": {"name": "Globex"},
    "create_contact": {"name": "Grace"},
    "put_subscription": {"plan": "pro"},
    "put_overrides": {"features": {"web_search": True}},
    "create_grant": {"meter": "tokens", "amount": 500},
    "create_agent_type": {"name": "Writer"},
    "create_agent": {"name": "Scribe", "customer_id": "acme", "agent_type_id": "research"},
    "create_secret": {},
    "create_token": {"name": "ci", "role": "operator"},
    "create_plan": {"id": "team"},
    "replace_plan": {"name": "Professional"},
    "validate_plan": {"id": "team"},
    "apply_policy_files": {"dry_run": True},
    "roll_back_plan": {"version": 1},
    "adopt_plan": {"to": "files"},
    "create_webhook_endpoint": {"url": "https://example.com/hooks"},
    "change_webhook_endpoint": {"enabled": True},
}


# The second number that the plane gives out; the first is the secret's.
FIRST_TOKEN = make_secret((2).to_bytes(7, "big") + bytes(SECRET_RANDOM_BYTES - 7), ADMIN_PREFIX)[0]


def named(route: Route) -> str:
    return f"{route.method} {route.path}"


def path_of(route: Route, **ids: str) -> str:
    known = {"customer_id": "acme", "agent_id": "scout", "secret_id": "sec1", "plan_id": "pro", "version": "1"}
    known["grant_id"] = "pack-1"
    known["token_id"] = FIRST_TOKEN
    known |= {"alert_id": "alr_1", "endpoint_id": "home", "delivery_id": "dlv_1"}
    return route.path.removeprefix("/admin/v1").format(**{**known, **ids})


def body_of(route: Route) -> dict[str, Any] | None:
    return BODIES[route.handler.__name__] if route.body else None


async def give_terms(furnished: Any) -> None:
    """Customer acme has a scheduled change and a grant."""
    for method, path, body in (
        ("PUT", "/customers/acme/subscription", {"plan": "pro", "when": "period_end"}),
        ("POST", "/customers/acme/grants", {"id": "pack-1", "meter": "tokens", "amount": 9}),
    ):
        assert (await furnished.ask(method, path, body)).status in (200, 201)


@pytest.mark.parametrize("route", ROUTES, ids=named)
async def test_every_route_does_its_deed(route: Route, furnished: Any) -> None:
    """The happy path of each; the client also holds each answer against the OpenAPI document."""
    await furnished.ask("POST", "/agents/scout/secrets", {})
    await furnished.plane.token("operator")
    await give_terms(furnished)

    answer = await furnished.ask(route.method, path_of(route), body_of(route))

    assert answer.status == route.status
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("token", [None, "wrong", "an-admin-token-of-the-testsX", "\xff"])
@pytest.mark.parametrize("route", GUARDED, ids=named)
async def test_without_the_token_every_route_is_401(route: Route, token: str | None, furnished: Any) -> None:
    """The plane is never open, and says no more to a guesser than that it is closed."""
    answer = await furnished.ask(route.method, path_of(route), body_of(route), token=token)

    assert answer.status == 401
    assert answer.error["code"] == "invalid_admin_token"


async def test_an_unknown_route_is_401_without_and_404_with_the_token(client: Any) -> None:
    """Whoever has no token does not learn which routes there are."""
    assert (await client.ask("GET", "/nothing", token=None)).status == 401
    answer = await client.ask("GET", "/nothing")
    assert answer.status == 404
    assert answer.error["code"] == "unknown_route"


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"null", b'{"name":"a","name":"b"}', b'{"name":NaN}', b"\xff\xfe", b"[" * 10_000]
)
@pytest.mark.parametrize("route", WITH_BODY, ids=named)
async def test_a_body_that_is_no_json_object_is_400(route: Route, raw: bytes, furnished: Any) -> None:
    """Two readers must never see different bodies: duplicate keys and NaN count as broken."""
    answer = await furnished.ask(
        route.method, path_of(route), data=raw, headers={"Content-Type": "application/json"}
    )

    assert answer.status == 400
    assert answer.error["code"] == "invalid_json"


@pytest.mark.parametrize("route", [r for r in WITH_BODY if "/validate" not in r.path], ids=named)
async def test_a_field_that_is_not_named_is_refused(route: Route, furnished: Any) -> None:
    """S27: a field that slips through (a role, a limit, another's id) is how tenants become admins."""
    answer = await furnished.ask(route.method, path_of(route), {**(body_of(route) or {}), "budget_limit": 1})

    assert answer.status == 400
    told = answer.json["error"]
    assert told["code"] in ("unknown_parameter", "invalid_plan")
    assert told["param"] == "budget_limit"


@pytest.mark.parametrize("route", WITH_BODY, ids=named)
async def test_a_body_must_say_that_it_is_json_as_it_comes(route: Route, furnished: Any) -> None:
    """A form post from a page in the admin's browser must not pass, nor a compressed bomb."""
    for headers in (
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/json", "Content-Encoding": "br"},
    ):
        answer = await furnished.ask(route.method, path_of(route), data=b"{}", headers=headers)
        assert answer.status == 415


@pytest.mark.parametrize("route", WITH_BODY, ids=named)
async def test_a_body_above_a_megabyte_is_413(route: Route, furnished: Any) -> None:
    """Memory is bounded even for those who hold the token."""
    answer = await furnished.ask(route.method, path_of(route), {"name": "x" * 1_000_001})

    assert answer.status == 413


@pytest.mark.parametrize("route", WITH_ID, ids=named)
@pytest.mark.parametrize("id", ["nobody", "..%2f..%2fetc", "%00", "x" * 200, "'%20OR%201=1--", "%C3%A9"])
async def test_what_is_not_there_is_404(route: Route, id: str, furnished: Any) -> None:
    """What cannot be an id at all is answered like an id that nobody has."""
    last = route.path.split("{")[-1].partition("}")[0]
    from yarl import URL

    path = path_of(route, **{last: id})
    answer = await furnished.session.request(
        route.method,
        URL(f"{furnished.plane.url}/admin/v1{path}", encoded=True),
        json=body_of(route),
        headers={"Authorization": "Bearer an-admin-token-of-the-tests"},
    )

    assert answer.status == 404
    assert (await answer.json())["error"]["code"] in ("not_found", "unknown_route")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/customers", {"id": "acme", "name": "Acme again"}),
        ("/customers/acme/contacts", {"id": "ada", "name": "Ada again"}),
        ("/agent-types", {"id": "research", "name": "Research again"}),
        ("/agents", {"id": "scout", "name": "S", "customer_id": "acme", "agent_type_id": "research"}),
    ],
)
async def test_an_id_that_is_taken_is_409(path: str, body: dict[str, Any], furnished: Any) -> None:
    """A script that runs twice must notice, and must not change what is there."""
    answer = await furnished.ask("POST", path, body)

    assert answer.status == 409
    assert (answer.error["code"], answer.error["param"]) == ("already_exists", "id")


@pytest.mark.parametrize(
    ("path", "body", "param", "told"),
    [
        ("/customers", {}, "name", "required"),
        ("/customers", {"name": "  "}, "name", "at least 1 character"),
        ("/customers", {"name": 5}, "name", "string"),
        ("/customers", {"name": "x" * 201}, "name", "at most 200"),
        ("/customers", {"name": "a\x00b"}, "name", "control characters"),
        ("/customers", {"name": "a\x1b[31m"}, "name", "control characters"),
        ("/customers", {"name": "a", "id": "-a"}, "id", "pattern"),
        ("/customers", {"name": "a", "id": "a/b"}, "id", "pattern"),
        ("/customers", {"name": "a", "id": "a\n"}, "id", "pattern"),
        ("/customers", {"name": "a", "id": ""}, "id", "pattern"),
        ("/customers", {"name": "a", "email": "not an address"}, "email", "name@example.com"),
        ("/customers", {"name": "a", "timezone": "Europe/Berln"}, "timezone", "'Europe/Berlin'"),
        ("/customers", {"name": "a", "timezone": "../etc/passwd"}, "timezone", "no IANA time zone"),
        ("/customers", {"name": "a", "timezone": "Europe"}, "timezone", "no IANA time zone"),
        ("/customers", {"name": "a", "plan": "startr"}, "plan", "'starter'"),
        ("/customers", {"name": "a", "plan": "zzz"}, "plan", "pro, starter"),
        ("/customers", {"name": "a", "anchor": "2026-01-01T00:00:00"}, "anchor", "zone"),
        ("/customers", {"name": "a", "anchor": "yesterday"}, "anchor", "2026-12-01T00:00:00Z"),
        ("/customers", {"name": "a", "anchor": 1700000000}, "anchor", "ISO 8601"),
        ("/customers", {"name": "a", "anchor": "9999-12-31T23:59:59-12:00"}, "anchor", "years"),
        ("/customers", {"name": "a", "anchor": "0001-01-01T00:00:00+12:00"}, "anchor", "years"),
        ("/customers", {"name": "a", "status": "deleted"}, "status", "'active' or 'suspended'"),
        ("/customers", {"nmae": "a", "name": "a"}, "nmae", "'name'"),
        ("/customers/acme/contacts", {"name": "a", "email": "@"}, "email", "name@example.com"),
        ("/agent-types", {"name": "a", "kind": "langgrph"}, "kind", "langgraph"),
        ("/agent-types", {"name": "a", "kind": "cobol"}, "kind", "custom, langgraph, langchain, crewai"),
        ("/agents", {"name": "a", "customer_id": "acme"}, "agent_type_id", "required"),
        ("/agents", {"name": "a", "customer_id": "no", "agent_type_id": "research"}, "customer_id", "no customer"),
        ("/agents", {"name": "a", "customer_id": "acme", "agent_type_id": "no"}, "agent_type_id", "no agent type"),
        ("/agents", {**BODIES["create_agent"], "contact_id": "no"}, "contact_id", "no contact"),
        ("/agents/scout/secrets", {"expires_at": "2026-11-20T11:59:59Z"}, "expires_at", "past"),
        ("/agents/scout/secrets", {"expires_at": "2026-11-20T13:00:00+02:00"}, "expires_at", "past"),
        ("/agents/scout/secrets", {"expires_at": "2027-01-01"}, "expires_at", "zone"),
    ],
)
async def test_a_wrong_value_is_told_with_what_would_be_right(
    path: str, body: dict[str, Any], param: str, told: str, furnished: Any
) -> None:
    """An error is for the person who reads it."""
    answer = await furnished.ask("POST", path, body)

    assert answer.status == 400, answer.raw
    assert answer.error["param"] == param
    assert told in answer.error["message"]


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/customers?limit=0", "limit"),
        ("/customers?limit=1001", "limit"),
        ("/customers?limit=many", "limit"),
        ("/customers?limit=1&limit=2", "limit"),
        ("/customers?customer_id=acme", "customer_id"),
        ("/agents?customer_id=%27%20OR%201", "customer_id"),
        ("/plans?cursor=!!", "cursor"),
        ("/customers?cursor=!!", "cursor"),
        ("/usage-events?status=done", "status"),
        ("/usage-events?from=2026-11-20", "from"),
        ("/usage-events?model=", "model"),
        ("/usage-events?from=2026-11-20T00:00:00Z&to=2026-11-19T00:00:00Z", None),
        ("/usage?group_by=customers", "group_by"),
        ("/usage?group_by=model,model", "group_by"),
        ("/usage?limit=3", "limit"),
        ("/denials?user_id=u", "user_id"),
        ("/invariants?deep=1", "deep"),
    ],
)
async def test_a_wrong_parameter_is_refused_and_never_ignored(path: str, param: str | None, client: Any) -> None:
    """A misspelt filter that is ignored answers for everybody's usage."""
    answer = await client.ask("GET", path)

    assert answer.status == 400
    assert answer.error["param"] == param


async def test_a_customer_without_plan_and_anchor_gets_the_defaults(client: Any) -> None:
    """The least that must be said of a customer is its name."""
    answer = await client.ask("POST", "/customers", {"name": " Globex ", "timezone": "Europe/Berlin"})

    assert answer.json == {
        "id": "customer_1",
        "name": "Globex",
        "email": None,
        "phone": None,
        "address": None,
        "description": None,
        "timezone": "Europe/Berlin",
        "status": "active",
        "plan": "starter",
        "anchor": "2026-11-20T12:00:00Z",
        "created_at": "2026-11-20T12:00:00Z",
    }


async def test_a_time_of_another_zone_is_answered_in_utc(client: Any) -> None:
    """Finance compares times as text."""
    answer = await client.ask("POST", "/customers", {"name": "a", "anchor": "2026-12-01T00:00:00.5+01:00"})

    assert answer.json["anchor"] == "2026-11-30T23:00:00.500000Z"


async def test_a_patch_changes_what_it_names_and_nothing_else(furnished: Any) -> None:
    """Null clears, absence leaves alone."""
    before = (await furnished.ask("PATCH", "/customers/acme", {"email": "a@b.example", "phone": "1"})).json
    after = (await furnished.ask("PATCH", "/customers/acme", {"email": None, "status": "suspended"})).json

    assert after == {**before, "email": None, "status": "suspended"}
    assert (await furnished.ask("PATCH", "/customers/acme", {})).json == after


@pytest.mark.parametrize(
    "body",
    [{"name": None}, {"plan": None}, {"status": None}, {"id": "b"}, {"created_at": "x"}, {"plan": "strter"}],
)
async def test_a_patch_cannot_take_away_what_must_be_there(body: dict[str, Any], furnished: Any) -> None:
    """A customer without plan or name, or under another id, would be nobody's."""
    assert (await furnished.ask("PATCH", "/customers/acme", body)).status == 400


async def test_a_subscription_is_swapped_and_its_anchor_kept(furnished: Any) -> None:
    """A change of plan must not move the windows unless it says so."""
    swapped = await furnished.ask("PUT", "/customers/acme/subscription", {"plan": "pro"})
    moved = await furnished.ask(
        "PUT", "/customers/acme/subscription", {"plan": "pro", "anchor": "2026-12-01T00:00:00Z"}
    )

    assert (swapped.json["plan"], swapped.json["anchor"]) == ("pro", "2026-11-20T12:00:00Z")
    assert moved.json["anchor"] == "2026-12-01T00:00:00Z"
    assert (await furnished.ask("GET", "/customers/acme/subscription")).json == moved.json


async def test_a_secret_is_shown_once_and_its_digest_never(furnished: Any) -> None:
    """What can be read again can be stolen again."""
    made = await furnished.ask("POST", "/agents/scout/secrets", {"expires_at": "2026-12-01T00:00:00Z"})
    listed = await furnished.ask("GET", "/agents/scout/secrets")

    assert made.json["secret"] == "fg_live_sec1_TheSecretItself"
    assert made.json["expires_at"] == "2026-12-01T00:00:00Z"
    assert [secret["id"] for secret in listed.json["data"]] == ["sec1"]
    assert b"TheSecretItself" not in listed.raw
    assert DIGEST.encode() not in listed.raw + made.raw


async def test_a_revoked_secret_is_listed_as_revoked(furnished: Any) -> None:
    """Who looks after a leak must see that it is closed."""
    await furnished.ask("POST", "/agents/scout/secrets", {})
    gone = await furnished.ask("DELETE", "/agents/scout/secrets/sec1")
    listed = (await furnished.ask("GET", "/agents/scout/secrets")).json["data"]

    assert (gone.status, gone.raw) == (204, b"")
    assert listed[0]["revoked_at"] == "2026-11-20T12:00:00Z"


async def test_a_secret_of_another_agent_is_not_there(furnished: Any) -> None:
    """S25: an id of someone else's is an id that does not exist."""
    await furnished.ask("POST", "/agents", {**BODIES["create_agent"], "id": "other"})
    await furnished.ask("POST", "/agents/scout/secrets", {})

    assert (await furnished.ask("DELETE", "/agents/other/secrets/sec1")).status == 404


@pytest.mark.parametrize("route", LISTS, ids=named)
async def test_every_list_is_paged_to_its_end(route: Route, furnished: Any) -> None:
    """Pages of one hold together exactly what one page holds."""
    for n in range(3):
        await furnished.ask("POST", "/customers", {"id": f"c{n}", "name": "C"})
        await furnished.ask("POST", "/customers/acme/contacts", {"id": f"p{n}", "name": "P"})
        await furnished.ask("POST", "/agent-types", {"id": f"t{n}", "name": "T"})
        await furnished.ask("POST", "/agents", {**BODIES["create_agent"], "id": f"a{n}"})
        await furnished.ask("POST", "/agents/scout/secrets", {})
        await furnished.plane.audit_log.refused(by_the_gate("tests"))
        await furnished.plane.token("operator")
        await furnished.ask("POST", "/customers/acme/grants", {"meter": "tokens", "amount": 9 + n})
        await furnished.ask("POST", "/webhook-endpoints", {"url": "https://example.com/hooks"})
        await furnished.ask("POST", "/webhook-endpoints/home/test")
        await furnished.ask("PUT", "/customers/acme/subscription", {"plan": ("pro", "starter", "pro")[n]})
    whole = (await furnished.ask("GET", path_of(route))).json
    assert whole["next_cursor"] is None

    parts, cursor = [], ""
    while cursor is not None:
        query = "?limit=1" + (f"&cursor={cursor}" if cursor else "")
        answer = (await furnished.ask("GET", path_of(route) + query)).json
        assert len(answer["data"]) == 1
        parts, cursor = parts + answer["data"], answer["next_cursor"]

    assert parts == whole["data"]


async def test_agents_are_listed_of_one_customer(furnished: Any) -> None:
    """The filter reaches the port."""
    await furnished.ask("POST", "/customers", {"id": "globex", "name": "Globex"})
    await furnished.ask("POST", "/agents", {**BODIES["create_agent"], "id": "g", "customer_id": "globex"})

    mine = (await furnished.ask("GET", "/agents?customer_id=globex")).json["data"]

    assert [agent["id"] for agent in mine] == ["g"]


async def test_filters_reach_the_reports_typed_and_under_their_own_names(furnished: Any) -> None:
    """A report that is asked the wrong question answers it all the same."""
    await furnished.ask("GET", "/usage-events?customer_id=acme&status=failed&from=2026-11-01T00:00:00%2B01:00")
    await furnished.ask("GET", "/usage?group_by=model,day&step=plan")
    await furnished.ask("GET", "/denials?reason=budget")

    (_, events), (_, usage), (_, denials) = furnished.plane.reports.asked
    assert {**events, "from": events["from"].isoformat()} == {
        "customer_id": "acme",
        "status": "failed",
        "from": "2026-10-31T23:00:00+00:00",
    }
    assert usage == {"group_by": ["model", "day"], "step": "plan"}
    assert denials == {"reason": "budget"}


async def test_more_groups_than_one_answer_holds_are_refused_with_what_to_do(
    client: Any, monkeypatch: Any
) -> None:
    """By user and day, a big customer has millions of groups."""

    async def usage(groups: Any, filters: Any) -> Any:
        raise ValueError("More than 10,000 groups; ask for less with from and to.")

    monkeypatch.setattr(client.plane.reports, "usage", usage)

    answer = await client.ask("GET", "/usage?group_by=user,day")

    assert (answer.status, answer.error["code"]) == (400, "too_many_groups")
    assert "from and to" in answer.error["message"]


async def test_a_plan_shows_its_money_as_usd_and_all_models_as_a_star(client: Any) -> None:
    """Microdollars are for scripts; a person reads dollars, as in the plan file."""
    plans = {plan["id"]: plan for plan in (await client.ask("GET", "/plans")).json["data"]}

    assert plans["pro"]["models"] == ["*"]
    assert [budget["limit"] for budget in plans["starter"]["budgets"]] == [1_000_000, "20.5"]
    assert (await client.ask("GET", "/plans/starter")).json == plans["starter"]


async def test_plan_versions_come_newest_first(client: Any) -> None:
    """Who asks what changed looks at the top."""
    versions = (await client.ask("GET", "/plans/starter/versions")).json["data"]

    assert [version["version"] for version in versions] == [2, 1]


NOT_PROJECTED = ("/admin/v1/tokens", "/admin/v1/plans", "/admin/v1/webhook")
PROJECTED = [route for route in ROUTES if not route.reads and not route.path.startswith(NOT_PROJECTED)]


@pytest.mark.parametrize("route", PROJECTED, ids=named)
async def test_a_write_that_the_gate_does_not_obey_yet_is_503(route: Route, furnished: Any) -> None:
    """Redis away: the admin must know that the revocation is not acting."""
    await furnished.ask("POST", "/agents/scout/secrets", {})
    await give_terms(furnished)
    furnished.plane.accounts.away = True

    answer = await furnished.ask(route.method, path_of(route), body_of(route))

    assert answer.status == 503
    assert answer.error["code"] == "not_projected"


async def test_entitlements_while_redis_is_away_are_503(furnished: Any) -> None:
    """No answer is better than a wrong one."""
    furnished.plane.fault = StoreAway()

    assert (await furnished.ask("GET", "/customers/acme/entitlements")).error["code"] == "gate_unavailable"


async def test_a_fault_that_nobody_foresaw_is_500_and_tells_nothing(
    furnished: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """An exception's text may hold data; it goes nowhere near the answer."""
    furnished.plane.fault = RuntimeError("row of ada@acme.example")

    answer = await furnished.ask("GET", "/customers/acme/entitlements")

    assert answer.status == 500
    assert answer.error["code"] == "internal_error"
    assert b"ada" not in answer.raw


async def test_an_answer_that_does_not_come_is_503(furnished: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every wait has a deadline."""
    monkeypatch.setattr("proxy.web.admin.app.DEADLINE_S", 0.01)

    async def never(customer_id: str) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(furnished.plane.accounts, "customer", never)

    assert (await furnished.ask("GET", "/customers/acme")).error["code"] == "timeout"


@pytest.mark.parametrize("route", [r for r in ROUTES if r.method == "GET"], ids=named)
async def test_head_answers_like_get_without_a_body(route: Route, furnished: Any) -> None:
    """Probes use HEAD."""
    await furnished.ask("POST", "/agents/scout/secrets", {})
    await furnished.plane.token("operator")
    await give_terms(furnished)
    answer = await furnished.ask("HEAD", path_of(route))

    assert (answer.status, answer.raw) == (200, b"")


async def test_options_and_other_methods_are_told_what_is_allowed(client: Any) -> None:
    """No CORS: a page in a browser has no business here."""
    options = await client.ask("OPTIONS", "/customers")
    deleted = await client.ask("DELETE", "/customers")

    assert (options.status, options.headers["Allow"]) == (204, "GET, HEAD, POST")
    assert (deleted.status, deleted.headers["Allow"]) == (405, "GET, HEAD, POST")
    assert deleted.error["code"] == "method_not_allowed"
    assert "Access-Control-Allow-Origin" not in options.headers
