"""The alerts that were raised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxy.billing.ports import Page
from proxy.web.admin import bodies
from proxy.web.admin.alert_shapes import Alert, AlertsQuery
from proxy.web.admin.routes import PREFIX, Asked, Route


async def list_alerts(asked: Asked) -> Page[Mapping[str, Any]]:
    query = asked.query
    return await asked.deps.alerts.alerts(bodies.filters_of(query), query.limit, query.cursor)


async def get_alert(asked: Asked) -> Mapping[str, Any]:
    return await asked.deps.alerts.alert(asked.path["alert_id"])


_ALL = f"{PREFIX}/alerts"

ROUTES = (
    Route(
        "GET", _ALL, list_alerts, "List what was raised, newest first.", Alert, query=AlertsQuery, listed=True,
    ),
    Route("GET", f"{_ALL}/{{alert_id}}", get_alert, "Show an alert.", Alert, errors=(404,)),
)  # fmt: skip
