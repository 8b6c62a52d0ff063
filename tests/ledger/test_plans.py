from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from proxy.billing.ports import NotFound, PlanInUse, PlanOwner
from proxy.domain.deeds import Actor, Deed
from proxy.domain.policy import Budget, Model, Plan, Target
from proxy.domain.pricing import Price
from proxy.ledger.audit_log import SqlAuditLog
from proxy.ledger.directory import SqlAccounts
from proxy.ledger.plan_edits import SqlPlanEdits
from proxy.ledger.plans import SqlPlans, apply_policy, current_policy, newest_revision

MODEL = Model("gpt", (Target("openai", "gpt"),), 100, 1000, "max_tokens", (), Price(150_000, 600_000))
FREE = Plan("free", "Free", 0, frozenset({"gpt"}))
PRO = Plan("pro", "Pro", 0, None, (Budget("b", "tokens", 10, models=frozenset({"gpt", "x"})),))


async def test_an_applied_policy_has_a_revision_and_versions(engine, clock) -> None:
    """Events name the plan version that governed them; it must be findable for good."""
    assert await current_policy(engine) is None
    policy = await apply_policy(engine, clock, {"gpt": MODEL}, [FREE, PRO])
    assert (policy.revision, policy.plans["pro"]) == (1, replace(PRO, version=1))
    assert await current_policy(engine) == policy
    assert [plan.id for plan in await SqlPlans(engine).plans()] == ["free", "pro"]


async def test_unchanged_content_changes_nothing(engine, clock) -> None:
    """Every start applies the files; a restart must not look like an edit."""
    first = await apply_policy(engine, clock, {"gpt": MODEL}, [FREE, PRO])
    again = await apply_policy(engine, clock, {"gpt": MODEL}, [replace(PRO, version=9), FREE])
    assert again == first


async def test_only_the_plan_that_changed_gets_a_new_version(engine, clock) -> None:
    """Customers of the other plans must not see a new version for nothing."""
    await apply_policy(engine, clock, {"gpt": MODEL}, [FREE, PRO])
    policy = await apply_policy(engine, clock, {"gpt": MODEL}, [FREE, replace(PRO, name="Professional")])
    assert (policy.revision, policy.plans["free"].version, policy.plans["pro"].version) == (2, 1, 2)
    clock.us += 1
    without = await apply_policy(engine, clock, {"gpt": MODEL}, [FREE])
    back = await apply_policy(engine, clock, {"gpt": MODEL}, [FREE, replace(PRO, name="Professional")])
    assert (without.revision, "pro" in without.plans, back.plans["pro"].version) == (3, False, 2)
    versions = await SqlPlans(engine).versions("pro")
    assert [(one.plan.version, one.plan.name) for one in versions] == [(2, "Professional"), (1, "Pro")]
    assert (versions[0].applied_at, versions[0].applied_by) == ("2026-11-20T18:40:00.123456Z", "files")


async def test_a_changed_price_is_a_new_revision(engine, clock) -> None:
    """Prices live beside the plans; a worker that keeps the old ones charges wrongly."""
    await apply_policy(engine, clock, {"gpt": MODEL}, [FREE])
    dearer = {"gpt": replace(MODEL, price=Price(150_001, 600_000))}
    policy = await apply_policy(engine, clock, dearer, [FREE])
    assert (policy.revision, policy.plans["free"].version) == (2, 1)


async def test_keepers_that_apply_at_once_agree(engine, clock) -> None:
    """Two replicas read the same files in the same second."""
    policies = await asyncio.gather(*(apply_policy(engine, clock, {"gpt": MODEL}, [FREE, PRO]) for _ in range(4)))
    assert [policy.revision for policy in policies] == [1] * 4


async def test_an_unknown_plan_is_said_so(engine, clock) -> None:
    """The API answers 404."""
    for ask in (SqlPlans(engine).plan("none"), SqlPlans(engine).versions("none")):
        with pytest.raises(NotFound):
            await ask


async def test_each_version_says_why(engine, clock) -> None:
    """A year later nobody remembers why the limit was halved."""
    await apply_policy(engine, clock, {"gpt": MODEL}, [FREE])
    await apply_policy(engine, clock, {"gpt": MODEL}, [replace(FREE, name="F")], message="shorter")
    newest, first = await SqlPlans(engine).versions("free")
    assert (newest.message, first.message) == ("shorter", "")
    (entry, _) = (await SqlAuditLog(engine, clock).entries({"resource_kind": "plan"}, 10, None)).data
    assert entry["actor"]["name"] == "files"
    assert entry["changes"] == {"name": {"from": "Free", "to": "F"}, "version": {"from": 1, "to": 2}}


async def test_files_leave_the_plans_of_the_store_alone(engine, clock) -> None:
    """Each plan has one owner: a file of the same id, left on some replica, must not undo what was edited."""
    await apply_policy(engine, clock, {"gpt": MODEL}, [FREE], {"free": "plans/free.toml"})
    deed = Deed(Actor("t", "Ada", "owner"), "POST", "/")
    await SqlPlanEdits(engine, clock).create(PRO, deed, "")
    policy = await apply_policy(engine, clock, {"gpt": MODEL}, [FREE, replace(PRO, name="From a file")])
    assert policy.plans["pro"].name == "Pro"
    without = await apply_policy(engine, clock, {"gpt": MODEL}, [FREE], {"free": "plans/f.toml"})
    assert (without, await newest_revision(engine)) == (policy, policy.revision)
    owners = await SqlPlans(engine).owners()
    assert owners == {"free": PlanOwner("files", "plans/f.toml"), "pro": PlanOwner("store", None)}


async def test_a_plan_with_customers_does_not_go_with_its_file(engine, clock) -> None:
    """A file lost in a merge would refuse every request of those who pay for the plan."""
    await apply_policy(engine, clock, {"gpt": MODEL}, [FREE, PRO])

    async def project(_: int) -> None: ...

    accounts = SqlAccounts(engine, clock, lambda count: b"r" * count, project)
    fields = {"name": "n", "timezone": "UTC", "status": "active", "plan": "pro"}
    await accounts.create_customer(fields | {"anchor": datetime(2026, 1, 1, tzinfo=UTC)})
    with pytest.raises(PlanInUse, match="1 customer is on the plan 'pro'"):
        await apply_policy(engine, clock, {"gpt": MODEL}, [replace(FREE, name="F")])
    assert (await current_policy(engine)).plans["free"].name == "Free"
