"""Who is calling: the agent behind a secret, its customer and the customer's subscription."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from proxy.domain.grants import Grant


@dataclass(frozen=True, slots=True)
class ScheduledPlan:
    """Another plan from `at_us` on, by Redis's clock."""

    plan_id: str
    at_us: int


@dataclass(frozen=True, slots=True)
class Identity:
    """What a verified secret stands for. The admission script checks `revision` and `expires_at_ms` again.

    `revision` is the customer's: it advances with every change to the customer, its subscription, its
    agents or its secrets. `anchor_us` is where the subscription's windows are counted from (microseconds
    since 1970), in `timezone` (IANA). `expires_at_ms` is 0 for a secret that does not expire.

    `grants` are the customer's, those that are over left out. `overrides` is a JSON object of what wins over its
    plan (`domain.overrides`), empty where nothing does. `scheduled` is what its plan becomes.
    """

    customer_id: str
    agent_id: str
    agent_type_id: str
    secret_id: str
    expires_at_ms: int
    status: Literal["active", "suspended"]
    plan_id: str
    anchor_us: int
    timezone: str
    revision: int
    shard: int
    grants: tuple[Grant, ...] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)
    scheduled: ScheduledPlan | None = None
