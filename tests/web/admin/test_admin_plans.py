"""Plans over the admin API: what the console will edit them by."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.billing.ports import FilesInTheWay, NotProjected, PlanInUse

PLAN = {"id": "team", "models": ["gpt-4o-mini"], "budgets": [{"meter": "cost_usd", "limit": "12.50"}]}


async def test_a_plan_is_made_read_and_changed_in_the_words_of_its_file(client: Any) -> None:
    """One set of keys for files and API: what was learned in one place holds in the other."""
    made = await client.ask("POST", "/plans?message=wanted+by+sales", PLAN)
    assert (made.status, made.json["version"], made.json["owner"], made.json["file"]) == (201, 1, "store", None)
    assert made.json["budgets"][0]["limit"] == "12.5"
    assert (await client.ask("GET", "/plans/team")).json == made.json
    assert client.plane.plan_edits.asked == [("FAREGATE_ADMIN_TOKEN", "wanted by sales")]

    changed = {**made.json, "name": "Team", "default_max_output_tokens": 5}
    answer = await client.ask("PUT", "/plans/team", changed, headers={"If-Match": made.headers["ETag"]})
    assert answer.status == 200
    assert answer.json == {**changed, "version": 2}

    again = await client.ask("PUT", "/plans/team", changed, headers={"If-Match": made.headers["ETag"]})
    assert (again.status, again.error["code"]) == (412, "precondition_failed")
    assert (await client.ask("POST", "/plans", PLAN)).error["code"] == "already_exists"


async def test_every_fault_is_told_with_its_place(client: Any) -> None:
    """A form shows each beside its field, so the first alone will not do."""
    faulty = {"id": "x y", "nam": "X", "budgets": [{"limit": 1}, {"meter": "token", "limit": 0.5}]}
    answer = await client.ask("POST", "/plans", faulty)
    error = answer.json["error"]
    assert (answer.status, error["code"], error["type"]) == (400, "invalid_plan", "invalid_request_error")
    faults = {fault["path"]: fault["message"] for fault in error["faults"]}
    assert set(faults) == {"id", "nam", "budgets[1].meter", "budgets[1].limit"}
    assert faults["nam"] == 'unknown key "nam"; did you mean "name"?'
    assert f"{len(faults)} faults" in error["message"]
    assert (await client.ask("GET", "/plans/x")).status == 404

    checked = await client.ask("POST", "/plans/validate", faulty)
    assert (checked.status, checked.json["ok"], checked.json["document"]) == (200, False, None)
    assert checked.json["faults"] == error["faults"]


async def test_a_validation_says_what_would_change_and_writes_nothing(client: Any) -> None:
    """The console shows it before anybody presses the button; whoever may only read may look, too."""
    live = (await client.ask("GET", "/plans/starter")).json
    token = await client.plane.token("read-only")
    asked = {**live, "name": "New", "owner": "store"}
    checked = await client.ask("POST", "/plans/validate", asked, token=token)
    assert (checked.status, checked.json["ok"]) == (200, True)
    assert checked.json["changes"] == [{"path": "name", "from": "Starter", "to": "New"}]
    assert (await client.ask("GET", "/plans/starter")).json == live
    fresh = (await client.ask("POST", "/plans/validate", PLAN)).json
    assert {one["path"] for one in fresh["changes"]} >= {"id", "budgets"}
    assert (await client.ask("POST", "/plans", PLAN, token=token)).error["code"] == "insufficient_role"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/plans/starter", {"name": "X"}),
        ("DELETE", "/plans/starter", None),
        ("POST", "/plans/starter/rollback", {"version": 1}),
    ],
)
async def test_a_plan_of_the_files_is_not_changed_here(client: Any, method: str, path: str, body: Any) -> None:
    """The next save of its file would undo it: so it says where that is."""
    answer = await client.ask(method, path, body)
    assert (answer.status, answer.error["code"]) == (409, "owned_by_files")
    assert "policies/plans/starter.toml" in answer.error["message"]


async def test_a_document_cannot_take_a_plan_over(client: Any) -> None:
    """GET's answer may be sent back; its `owner` is no way around adopting."""
    answer = await client.ask("POST", "/plans", {**PLAN, "owner": "files"})
    assert answer.json["error"]["faults"][0]["path"] == "owner"


