"""The scripts against the model: every reply, every balance, every event, whatever the order of the calls."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from model import Customer, Shard, Wanted
from redis import Redis

from proxy.budgets.backlog import ShardBacklog
from proxy.budgets.hot_connection import HotConnection
from proxy.budgets.keys import ShardKeys, secret_field
from proxy.budgets.redis_budgets import RedisBudgets
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
    "fast": settings(max_examples=250, stateful_step_count=50, derandomize=True),
    "deep": settings(max_examples=2_000, stateful_step_count=100, print_blob=True),
}

# Mostly one of the references that were held at some time, by its age; sometimes one that never was.
refs = st.one_of(*[st.integers(0, 7)] * 5, st.integers(-3, -1))
customers = st.sampled_from(CUSTOMERS)
amounts = st.tuples(*[st.one_of(st.integers(0, 60), st.just(0))] * 3)
limits = st.tuples(*[st.sampled_from((0, 40, 100, 250, EXACT_MOST))] * 3)
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
        self.backlog = ShardBacklog(self.connection, 16)
        self.runner.run(self.connection.start())
        self.runner.run(self.budgets.open_shards("e1"))
        self.now = BASE_US
        self.model = Shard(LEASE_S * 1_000_000, clock_us=BASE_US)
        self.asked: dict[str, Reservation] = {}
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
        self.reserve(None, customer, (5, 1, 5), (100, 100, 100), 3, True, RateLimits(60, 100, 5), 10, 0, 0)

    @rule(
        age=st.one_of(*[st.none()] * 5, refs),
        customer=customers,
        amounts=amounts,
        limits=limits,
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
        limits: tuple[int, ...],
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
        holds = tuple(
            Hold(self.counter(customer, meter, limit, windows_back), amount)
            for meter, limit, amount in list(zip(METERS, limits, amounts, strict=True))[:budgets]
        )
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
            [
                Wanted(h.counter.name, h.amount, h.counter.budget.limit, h.counter.starts_us, h.counter.ends_us)
                for h in holds
            ],
            rates.requests_per_minute,
            rates.tokens_per_minute,
            rates.concurrent_requests,
            rate_tokens,
        )
        assert words(reply) == expected
        if isinstance(reply, Held) and not was_held:
            self.asked[ref] = reservation
            for hold in holds:
                balance = self.model.balances[hold.counter.name]
                assert balance.used + balance.held <= hold.counter.budget.limit, "I7: overshoot"

    @rule(age=refs, share=st.sampled_from((0, 50, 100, 300)), usage=usages)
    def settle(self, age: int, share: int, usage: tuple[int, int, int]) -> None:
        ref = self.ref(age)
        settlement = self.settlement(ref, share, usage)
        settled = self.run(self.budgets.settle(settlement))
        expected = self.model.settle(
            self.now,
            ref,
            charges(settlement),
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
            Hold(replace(h.counter, budget=replace(h.counter.budget, limit=limit)), total)
            for h, total, limit in zip(held, totals, limits, strict=False)
        )
        reply = self.run(self.budgets.top_up(TopUp(ref, NUMBER, holds, observed)))
        by_name = {h.counter.name: (h.amount, h.counter.budget.limit) for h in holds}
        expected = self.model.top_up(
            self.now,
            ref,
            {name: total for name, (total, _) in by_name.items()},
            {name: limit for name, (_, limit) in by_name.items()},
            observed,
        )
        assert words(reply) == expected
        if isinstance(reply, ToppedUp):
            for name, (_, limit) in by_name.items():
                balance = self.model.balances[name]
                assert balance.used + balance.held <= limit, "I7: overshoot"

    @rule(seconds=st.sampled_from((0.000001, 0.3, 1, 20, 61, 3_700)))
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
        expected = self.model.expire(self.now, overdue.ref, seen, charges(settlement), (7, seen, 9))
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
            assert {charge["counter"]: charge["amount"] for charge in charged} == event.charged

    @invariant()
    def the_shard_finds_nothing_wrong_with_itself(self) -> None:
        inspection = self.run(self.budgets.inspect(NUMBER))
        balances = {name: (b.used, b.held) for name, b in self.model.balances.items()}
        assert inspection.counters == balances
        wrong = [check for check in inspection.checks if not check.ok and "overdue" not in str(check.seen)]
        assert wrong == []

    def run(self, waiting: Any) -> Any:
        return self.runner.run(waiting)

    def ref(self, age: int) -> str:
        """0 is the youngest reference that was ever held; below 0 lie those that never were."""
        return f"unheard_{-age}:1" if age < 0 or age >= len(self.asked) else list(self.asked)[-1 - age]

    def counter(self, customer: str, meter: str, limit: int, windows_back: int) -> Counter:
        if meter == "cost_usd":
            return Counter(f"{customer}:{meter}:0", Budget(meter, meter, limit, "lifetime"), 0, None)
        starts = (self.now // DAY_US - windows_back) * DAY_US
        budget = Budget(meter, meter, limit, "P1D")
        return Counter(f"{customer}:{meter}:{starts}", budget, starts, starts + DAY_US)

    def settlement(self, ref: str, share: int, usage: tuple[int, int, int]) -> Settlement:
        asked = self.asked.get(ref)
        holds = asked.holds if asked else (Hold(self.counter(CUSTOMERS[0], "tokens", 10, 0), 1),)
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


def charges(settlement: Settlement) -> dict[str, int]:
    return {c.name: amount for c, amount in zip(settlement.counters, settlement.amounts, strict=True)}


def words(reply: ReserveReply | TopUpReply) -> tuple[Any, ...]:
    """A reply in the model's words."""
    match reply:
        case Held(now, requests, tokens):
            return ("held", now, requests, tokens)
        case Exceeded(now, states):
            return ("exceeded", now, states)
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
        case ToppedUp(now):
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
