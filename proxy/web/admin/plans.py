"""The plans that are live, and their versions. They are edited as files, not here."""

from __future__ import annotations

from typing import Any

from proxy.billing.ports import Page
from proxy.web.admin import answers, bodies
from proxy.web.admin.reading import sliced
from proxy.web.admin.routes import PREFIX, Asked, Route


async def list_plans(asked: Asked) -> Page[Any]:
    plans = [answers.plan_fields(plan) for plan in await asked.deps.plans.plans()]
    return sliced(plans, lambda plan: str(plan["id"]), asked.query.limit, asked.query.cursor)


async def get_plan(asked: Asked) -> dict[str, Any]:
    return answers.plan_fields(await asked.deps.plans.plan(asked.path["plan_id"]))


async def list_plan_versions(asked: Asked) -> Page[Any]:
    versions = await asked.deps.plans.versions(asked.path["plan_id"])
    return sliced(versions, _newest_first, asked.query.limit, asked.query.cursor)


def _newest_first(version: Any) -> str:
    """A text that falls as the version rises."""
    return f"{10**12 - int(version['version']):013d}"


_ONE = f"{PREFIX}/plans/{{plan_id}}"

ROUTES = (
    Route(
        "GET", f"{PREFIX}/plans", list_plans, "List the plans.", answers.Plan,
        query=bodies.PageQuery, listed=True,
    ),
    Route("GET", _ONE, get_plan, "Show a plan at its newest version.", answers.Plan, errors=(404,)),
    Route(
        "GET", f"{_ONE}/versions", list_plan_versions, "List a plan's versions, newest first.",
        answers.PlanVersion, query=bodies.PageQuery, listed=True, errors=(404,),
    ),
)  # fmt: skip
