"""Plans of the store are edited while thousands of customers are on them: each edit whole, named and told."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from proxy.billing.ports import AlreadyExists, NotFound, OwnedByFiles, PlanInUse, PlanOwner
from proxy.domain.deeds import Actor, Deed
from proxy.domain.policy import Model, Plan, Target
from proxy.ledger.audit_log import SqlAuditLog
from proxy.ledger.directory import SqlAccounts
from proxy.ledger.plan_edits import SqlPlanEdits
from proxy.ledger.plans import SqlPlans, apply_policy, current_policy

MODEL = Model("gpt", (Target("openai", "gpt"),), 100, 1000, "max_tokens")
FREE = Plan("free", "Free", 0, frozenset({"gpt"}))
PRO = Plan("pro", "Pro", 0, None)
ADA = Deed(Actor("tok_1", "Ada", "owner"), "PUT", "/admin/v1/plans/{plan_id}")


@pytest.fixture
async def edits(engine: Any, clock: Any) -> SqlPlanEdits:
    """Of a ledger where the files have `free`, and the store `pro`."""
    await apply_policy(engine, clock, {"gpt": MODEL}, [FREE], {"free": "plans/free.toml"})
    edits = SqlPlanEdits(engine, clock)
    await edits.create(PRO, ADA, "wanted by sales")
    return edits


async def test_a_made_plan_is_live_and_says_by_whom_and_why(edits: SqlPlanEdits, engine: Any) -> None:
    """The first version has an author like any other."""
    policy = await current_policy(engine)
    assert (policy.revision, policy.plans["pro"], policy.plans["free"].version) == (2, replace(PRO, version=1), 1)
    (version,) = await SqlPlans(engine).versions("pro")
    assert (version.plan.version, version.applied_by, version.message) == (1, "Ada", "wanted by sales")
    assert (await SqlPlans(engine).owners())["pro"] == PlanOwner("store", None)


async def test_a_change_is_a_version_and_an_entry_of_the_audit_log(
    edits: SqlPlanEdits, engine: Any, clock: Any
) -> None:
    """Who changed what from what to what, in one transaction with the change."""
    policy = await edits.replace(replace(PRO, name="P"), ADA, "shorter")
    assert (policy.revision, policy.plans["pro"].version) == (3, 2)
    entry = (await SqlAuditLog(engine, clock).entries({"resource_id": "pro"}, 10, None)).data[0]
    assert (entry["actor"]["name"], entry["resource"]["kind"]) == ("Ada", "plan")
    assert entry["changes"] == {"name": {"from": "Pro", "to": "P"}, "version": {"from": 1, "to": 2}}
    assert await edits.replace(replace(PRO, name="P"), ADA, "again") == policy


async def test_an_old_content_again_is_a_new_version(edits: SqlPlanEdits) -> None:
    """Rolling back is an edit like any other: history only grows."""
    await edits.replace(replace(PRO, name="P"), ADA, "")
    policy = await edits.replace(PRO, ADA, "that was wrong")
    assert policy.plans["pro"] == replace(PRO, version=3)


async def test_what_files_own_is_refused_and_says_where(edits: SqlPlanEdits) -> None:
    """An edit that the next save of the file would undo is worse than none."""
    with pytest.raises(OwnedByFiles, match=r"policies/plans/free\.toml: .*adopt free --to store"):
        await edits.replace(FREE, ADA, "")
    with pytest.raises(OwnedByFiles):
        await edits.delete("free", ADA)
    with pytest.raises(AlreadyExists):
        await edits.create(FREE, ADA, "")
    for ask in (edits.replace(replace(PRO, id="x"), ADA, ""), edits.delete("x", ADA)):
        with pytest.raises(NotFound):
            await ask


async def test_a_plan_goes_only_when_no_customer_is_on_it(edits: SqlPlanEdits, engine: Any, clock: Any) -> None:
    """Its customers would be refused everything; its history stays."""

    async def project(_: int) -> None: ...

    accounts = SqlAccounts(engine, clock, lambda count: b"r" * count, project)
    fields = {"id": "acme", "name": "n", "timezone": "UTC", "status": "active", "plan": "pro"}
    await accounts.create_customer(fields | {"anchor": datetime(2026, 1, 1, tzinfo=UTC)})
    with pytest.raises(PlanInUse):
        await edits.delete("pro", ADA)
    await accounts.change_customer("acme", {"plan": "free"})
    policy = await edits.delete("pro", ADA)
    assert "pro" not in policy.plans
    assert "pro" not in await SqlPlans(engine).owners()
    assert len(await SqlPlans(engine).versions("pro")) == 1
    assert (await edits.create(replace(PRO, name="P"), ADA, "")).plans["pro"].version == 2


async def test_a_plan_changes_hands_without_a_new_version(edits: SqlPlanEdits, engine: Any, clock: Any) -> None:
    """Adopting a plan must not act on any request."""
    await edits.give_to("free", PlanOwner("store", None), ADA)
    assert (await edits.replace(replace(FREE, name="F"), ADA, "")).plans["free"].version == 2
    await edits.give_to("free", PlanOwner("files", "plans/f.toml"), ADA)
    with pytest.raises(OwnedByFiles, match="plans/f"):
        await edits.delete("free", ADA)
    entry = (await SqlAuditLog(engine, clock).entries({"resource_id": "free"}, 1, None)).data[0]
    assert entry["changes"]["owner"] == {"from": "store", "to": "files"}
    with pytest.raises(NotFound):
        await edits.give_to("x", PlanOwner("store", None), ADA)


async def test_edits_at_once_are_all_kept(edits: SqlPlanEdits, engine: Any, clock: Any) -> None:
    """A revision holds every plan: two made at once from the same one would each lack the other's change."""
    await asyncio.gather(
        *(edits.create(replace(PRO, id=f"p{n}"), ADA, "") for n in range(6)),
        apply_policy(engine, clock, {"gpt": MODEL}, [replace(FREE, name="F")]),
    )
    policy = await current_policy(engine)
    assert set(policy.plans) == {"free", "pro", *(f"p{n}" for n in range(6))}
    assert (policy.revision, policy.plans["free"].name) == (9, "F")