async def test_versions_say_who_when_why_and_what(client: Any) -> None:
    """Immutable history, of which any two can be compared."""
    for name in ("A", "B", "C"):
        await client.ask("PUT", "/plans/pro", {"name": name, "models": ["*"]})
    newest, *_, first = (await client.ask("GET", "/plans/pro/versions")).json["data"]
    assert newest["changes"] == [{"path": "name", "from": "B", "to": "C"}]
    assert newest.keys() == {"version", "applied_at", "applied_by", "message", "document", "changes"}
    assert {one["path"] for one in first["changes"]} >= {"id", "name"}
    assert (await client.ask("GET", "/plans/pro/versions/4")).json == newest

    diff = (await client.ask("GET", "/plans/pro/versions/4/diff?against=2")).json
    assert diff["changes"] == [{"path": "name", "from": "A", "to": "C"}]
    assert diff["text"] == ['name: "A" -> "C"']
    assert (await client.ask("GET", "/plans/pro/versions/4/diff")).json["against"] == 3
    assert (await client.ask("GET", "/plans/pro/versions/1/diff")).json["changes"] == first["changes"]
    for path in ("/plans/pro/versions/9", "/plans/pro/versions/x", "/plans/nobody/versions/1"):
        assert (await client.ask("GET", path)).status == 404
    assert (await client.ask("GET", "/plans/pro/versions/4/diff?against=9")).status == 400


async def test_a_roll_back_is_a_new_version(client: Any) -> None:
    """With what the old one said, and a reason of its own."""
    await client.ask("PUT", "/plans/pro", {"name": "Wrong", "models": []})
    answer = await client.ask("POST", "/plans/pro/rollback", {"version": 1, "message": "too strict"})
    assert (answer.status, answer.json["version"], answer.json["name"]) == (200, 3, "Pro")
    assert client.plane.plan_edits.asked[-1][1] == "too strict"
    answer = await client.ask("POST", "/plans/pro/rollback", {"version": 77})
    assert (answer.status, answer.error["code"]) == (400, "version_not_found")


async def test_a_plan_changes_hands(client: Any) -> None:
    """And the answer says what became of its file."""
    answer = await client.ask("POST", "/plans/starter/adopt", {"to": "store"})
    assert (answer.status, answer.json["owner"], answer.json["notices"]) == (200, "store", ["The file has moved."])
    assert (await client.ask("PUT", "/plans/starter", {"name": "Mine"})).status == 200
    assert (await client.ask("POST", "/plans/starter/adopt", {"to": "console"})).status == 400
    assert (await client.ask("POST", "/plans/nobody/adopt", {"to": "store"})).status == 404


async def test_files_are_applied_on_request(client: Any) -> None:
    """For gates that do not watch them; first what would change, then the change."""
    would = (await client.ask("POST", "/plans/apply", {"dry_run": True})).json
    change = {"path": "name", "from": "Starter", "to": "Renamed"}
    told = {"id": "starter", "version": None, "changes": [change], "text": ['name: "Starter" -> "Renamed"']}
    assert would == {"dry_run": True, "revision": 7, "plans": [told], "notices": ["Something to know."]}
    done = (await client.ask("POST", "/plans/apply", {"message": "December"})).json
    assert done["plans"][0]["version"] == 3
    assert client.plane.plan_edits.asked == [("FAREGATE_ADMIN_TOKEN", "December")]


async def test_a_plan_goes(client: Any) -> None:
    """With 204, as secrets do."""
    assert (await client.ask("DELETE", "/plans/pro")).status == 204
    assert (await client.ask("GET", "/plans/pro")).status == 404


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (PlanInUse("pro", 3), 409, "plan_in_use"),
        (FilesInTheWay("Another gate applies them."), 409, "files_in_the_way"),
        (NotProjected(), 503, "not_projected"),
    ],
)
async def test_what_stands_in_the_way_is_told(client: Any, fault: Exception, status: int, code: str) -> None:
    """In a sentence for people and a word for programs."""
    client.plane.plan_edits.fault = fault
    answer = await client.ask("PUT", "/plans/pro", {"name": "X"})
    assert (answer.status, answer.error["code"]) == (status, code)
