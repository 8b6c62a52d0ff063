"""The plans that are live, and their versions."""

from __future__ import annotations

from typing import Any

from proxy.billing.ports import NotFound, Page, PlanOwner, PlanVersion
from proxy.domain.plan_changes import plan_changes, told
from proxy.domain.policy import Plan
from proxy.domain.written_plans import shown_plan, written_plan
from proxy.web.admin import bodies
from proxy.web.admin import plan_shapes as shapes
from proxy.web.admin.reading import sliced
from proxy.web.admin.routes import PREFIX, Asked, Route

FILES = PlanOwner("files", None)


async def list_plans(asked: Asked) -> Page[Any]:
    owners = await asked.deps.plans.owners()
    plans = [_shown(plan, owners.get(plan.id, FILES)) for plan in await asked.deps.plans.plans()]
    return sliced(plans, lambda plan: str(plan["id"]), asked.query.limit, asked.query.cursor)


async def get_plan(asked: Asked) -> dict[str, Any]:
    plan = await asked.deps.plans.plan(asked.path["plan_id"])
    return _shown(plan, (await asked.deps.plans.owners()).get(plan.id, FILES))


async def list_plan_versions(asked: Asked) -> Page[Any]:
    versions = await asked.deps.plans.versions(asked.path["plan_id"])
    told_of = [_version(one, before) for one, before in zip(versions, [*versions[1:], None], strict=True)]
    return sliced(told_of, _newest_first, asked.query.limit, asked.query.cursor)


async def get_plan_version(asked: Asked) -> dict[str, Any]:
    versions = await _by_number(asked)
    number = _number(asked.path["version"], versions)
    return _version(versions[number], versions.get(number - 1))


async def diff_plan_versions(asked: Asked) -> dict[str, Any]:
    versions = await _by_number(asked)
    number = _number(asked.path["version"], versions)
    against = asked.query.against if asked.query.against is not None else number - 1
    if against not in versions and asked.query.against is not None:
        raise NotFound("version", str(against))
    before = versions.get(against)
    changes = plan_changes(None if before is None else before.plan, versions[number].plan)
    return {"version": number, "against": against, "changes": changes, "text": [told(one) for one in changes]}


def _shown(plan: Plan, owner: PlanOwner) -> dict[str, Any]:
    return shown_plan(plan, owner.owner, owner.file)


async def _by_number(asked: Asked) -> dict[int, PlanVersion]:
    return {one.plan.version: one for one in await asked.deps.plans.versions(asked.path["plan_id"])}


def _number(text: str, versions: dict[int, PlanVersion]) -> int:
    number = int(text) if text.isdecimal() and len(text) < 10 else 0
    if number not in versions:
        raise NotFound("version", text)
    return number


def _version(version: PlanVersion, before: PlanVersion | None) -> dict[str, Any]:
    return {
        "version": version.plan.version,
        "applied_at": version.applied_at,
        "applied_by": version.applied_by,
        "message": version.message,
        "document": written_plan(version.plan),
        "changes": plan_changes(None if before is None else before.plan, version.plan),
    }


def _newest_first(version: Any) -> str:
    """A text that falls as the version rises."""
    return f"{10**12 - int(version['version']):013d}"


ONE = f"{PREFIX}/plans/{{plan_id}}"

ROUTES = (
    Route(
        "GET", f"{PREFIX}/plans", list_plans, "List the plans.", shapes.ShownPlan,
        query=bodies.PageQuery, listed=True,
    ),
    Route("GET", ONE, get_plan, "Show a plan at its newest version.", shapes.ShownPlan, errors=(404,)),
    Route(
        "GET", f"{ONE}/versions", list_plan_versions, "List a plan's versions, newest first.",
        shapes.PlanVersion, query=bodies.PageQuery, listed=True, errors=(404,),
    ),
    Route(
        "GET", f"{ONE}/versions/{{version}}", get_plan_version, "Show a plan as it was at one version.",
        shapes.PlanVersion, errors=(404,),
    ),
    Route(
        "GET", f"{ONE}/versions/{{version}}/diff", diff_plan_versions, "Compare two versions of a plan.",
        shapes.PlanDiff, query=shapes.AgainstQuery, errors=(404,),
    ),
)  # fmt: skip
