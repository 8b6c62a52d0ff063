"""How far budgets have come, by what the ledger has recorded: which alerts that makes, for whom."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from sqlalchemy.ext.asyncio import AsyncEngine

from proxy.domain.alerts import Alert, BudgetUse, CounterName, budget_alerts, renewal
from proxy.domain.counters import counter_of
from proxy.domain.identity import Identity
from proxy.domain.policy import Budget, Policy
from proxy.domain.reservations import Counter
from proxy.domain.windows import window_at
from proxy.gateway.ports import Clock
from proxy.gateway.standing import Standing
from proxy.ledger.alert_sources import Renewing, identities, recorded_amounts

# Whoever of many users a counter is of, only its subject tells it from the others'.
_SOMEBODY = "somebody"

Carried = Callable[[int, Sequence[str]], Awaitable[Sequence[int]]]
"""What Redis says that each of a shard's counters was given by the windows before it. Raises `StoreAway`."""


@dataclass(frozen=True, slots=True)
class _Look:
    """A budget to look at: of whom, and in which window of it."""

    identity: Identity
    standing: Standing
    budget: Budget
    counter: Counter


class BudgetWatch:
    """Works alerts out, and leaves the raising to others. Its methods may raise `StoreAway`, and what the ledger's
    driver says when that is away."""

    def __init__(
        self,
        engine: AsyncEngine,
        policy: Callable[[], Policy | None],
        clock: Clock,
        shards: int,
        carried: Carried,
    ) -> None:
        self._engine, self._policy, self._clock = engine, policy, clock
        self._shards, self._carried = shards, carried

    async def of_counters(self, counters: Iterable[str]) -> list[Alert]:
        """What these counters have come to. A grant's counter stands for its budget's present window."""
        names = {counter: CounterName.read(counter) for counter in counters}
        known = {counter: name for counter, name in names.items() if name is not None}
        standings = await self._standings({name.customer_id for name in known.values()})
        looks: dict[str, _Look] = {}
        for counter, name in known.items():
            standing = standings.get(name.customer_id)
            look = None if standing is None else self._look(standing, counter, name)
            if look is not None:
                looks[look.counter.name] = look
        return list(chain.from_iterable(budget_alerts(use) for use in await self._uses(looks.values())))

    async def of_denied(self, denied: Iterable[tuple[str, str]]) -> list[Alert]:
        """What the present budgets of these (customer, agent) have come to: one of them has refused something.

        A limit that was lowered, or that allows nothing at all, is met without any usage.
        """
        pairs = {pair for pair in denied if pair[0]}
        standings = await self._standings({customer_id for customer_id, _ in pairs})
        looks = {}
        for customer_id, agent_id in pairs:
            standing = standings.get(customer_id)
            if standing is None:
                continue
            identity = replace(standing.identity, agent_id=agent_id)
            for budget in standing.plan.budgets:
                counter = counter_of(identity, budget, standing.zone, self._clock.store_now_us())
                looks[counter.name] = _Look(identity, standing, budget, counter)
        return list(chain.from_iterable(budget_alerts(use) for use in await self._uses(looks.values())))

    async def renewals(self, renewing: Sequence[Renewing]) -> list[Alert]:
        """Of those whose plan still has the budget, and whose next window has begun."""
        standings = await self._standings({one.customer_id for one in renewing})
        begun: dict[str, int] = {}
        looks = []
        for one in renewing:
            standing = standings.get(one.customer_id)
            if standing is None:
                continue
            budget = next((b for b in standing.plan.budgets if b.id == one.budget_id), None)
            if budget is None:
                continue
            look = self._present(standing, budget, one.subject)
            if look.counter.starts_us > one.window_start_us:
                begun[look.counter.name] = max(one.window_start_us, begun.get(look.counter.name, 0))
                looks.append(look)
        return [renewal(use, begun[use.counter]) for use in await self._uses(looks)]

    def _look(self, standing: Standing, counter: str, name: CounterName) -> _Look | None:
        if name.grant_id is not None:
            budget = next((b for b in standing.plan.budgets if (b.id, b.meter) == name.budget), None)
            return None if budget is None else self._present(standing, budget, name.subject)
        budget = next((b for b in standing.plan.budgets if name.counts(b)), None)
        if budget is None or name.starts_us is None:
            return None
        look = self._present(standing, budget, name.subject)
        if look.counter.name == counter:
            return look
        past = self._at(standing, budget, name.subject, name.starts_us)
        if past.counter.name == counter:
            return past
        # Counted from an anchor that has moved since: what it has come to is told all the same.
        _, ends_us = window_at(budget.window, name.starts_us, standing.zone, name.starts_us)
        left = replace(past.counter, name=counter, starts_us=name.starts_us, ends_us=ends_us, sources=())
        return replace(past, counter=left)

    def _present(self, standing: Standing, budget: Budget, subject: str) -> _Look:
        return self._at(standing, budget, subject, self._clock.store_now_us())

    def _at(self, standing: Standing, budget: Budget, subject: str, at_us: int) -> _Look:
        kind, _, id = subject.partition(":")
        identity = replace(standing.identity, agent_id=id) if kind == "agent" else standing.identity
        if budget.per != "user":
            return _Look(identity, standing, budget, counter_of(identity, budget, standing.zone, at_us))
        of_somebody = counter_of(identity, budget, standing.zone, at_us, _SOMEBODY)
        return _Look(identity, standing, budget, _of(of_somebody, f"/user:{_SOMEBODY}/", f"/{subject}/"))

    async def _standings(self, customer_ids: set[str]) -> dict[str, Standing]:
        policy, now_us = self._policy(), self._clock.store_now_us()
        if policy is None or not customer_ids:
            return {}
        found = await identities(self._engine, sorted(customer_ids), now_us, self._shards)
        return {id: Standing("", identity, policy).at(now_us) for id, identity in found.items()}

    async def _uses(self, looks: Iterable[_Look]) -> list[BudgetUse]:
        held = list(looks)
        amounts = await recorded_amounts(self._engine, [name for look in held for name in look.counter.names])
        carried = await self._carried_over(held)
        return [self._use(look, amounts, carried.get(look.counter.name, 0)) for look in held]

    def _use(self, look: _Look, amounts: Mapping[str, int], carried: int) -> BudgetUse:
        counter, name = look.counter, CounterName.read(look.counter.name)
        assert name is not None, "it was read, or made, as a window's counter"
        grants = sum(source.limit for source in counter.sources if source.grant_id is not None)
        return BudgetUse(
            counter.name,
            name,
            look.standing.plan,
            look.budget,
            sum(amounts[own] for own in counter.names),
            counter.ends_us,
            grants + carried,
        )

    async def _carried_over(self, looks: Sequence[_Look]) -> dict[str, int]:
        by_shard: dict[int, list[str]] = {}
        for look in looks:
            if look.budget.rollover_max:
                by_shard.setdefault(look.identity.shard, []).append(look.counter.name)
        carried: dict[str, int] = {}
        for shard, names in by_shard.items():
            carried |= dict(zip(names, await self._carried(shard, names), strict=True))
        return carried


def _of(counter: Counter, somebody: str, subject: str) -> Counter:
    """The same counter of another user."""
    sources = tuple(replace(source, name=source.name.replace(somebody, subject, 1)) for source in counter.sources)
    return replace(counter, name=counter.name.replace(somebody, subject, 1), sources=sources, shared=None)
