"""Questions asked of the record: usage events, their sums, and denials."""

from __future__ import annotations

from typing import Any

from proxy.billing.ports import Page
from proxy.web.admin import answers, bodies
from proxy.web.admin.errors import bad_request
from proxy.web.admin.routes import PREFIX, Asked, Route
from proxy.web.admin.values import nearest


async def list_usage_events(asked: Asked) -> Page[Any]:
    query = asked.query
    return await asked.deps.reports.usage_events(bodies.filters_of(query), query.limit, query.cursor)


async def sum_usage(asked: Asked) -> Page[Any]:
    groups = _groups(asked.query.group_by)
    try:
        sums = await asked.deps.reports.usage(groups, bodies.filters_of(asked.query))
    except ValueError as fault:
        # Groups and filters were checked: what is left is that they make more groups than one answer holds.
        raise bad_request("too_many_groups", str(fault), "group_by") from None
    return Page(sums, None)


async def list_denials(asked: Asked) -> Page[Any]:
    query = asked.query
    return await asked.deps.reports.denials(bodies.filters_of(query), query.limit, query.cursor)


def _groups(given: str | None) -> list[str]:
    groups = given.split(",") if given else []
    for group in groups:
        if group not in bodies.GROUPS:
            hint = nearest(group, bodies.GROUPS) or f" Known: {', '.join(bodies.GROUPS)}."
            raise bad_request("invalid_value", f"There is no grouping by {group!r}.{hint}", "group_by")
    if len(set(groups)) < len(groups):
        raise bad_request("invalid_value", "The parameter 'group_by' names a group twice.", "group_by")
    return groups


ROUTES = (
    Route(
        "GET", f"{PREFIX}/usage-events", list_usage_events, "List usage events, newest first.",
        answers.UsageEvent, query=bodies.UsageEventsQuery, listed=True,
    ),
    Route(
        "GET", f"{PREFIX}/usage", sum_usage, "Sum usage, by the groups that are named.",
        answers.UsageSum, query=bodies.UsageQuery, listed=True,
    ),
    Route(
        "GET", f"{PREFIX}/denials", list_denials, "List how often requests were refused, and why; newest first.",
        answers.DeniedCount, query=bodies.DenialsQuery, listed=True,
    ),
)  # fmt: skip
