"""Changes of plans that the store owns, and moving plans between the store and the files."""

from __future__ import annotations

from typing import Any

from proxy.billing.ports import NotFound, PlanFaults
from proxy.domain.plan_changes import plan_changes, told
from proxy.domain.written_plans import shown_plan, written_plan
from proxy.web.admin import plan_shapes as shapes
from proxy.web.admin.plans import ONE, get_plan
from proxy.web.admin.routes import PREFIX, Asked, Route


async def create_plan(asked: Asked) -> dict[str, Any]:
    document = _document(asked)
    made = await asked.deps.plan_edits.create(document, asked.deed, asked.query.message or "")
    return shown_plan(made, "store", None)


async def replace_plan(asked: Asked) -> dict[str, Any]:
    id, message = asked.path["plan_id"], asked.query.message or ""
    changed = await asked.deps.plan_edits.replace(id, _document(asked), asked.deed, message)
    return shown_plan(changed, "store", None)


async def delete_plan(asked: Asked) -> None:
    await asked.deps.plan_edits.delete(asked.path["plan_id"], asked.deed)


async def validate_plan(asked: Asked) -> dict[str, Any]:
    try:
        plan = await asked.deps.plan_edits.read(_document(asked))
    except PlanFaults as faulty:
        faults = [{"path": path, "message": message} for path, message in faulty.faults]
        return {"ok": False, "faults": faults, "document": None, "changes": []}
    try:
        live = await asked.deps.plans.plan(plan.id)
    except NotFound:
        live = None
    return {"ok": True, "faults": [], "document": written_plan(plan), "changes": plan_changes(live, plan)}


async def roll_back_plan(asked: Asked) -> dict[str, Any]:
    id, body = asked.path["plan_id"], asked.body
    return shown_plan(
        await asked.deps.plan_edits.roll_back(id, body.version, asked.deed, body.message), "store", None
    )


async def adopt_plan(asked: Asked) -> dict[str, Any]:
    notices = await asked.deps.plan_edits.adopt(asked.path["plan_id"], asked.body.to, asked.deed)
    return await get_plan(asked) | {"notices": list(notices)}


async def apply_policy_files(asked: Asked) -> dict[str, Any]:
    dry_run = asked.body.dry_run
    applied = await asked.deps.plan_edits.apply_files(dry_run, asked.deed, asked.body.message)
    plans = []
    for id, before, after in applied.plans:
        changes = plan_changes(before, after)
        # A dry run gives no versions.
        version = None if after is None or not after.version else after.version
        plans.append({"id": id, "version": version, "changes": changes, "text": [told(one) for one in changes]})
    return {
        "dry_run": dry_run,
        "revision": applied.revision,
        "plans": plans,
        "notices": list(applied.notices),
    }


def _document(asked: Asked) -> dict[str, Any]:
    """What GET answers can be sent back: what is not the plan's content is left out, but must not ask for more."""
    document: dict[str, Any] = asked.body.document
    if document.get("owner", "store") != "store":
        raise PlanFaults([("owner", "a plan that is written here is owned by the store; see .../adopt")])
    return {key: value for key, value in document.items() if key not in ("version", "owner", "file")}


ROUTES = (
    Route(
        "POST", f"{PREFIX}/plans", create_plan, "Make a plan that the store owns.", shapes.ShownPlan, 201,
        body=shapes.PlanDocument, query=shapes.WhyQuery, errors=(409,),
    ),
    Route(
        "POST", f"{PREFIX}/plans/validate", validate_plan,
        "Say what is wrong with a plan, or what it would change; nothing is written.", shapes.Validation,
        body=shapes.PlanDocument, least="read-only",
    ),
    Route(
        "POST", f"{PREFIX}/plans/apply", apply_policy_files,
        "Read the policy files now, and make them live or say what that would change.", shapes.FilesApplied,
        body=shapes.FilesRead, errors=(409,),
    ),
    Route(
        "PUT", ONE, replace_plan, "Change a plan that the store owns, from the next request on.",
        shapes.ShownPlan, body=shapes.PlanDocument, query=shapes.WhyQuery, errors=(404, 409),
    ),
    Route(
        "DELETE", ONE, delete_plan, "Take a plan away that no customer is on; its versions stay.",
        status=204, errors=(404, 409),
    ),
    Route(
        "POST", f"{ONE}/rollback", roll_back_plan, "Make an earlier version the newest again.",
        shapes.ShownPlan, body=shapes.Rollback, errors=(404, 409),
    ),
    Route(
        "POST", f"{ONE}/adopt", adopt_plan, "Move a plan between the files and the store.", shapes.Adopted,
        body=shapes.Adoption, errors=(404, 409),
    ),
)  # fmt: skip
