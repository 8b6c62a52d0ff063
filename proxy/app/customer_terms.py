"""What the admin plane asks about a customer: entitlements, overrides as written, what is left of its grants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from proxy.app.clock import SystemClock
from proxy.app.policies import LivePolicy
from proxy.budgets.balances import RedisBalances
from proxy.domain.accounts import Customer, IssuedGrant
from proxy.domain.grants import Grant
from proxy.domain.identity import Identity, ScheduledPlan
from proxy.domain.ids import shard_of
from proxy.domain.money import PICO_PER_MICRO, usd_text
from proxy.domain.policy import Plan, Policy
from proxy.gateway.entitlements import entitlements
from proxy.gateway.ports import StoreAway
from proxy.gateway.standing import Standing
from proxy.ledger.directory import SqlAccounts
from proxy.ledger.grants import LIVE_MOST, SqlGrants
from proxy.ledger.tables import micros
from proxy.policy_files import read_overrides


class CustomerTerms:
    """Answers as a worker would decide, from what the ledger says of the customer now."""

    def __init__(
        self,
        accounts: SqlAccounts,
        policies: LivePolicy,
        balances: RedisBalances,
        clock: SystemClock,
        shards: int,
    ) -> None:
        self._accounts, self._grants = accounts, SqlGrants(accounts)
        self._policies, self._balances, self._clock, self._shards = policies, balances, clock, shards

    async def entitlements(self, customer_id: str) -> Mapping[str, Any]:
        customer = await self._accounts.customer(customer_id)
        grants = await self._grants.grants(customer_id, LIVE_MOST, None, only_live=True)
        now_us = self._clock.store_now_us()
        return await entitlements(self._standing(customer, grants.data, now_us), self._balances, now_us)

    async def read_overrides(
        self, customer: Customer, document: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[tuple[tuple[str | int, ...], str]]]:
        policy = self._policies.policy or Policy(0, {}, {})
        plan = policy.plans.get(customer.plan, Plan(customer.plan, customer.plan, 0))
        return read_overrides(document, plan, policy.models, customer.overrides)

    async def grant_balances(
        self, customer_id: str, grants: Sequence[IssuedGrant]
    ) -> Mapping[str, list[dict[str, Any]]] | None:
        """By grant what each budget per customer has used of it, holds of it and has left, of those usable now."""
        customer = await self._accounts.customer(customer_id)
        now_us = self._clock.store_now_us()
        usable = [grant for grant in grants if grant.voided_at is None]
        standing = self._standing(customer, usable, now_us)
        sources = [
            (counter.budget.id, source)
            for counter in standing.all_counters(now_us)
            for source in counter.sources
            if source.grant_id is not None and counter.budget.per == "customer"
        ]
        names = [source.name for _, source in sources]
        try:
            states = await self._balances.balances(standing.identity.shard, names)
        except StoreAway:
            return None
        money = {grant.id for grant in grants if grant.meter == "cost_usd"}
        told: dict[str, list[dict[str, Any]]] = {}
        for (budget_id, source), (used, held) in zip(sources, states, strict=True):
            assert source.grant_id is not None
            amounts = {"used": used, "held": held, "remaining": max(0, source.limit - used - held)}
            if source.grant_id in money:
                told.setdefault(source.grant_id, []).append({"budget_id": budget_id, **_usd(amounts)})
            else:
                told.setdefault(source.grant_id, []).append({"budget_id": budget_id, **amounts})
        return told

    def _standing(self, customer: Customer, grants: Sequence[IssuedGrant], now_us: int) -> Standing:
        scheduled = customer.scheduled
        identity = Identity(
            customer_id=customer.id,
            agent_id="",
            agent_type_id="",
            secret_id="",
            expires_at_ms=0,
            status=customer.status,
            plan_id=customer.plan,
            anchor_us=micros(customer.anchor),
            timezone=customer.timezone,
            revision=0,
            shard=shard_of(customer.id, self._shards),
            grants=tuple(map(_grant, grants)),
            overrides=customer.overrides,
            scheduled=ScheduledPlan(scheduled.plan, micros(scheduled.at)) if scheduled else None,
        )
        return Standing("", identity, self._policies.policy or Policy(0, {}, {})).at(now_us)


def _grant(issued: IssuedGrant) -> Grant:
    return Grant(
        id=issued.id,
        meter=issued.meter,
        amount=issued.amount,
        per=issued.per,
        budget_id=issued.budget_id,
        priority=issued.priority,
        effective_at_us=micros(issued.effective_at),
        expires_at_us=None if issued.expires_at is None else micros(issued.expires_at),
        created_at_us=micros(issued.created_at),
    )


def _usd(amounts: Mapping[str, int]) -> dict[str, str]:
    return {name: usd_text(amount * PICO_PER_MICRO) for name, amount in amounts.items()}
