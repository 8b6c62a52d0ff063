"""The scripts against the model: every reply, every balance, every event, whatever the order of the calls."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from model import PLENTY, Customer, Shard, Spring, Wanted
from redis import Redis

from proxy.budgets.backlog import ShardBacklog
from proxy.budgets.balances import RedisBalances
from proxy.budgets.hot_connection import HotConnection
from proxy.budgets.keys import ShardKeys, secret_field
from proxy.budgets.redis_budgets import RedisBudgets
from proxy.domain.balances import level_of, names_of
from proxy.domain.policy import Budget, RateLimits
from proxy.domain.reservations import (
    Closed,
    Counter,
    Exceeded,
    Finished,
    Full,
    Held,
    Hold,
    Limited,
    Lost,
    Reservation,
    ReserveReply,
    Settlement,
    Source,
    Stale,
    ToppedUp,
    TopUp,
    TopUpReply,
    WindowPassed,
)
from proxy.gateway.ports import OverdueReservation

NUMBER = 3
KEYS = ShardKeys(NUMBER)
DAY_US = 86_400_000_000
LEASE_S = 60
CUSTOMERS = ("acme", "globex")
METERS = ("tokens", "requests", "cost_usd")
EXACT_MOST = 2**53 - 1

# Far ahead of any real clock, so that the shard's stored clock is the one that counts and the test turns it.
BASE_US = 4_000_000_000_000_000

PROFILES = {
    "fast": settings(max_examples=150, stateful_step_count=50, derandomize=True),
    "deep": settings(max_examples=2_000, stateful_step_count=100, print_blob=True),
}

# Mostly one of the references that were held at some time, by its age; sometimes one that never was.
refs = st.one_of(*[st.integers(0, 7)] * 5, st.integers(-3, -1))
customers = st.sampled_from(CUSTOMERS)
amounts = st.tuples(*[st.one_of(st.integers(0, 60), st.just(0))] * 3)
some_limits = st.sampled_from((0, 40, 100, 250, EXACT_MOST))
limits = st.tuples(*[some_limits] * 3)

# name -> (amount, whether it burns before the plan, when it is over after the first day); each is immutable.
GRANTS: dict[str, tuple[int, bool, int | None]] = {
    "first": (30, True, None),
    "brief": (45, True, 3 * DAY_US),
    "last": (50, False, None),
    "late": (70, False, 4 * DAY_US),
}
USERS_MOST = 2


@dataclass(frozen=True)
class Shape:
    """How a budget is made: `over` None is soft; `user` None: it counts per customer, "": a call without one."""

    limit: int
    over: int | None = 0
    carry: tuple[int, int] | None = None
    grants: frozenset[str] = frozenset()
    user: str | None = None


shapes = st.builds(
    Shape,
    some_limits,
    st.sampled_from((0, 0, 0, 25, None)),
    st.sampled_from((None, None, None, (60, 0), (60, 20), (250, 0), (10, 10))),
    st.one_of(st.just(frozenset()), st.frozensets(st.sampled_from(sorted(GRANTS)))),
    st.sampled_from((None, None, None, "", "ann", "ben", "cid")),
)
usages = st.tuples(st.integers(0, 2), st.integers(0, 1), st.sampled_from((0, 2**60)))
rate_limits = st.builds(
    RateLimits,
    st.sampled_from((None, 1, 7, 60, 10**9)),
    st.sampled_from((None, 1, 90, 100, 10**12)),
    st.sampled_from((None, 0, 2, 5)),
)


class Protocol(RuleBasedStateMachine):
    """Drives a real Valkey and the model alike, and compares them after every step."""

    url: str

    def __init__(self) -> None:
        super().__init__()
        self.redis: Redis = Redis.from_url(self.url, decode_responses=True)
        self.redis.flushall()
        self.runner = asyncio.Runner()
        self.connection = HotConnection(self.url)
        self.budgets = RedisBudgets(self.connection, 16, LEASE_S)
        self.balances = RedisBalances(self.connection, 16)
        self.backlog = ShardBacklog(self.connection, 16)
        self.runner.run(self.connection.start())
        self.runner.run(self.budgets.open_shards("e1"))
        self.now = BASE_US
        self.model = Shard(LEASE_S * 1_000_000, clock_us=BASE_US)
        self.asked: dict[str, Reservation] = {}
        self.sent: dict[str, tuple[Reservation, list[Wanted]]] = {}
        self.tried = 0
        for customer in CUSTOMERS:
            self.model.customers[customer] = Customer(secrets={"sec": 0})
            self.redis.hset(KEYS.customer(customer), mapping={"rev": 1, secret_field("sec"): 0})
        self.redis.hset(KEYS.shard, mapping={"clock_us": self.now, "policy": 1})

    def teardown(self) -> None:
        self.runner.run(self.connection.close())
        self.runner.close()
        self.redis.close()

    @initialize(customer=customers)
    def one_is_held_already(self, customer: str) -> None:
        self.reserve(None, customer, (5, 1, 5), (Shape(100),) * 3, 3, True, RateLimits(60, 100, 5), 10, 0, 0)

    @rule(
        age=st.one_of(*[st.none()] * 5, refs),
        customer=customers,
        amounts=amounts,
        shapes=st.tuples(shapes, shapes, shapes),
        budgets=st.integers(0, 3),
        first=st.booleans(),
        rates=rate_limits,
        rate_tokens=st.integers(0, 60),
        stale=st.sampled_from((*[0] * 20, 1, 2, 3)),
        windows_back=st.sampled_from((*[0] * 20, 1, -1)),
    )
    def reserve(
        self,
        age: int | None,
        customer: str,
        amounts: tuple[int, ...],
        shapes: tuple[Shape, ...],
        budgets: int,
        first: bool,
        rates: RateLimits,
        rate_tokens: int,
        stale: int,
        windows_back: int,
    ) -> None:
        self.tried += 1
        ref = f"new_{self.tried}:1" if age is None else self.ref(age)
        if ref in self.asked:
            customer = self.asked[ref].customer_id
        made = [
            self.counter(customer, meter, shape, windows_back, amount)
            for meter, shape, amount in list(zip(METERS, shapes, amounts, strict=True))[:budgets]
        ]
        holds = tuple(Hold(counter, wanted.amount) for counter, wanted in made)
        wanted = [asked for _, asked in made]
        if ref in self.sent:
            # Whoever asks again for the same reference asks for the same.
            holds, wanted = self.sent[ref][0].holds, self.sent[ref][1]
        reservation = Reservation(
            ref=ref,
            customer_id=customer,
            shard=NUMBER,
            secret_id="gone" if stale == 2 else "sec",
            customer_revision=self.model.customers[customer].revision - (stale == 1),
            policy_revision=self.model.policy + (1 if stale == 0 else -(stale == 3)),
            first=first,
            holds=holds,
            limits=rates,
            rate_tokens=rate_tokens,
            record=b'{"ref":"%s|x"}' % ref.encode(),
        )
        was_held = ref in self.model.held
        reply = self.run(self.budgets.reserve(reservation))
        expected = self.model.reserve(
            self.now,
            ref,
            customer,
            reservation.secret_id,
            reservation.customer_revision,
            reservation.policy_revision,
            first,
            wanted,
            rates.requests_per_minute,
            rates.tokens_per_minute,
            rates.concurrent_requests,
            rate_tokens,
        )
        assert words(reply) == expected
        if isinstance(reply, Exceeded):
            self.who_looks_sees_what_was_decided_by(holds, reply)
        if isinstance(reply, Held):
            made_holds = reply.holds or holds
            assert amounts_of(made_holds) == self.model.held[ref].amounts
            if not was_held:
                self.sent[ref] = reservation, wanted
                self.asked[ref] = replace(reservation, holds=made_holds)
                self.nothing_overshoots(ref)

    def who_looks_sees_what_was_decided_by(self, holds: tuple[Hold, ...], reply: Exceeded) -> None:
        """Entitlements and refusals tell the same."""
        tallies = self.run(self.balances.tallies(NUMBER, names_of(hold.counter for hold in holds)))
        for hold, state in zip(holds, reply.states, strict=True):
            level = level_of(hold.counter, tallies)
            assert (level.used, level.held, level.granted) == state[:3]
            if hold.counter.budget.hard and not hold.counter.budget.overage_limit:
                assert level.remaining == max(0, state.left)

    def nothing_overshoots(self, ref: str) -> None:
        """I7: wherever something is held of it, that is within the limit, carry and overage included."""
        for wanted in self.model.asked[ref]:
            for spring in wanted.springs:
                balance = self.model.balances[spring.name]
                most = spring.limit + (self.model.carry(wanted) + (wanted.over or 0)) * spring.is_plan
                if self.model.held[ref].amounts[spring.name] and not (spring.is_plan and wanted.over is None):
                    assert balance.used + balance.held <= most, "I7: overshoot"

    @rule(age=refs, share=st.sampled_from((0, 50, 100, 300)), usage=usages)
    def settle(self, age: int, share: int, usage: tuple[int, int, int]) -> None:
        ref = self.ref(age)
        settlement = self.settlement(ref, share, usage)
        settled = self.run(self.budgets.settle(settlement))
        expected = self.model.settle(
            self.now,
            ref,
            list(settlement.amounts),
            usage,
            settlement.limits.tokens_per_minute,
            settlement.rate_tokens,
        )
        assert (settled.outcome, settled.seq, settled.now_us) == (*expected, self.now)

    @rule(age=refs)
    def release(self, age: int) -> None:
        ref = self.ref(age)
        settled = self.run(self.budgets.release(self.settlement(ref, 0, (0, 0, 0))))
        assert (settled.outcome, settled.seq, settled.now_us) == (*self.model.release(self.now, ref), self.now)

    @rule(observed=st.dictionaries(refs, st.integers(0, 9), max_size=4))
    def extend(self, observed: dict[int, int]) -> None:
        observed_by_ref = {self.ref(age): tokens for age, tokens in observed.items()}
        lost = self.run(self.budgets.extend(NUMBER, observed_by_ref))
        assert lost == self.model.extend(self.now, observed_by_ref)

    @rule(age=refs, totals=amounts, limits=limits, observed=st.integers(0, 9))
    def top_up(self, age: int, totals: tuple[int, ...], limits: tuple[int, ...], observed: int) -> None:
        ref = self.ref(age)
        held = self.asked[ref].holds if ref in self.asked else ()
        holds = tuple(
            Hold(limited(h.counter, limit), total) for h, total, limit in zip(held, totals, limits, strict=False)
        )
        reply = self.run(self.budgets.top_up(TopUp(ref, NUMBER, holds, observed)))
        expected = self.model.top_up(
            self.now, ref, list(totals[: len(holds)]), list(limits[: len(holds)]), observed
        )
        assert words(reply) == expected
        if isinstance(reply, ToppedUp):
            assert amounts_of(reply.holds) == self.model.held[ref].amounts

    @rule(seconds=st.sampled_from((0.000001, 0.3, 1, 20, 61, 3_700, 30_000, 86_400, 3 * 86_400)))
    def time_passes(self, seconds: float) -> None:
        self.now += round(seconds * 1_000_000)
        self.model.clock_us = self.now
        self.redis.hset(KEYS.shard, "clock_us", self.now)

    @rule(share=st.sampled_from((0, 100, 200)), most=st.integers(1, 3))
    def sweep(self, share: int, most: int) -> None:
        overdue = self.run(self.budgets.overdue(NUMBER, most))
        expected = self.model.overdue(self.now)
        assert len(overdue) == min(most, len(expected))
        for one in overdue:
            assert one.observed_output_tokens == expected[one.ref]
            assert one.amounts == tuple(self.model.held[one.ref].amounts.values())
            assert one.admitted_us == self.model.held[one.ref].admitted_us
            assert one.record == self.asked[one.ref].record
            self.expire(one, share)

    @rule(age=refs, observed=st.integers(0, 3))
    def expire_from_hearsay(self, age: int, observed: int) -> None:
        self.expire(OverdueReservation(self.ref(age), NUMBER, 0, observed, (), b""), 100)

    def expire(self, overdue: OverdueReservation, share: int) -> None:
        seen = overdue.observed_output_tokens
        settlement = self.settlement(overdue.ref, share, (7, seen, 9))
        settled = self.run(self.budgets.expire(overdue, settlement))
        expected = self.model.expire(self.now, overdue.ref, seen, list(settlement.amounts), (7, seen, 9))
        assert (settled.outcome, settled.seq) == expected

    @rule(customer=customers, what=st.sampled_from(("revision", "policy", "expiry", "nothing")))
    def something_is_changed(self, customer: str, what: str) -> None:
        known = self.model.customers[customer]
        if what == "revision":
            known.revision += 1
            self.redis.hset(KEYS.customer(customer), "rev", known.revision)
        elif what == "policy":
            self.model.policy += 1
            self.redis.hset(KEYS.shard, "policy", self.model.policy)
        elif what == "expiry":
            known.secrets["sec"] = 0 if known.secrets["sec"] else self.now // 1000 + 1
            self.redis.hset(KEYS.customer(customer), secret_field("sec"), known.secrets["sec"])

    @rule(full=st.sampled_from((True, *[False] * 5)))
    def the_ledger_falls_behind_or_catches_up(self, full: bool) -> None:
        self.model.full = full
        self.run(self.backlog.mark(full))

    @invariant()
    def redis_holds_what_the_model_holds(self) -> None:
        model, read = self.model, self.redis
        shard = read.hgetall(KEYS.shard)
        assert int(shard["clock_us"]) == model.clock_us
        assert int(shard.get("seq", 0)) == model.seq
        assert int(shard.get("admitted", 0)) == model.admitted
        assert {state: int(shard.get(state, 0)) for state in model.finished} == model.finished
        leases = {ref: hold.deadline_us for ref, hold in model.held.items()}
        assert dict(read.zrange(KEYS.leases, 0, -1, withscores=True)) == leases
        observed = {ref: int(tokens) for ref, tokens in read.hgetall(KEYS.observed).items()}
        assert observed == {ref: hold.observed for ref, hold in model.held.items() if hold.observed}
        assert set(read.hkeys(KEYS.held)) == model.held.keys()
        for name, customer in model.customers.items():
            rates = read.hgetall(KEYS.rates(name))
            assert int(rates.get("requests", 0)) == customer.requests_tat
            assert int(rates.get("tokens", 0)) == customer.tokens_tat
            assert read.scard(KEYS.holding(name)) == model.under_way(customer)

    @invariant()
    def events_are_what_the_model_wrote(self) -> None:
        assert self.redis.xlen(KEYS.events) == len(self.model.events)
        if self.model.events:
            event = self.model.events[-1]
            _, fields = self.redis.xrevrange(KEYS.events, count=1)[0]
            assert fields["kind"] == event.kind
            assert int(fields["seq"]) == event.seq
            assert (fields["late"], fields["disputed"]) == (str(int(event.late)), str(int(event.disputed)))
            assert fields["prior"] == "{},{},{}".format(*event.prior)
            charged = json.loads(fields["charged"])
            # Grants are told of only where something changed.
            told = {name: n for name, n in event.charged.items() if n or name.rpartition(":")[2] not in GRANTS}
            assert {charge["counter"]: charge["amount"] for charge in charged} == told
            assert all((charge["grant_id"] or "") in charge["counter"] for charge in charged)

    @invariant()
    def grants_are_never_overdrawn(self) -> None:
        for name, balance in self.model.balances.items():
            grant = name.rpartition(":")[2]
            if grant in GRANTS:
                assert 0 <= balance.used + balance.held <= GRANTS[grant][0]

    @invariant()
    def the_shard_finds_nothing_wrong_with_itself(self) -> None:
        inspection = self.run(self.budgets.inspect(NUMBER))
        balances = {name: (b.used, b.held) for name, b in self.model.balances.items()}
        assert inspection.counters == balances
        for name, balance in self.model.balances.items():
            carry, users, used = self.redis.hmget(KEYS.counter(name), "carry", "users", "used")
            assert (carry and int(carry), int(users or 0)) == (balance.carry and balance.carry, balance.users) or (
                (carry, balance.carry) == ("0", 0) and int(users or 0) == balance.users
            )
            assert (used is not None) is balance.touched
        wrong = [check for check in inspection.checks if not check.ok and "overdue" not in str(check.seen)]
        assert wrong == []

    def run(self, waiting: Any) -> Any:
        return self.runner.run(waiting)

    def ref(self, age: int) -> str:
        """0 is the youngest reference that was ever held; below 0 lie those that never were."""
        return f"unheard_{-age}:1" if age < 0 or age >= len(self.asked) else list(self.asked)[-1 - age]

    def counter(
        self, customer: str, meter: str, shape: Shape, windows_back: int = 0, amount: int = 0
    ) -> tuple[Counter, Wanted]:
        """A budget as the scripts are told of it, and as the model is: what cost_usd counts never renews."""
        hard, over = shape.over is not None, shape.over or 0
        most, least = shape.carry or (0, 0)
        budget = Budget(
            meter,
            meter,
            shape.limit,
            "lifetime" if meter == "cost_usd" else "P1D",
            hard=hard,
            overage_limit=over,
            rollover_max=most,
            rollover_min=least,
            users_max=USERS_MOST,
        )
        lifetime = meter == "cost_usd"
        first = BASE_US // DAY_US
        day = self.now // DAY_US - windows_back
        starts, ends = (0, None) if lifetime else (day * DAY_US, (day + 1) * DAY_US)
        active = [
            grant
            for grant in sorted(GRANTS, key=list(GRANTS).index)
            if grant in shape.grants and self.now < (first * DAY_US + (GRANTS[grant][2] or 1 << 60))
        ]
        before_days = () if lifetime else range(day - 1, max(first, day - 1 - most // max(1, shape.limit)) - 1, -1)
        carry = shape.carry

        def wanted(subject: str, many: Wanted | None) -> Wanted:
            base = f"{customer}/{subject}:{meter}:"
            springs = [
                Spring(f"{base}{grant}", GRANTS[grant][0], 0, _end(first, grant), is_plan=False)
                for grant in active
            ]
            plan = Spring(f"{base}{starts}", shape.limit, starts, ends)
            ahead = sum(GRANTS[grant][1] for grant in active)
            springs.insert(ahead, plan)
            before = tuple(f"{base}{back * DAY_US}" for back in before_days)
            return Wanted(amount, tuple(springs), shape.over, carry, before, many, USERS_MOST)

        if shape.user:
            asked = wanted(f"user-{shape.user}", wanted("user-", None))
        else:
            asked = wanted("customer" if shape.user is None else "user-", None)

        def told(of: Wanted) -> Counter:
            sources = tuple(
                Source(s.name, s.limit, s.starts_us, s.ends_us, None if s.is_plan else s.name.rpartition(":")[2])
                for s in of.springs
            )
            before = of.before if most else ()
            own = sources if len(sources) > 1 else ()
            return Counter(of.plan.name, budget, starts, ends, own, before, told(of.many) if of.many else None)

        return told(asked), asked

    def settlement(self, ref: str, share: int, usage: tuple[int, int, int]) -> Settlement:
        asked = self.asked.get(ref)
        holds = asked.holds if asked else (Hold(self.counter(CUSTOMERS[0], "tokens", Shape(10))[0], 1),)
        return Settlement(
            ref=ref,
            customer_id=asked.customer_id if asked else CUSTOMERS[0],
            shard=NUMBER,
            counters=tuple(hold.counter for hold in holds),
            amounts=tuple(hold.amount * share // 100 for hold in holds),
            rate_tokens=asked.rate_tokens * share // 100 if asked else 0,
            limits=asked.limits if asked else RateLimits(),
            usage=usage,
            event=json.dumps({"id": ref}).encode(),
        )


def _end(first_day: int, grant: str) -> int | None:
    days_us = GRANTS[grant][2]
    return None if days_us is None else first_day * DAY_US + days_us


def amounts_of(holds: tuple[Hold, ...]) -> dict[str, int]:
    """What is held on each counter."""
    parts = [
        (name, part) for h in holds for name, part in zip(h.counter.names, h.parts or (h.amount,), strict=True)
    ]
    return dict(parts)


def limited(counter: Counter, limit: int) -> Counter:
    """The counter under a plan that was edited."""
    sources = tuple(replace(s, limit=limit) if s.grant_id is None else s for s in counter.sources)
    return replace(counter, budget=replace(counter.budget, limit=limit), sources=sources)


def words(reply: ReserveReply | TopUpReply) -> tuple[Any, ...]:
    """A reply in the model's words."""
    match reply:
        case Held(now, requests, tokens, _):
            return ("held", now, requests, tokens)
        case Exceeded(now, states):
            return ("exceeded", now, tuple((*state[:3], min(state.left, PLENTY)) for state in states))
        case Limited(now, limit, wait):
            return ("limited", now, limit, wait)
        case Stale(what):
            return ("stale", what)
        case WindowPassed(now):
            return ("window", now)
        case Finished(state):
            return ("finished", state)
        case Closed():
            return ("closed",)
        case ToppedUp(now, _):
            return ("topped_up", now)
        case Lost():
            return ("lost",)
        case Full():
            return ("full",)


def test_the_scripts_do_what_the_model_does(valkey_url: str) -> None:
    """Money rests on these scripts: any order of calls, retries and delays must leave the books right."""
    Protocol.url = valkey_url
    profile = PROFILES[os.environ.get("FAREGATE_HYPOTHESIS", "fast")]
    chosen = settings(profile, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Protocol, settings=chosen)
