"""What a customer may use now, and what of that is its own and not its plan's."""

from __future__ import annotations

from typing import Any

from proxy.domain.accounts import Customer
from proxy.domain.overrides import written_overrides
from proxy.web.admin import answers, bodies
from proxy.web.admin.errors import AdminError
from proxy.web.admin.routes import PREFIX, Asked, Route


async def get_entitlements(asked: Asked) -> dict[str, Any]:
    customer = await asked.deps.accounts.customer(asked.path["customer_id"])
    return await _entitled(asked, customer)


async def put_overrides(asked: Asked) -> dict[str, Any]:
    """All of them at once: what is not named is as the plan has it again."""
    customer = await asked.deps.accounts.customer(asked.path["customer_id"])
    overrides, faults = await asked.deps.read_overrides(customer, asked.body.model_dump(exclude_unset=True))
    if faults:
        listed = [{"path": _path(place), "message": message} for place, message in faults]
        others = f" There are {len(faults) - 1:,} more faults." if len(faults) > 1 else ""
        told = f"{listed[0]['message']}.{others}"
        raise AdminError(400, "invalid_overrides", told, param=listed[0]["path"][:64] or None, faults=listed)
    changed = await asked.accounts.change_customer(customer.id, {"overrides": overrides})
    return await _entitled(asked, changed)


async def _entitled(asked: Asked, customer: Customer) -> dict[str, Any]:
    return {**await asked.deps.entitlements(customer.id), **_view(customer)}


def _path(place: tuple[str | int, ...]) -> str:
    """`budgets.monthly-tokens.limit`, `models[0]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


def _view(seen: Customer | dict[str, Any]) -> dict[str, Any]:
    return {"overrides": written_overrides(seen.overrides)} if isinstance(seen, Customer) else seen


_ONE = f"{PREFIX}/customers/{{customer_id}}/entitlements"
# What a PUT replaces is the overrides: its precondition hangs on them alone.
_NOT_WRITTEN = frozenset(answers.Entitlements.model_fields) - {"overrides"}

ROUTES = (
    Route(
        "GET", _ONE, get_entitlements, "Show what a customer may use now.", answers.Entitlements, errors=(404,),
        view=_view, volatile=_NOT_WRITTEN,
    ),
    Route(
        "PUT", _ONE, put_overrides, "Replace what wins over a customer's plan, from the next request on.",
        answers.Entitlements, body=bodies.Overrides, errors=(404,), view=_view, volatile=_NOT_WRITTEN,
    ),
)  # fmt: skip
