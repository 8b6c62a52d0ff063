"""A house whose every port is a small double, so that a test tells one request's story without a server."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from proxy.domain.asks import Ask, Attribution
from proxy.domain.identity import Identity
from proxy.domain.policy import Budget, Model, Plan, Policy, Target
from proxy.domain.pricing import Price
from proxy.domain.reservations import (
    Balance,
    Exceeded,
    Held,
    Reservation,
    ReserveReply,
    Settled,
    Settlement,
    ToppedUp,
    TopUp,
    TopUpReply,
)
from proxy.domain.secrets import digest, make_secret
from proxy.domain.usage import Usage
from proxy.gateway.admission import Trail
from proxy.gateway.drains import Drains
from proxy.gateway.house import House
from proxy.gateway.knowledge import Knowledge
from proxy.gateway.leases import Leases
from proxy.gateway.ports import DenialKey, Dispatch, StoredResponse, UpstreamFailed
from proxy.gateway.rests import Rests
from proxy.gateway.retries import RetryRule
from proxy.gateway.turns import Turns

PEPPER = b"pepper of the tests"
SECRET = make_secret(bytes(range(27)))[1]
NOW_US = 1_790_000_000_000_000
PRICE = Price(input=150_000, output=600_000, version="test")


def exceeded(left: int, limit: int = 10_000) -> Exceeded:
    """The only budget has that much left."""
    return Exceeded(NOW_US, (Balance(limit - left, 0, 0, left),))


def model(id: str, **more: Any) -> Model:
    fields = {
        "targets": (Target("up", id),),
        "max_output_tokens": 1000,
        "context_tokens": 100_000,
        "output_limit_field": "max_tokens",
        "price": PRICE,
    }
    return Model(id=id, **{**fields, **more})


def plan(**more: Any) -> Plan:
    fields: dict[str, Any] = {
        "id": "starter",
        "name": "Starter",
        "version": 1,
        "models": None,
        "budgets": (Budget("monthly", "tokens", 10_000),),
    }
    return Plan(**{**fields, **more})


def policy(revision: int = 1, *, models: Sequence[Model] = (), plans: Sequence[Plan] = ()) -> Policy:
    return Policy(revision, {m.id: m for m in models or [model("small")]}, {p.id: p for p in plans or [plan()]})


def identity(**more: Any) -> Identity:
    fields: dict[str, Any] = {
        "customer_id": "acme",
        "agent_id": "agent",
        "agent_type_id": "type",
        "secret_id": "secret",
        "expires_at_ms": 0,
        "status": "active",
        "plan_id": "starter",
        "anchor_us": NOW_US - 1_000_000,
        "timezone": "UTC",
        "revision": 1,
        "shard": 3,
    }
    return Identity(**{**fields, **more})


def trail() -> Trail:
    """A request of which nothing matters."""
    ask = Ask("/v1/chat/completions", "small", {}, False, False, None, 1, 1, 1, (), Attribution())
    return Trail("req_0", ask)


class FakeBudgets:
    """Answers `reserve` with what was laid ready, else holds; remembers every settlement."""

    def __init__(self) -> None:
        self.replies: list[ReserveReply | Exception] = []
        self.reserved: list[Reservation] = []
        self.settled: list[tuple[str, Settlement]] = []
        self.topped_up: list[TopUp] = []
        self.top_up_replies: list[TopUpReply | Exception] = []
        self.fails: Exception | None = None
        self.outcome = "settled"

    async def reserve(self, reservation: Reservation) -> ReserveReply:
        self.reserved.append(reservation)
        reply = self.replies.pop(0) if self.replies else Held(NOW_US, 0, 0)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def settle(self, settlement: Settlement) -> Settled:
        return self._end("settle", settlement)

    async def release(self, settlement: Settlement) -> Settled:
        return self._end("release", settlement)

    async def top_up(self, top_up: TopUp) -> TopUpReply:
        self.topped_up.append(top_up)
        reply = self.top_up_replies.pop(0) if self.top_up_replies else ToppedUp(NOW_US, top_up.holds)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def extend(self, shard: int, observed: Mapping[str, int]) -> frozenset[str]:
        return frozenset()

    def _end(self, verb: str, settlement: Settlement) -> Settled:
        if self.fails:
            raise self.fails
        self.settled.append((verb, settlement))
        return Settled(self.outcome, len(self.settled), NOW_US)  # type: ignore[arg-type]

    def events(self) -> list[dict[str, Any]]:
        return [orjson.loads(settlement.event) for _, settlement in self.settled]


class FakeDirectory:
    def __init__(self) -> None:
        self.who: Identity | None = identity()
        self.now = policy()
        self.reads = 0

    async def identity(self, keyed: str) -> Identity | None:
        self.reads += 1
        return self.who if keyed == digest(PEPPER, SECRET) else None

    async def policy(self) -> Policy:
        return self.now

    async def current(self, who: Identity, revision: int) -> bool:
        return who == self.who and revision == self.now.revision


@dataclass
class FakeAnswer:
    chunks: list[bytes | Exception] = field(default_factory=list)
    streamed: bool = False
    usage: Usage | None = field(default_factory=lambda: Usage(7, 5))
    status: int = 200
    content_type: str = "application/json"
    provider_request_id: str | None = "up-1"
    tail: bytes = b""
    failed: bool = False
    aborted: bool = False
    observed: int = 2

    async def read(self) -> bytes:
        chunk = await self.next()
        return chunk or b""

    async def next(self) -> bytes | None:
        if not self.chunks:
            return None
        chunk = self.chunks.pop(0)
        if isinstance(chunk, Exception):
            raise chunk
        return chunk

    def observed_output_tokens(self) -> int:
        return self.observed

    async def end_by_length(self) -> bytes:
        self.chunks.clear()
        self.tail = b"[DONE]"
        self.usage = Usage(7, self.observed, source="estimated")
        return b"length;"

    def error_event(self, message: str, code: str) -> bytes:
        return b"data: error\n\n"

    def abort(self) -> None:
        self.aborted = True


class FakeProvider:
    def __init__(self) -> None:
        self.configured = True
        self.answers: list[FakeAnswer | UpstreamFailed] = []
        self.sent: list[Dispatch] = []

    def serves(self, endpoint: str) -> bool:
        return True

    async def send(self, dispatch: Dispatch) -> FakeAnswer:
        self.sent.append(dispatch)
        answer = self.answers.pop(0) if self.answers else FakeAnswer([b"{}"])
        if isinstance(answer, UpstreamFailed):
            raise answer
        return answer

    async def close(self) -> None: ...


class FakeCall:
    def __init__(self, body: dict[str, Any], secret: str | None = SECRET) -> None:
        self.request_id = "req_1"
        self.endpoint = "/v1/chat/completions"
        self.query = ""
        self.secret = secret
        self.headers: dict[str, str] = {}
        self.gone = False
        self.began = False
        self.body = body
        self.wrote: list[tuple[str, bytes]] = []
        self.sent_headers: Mapping[str, str] = {}

    async def json(self) -> dict[str, Any]:
        return self.body

    def when_gone(self, act: Callable[[], None] | None) -> None: ...

    async def answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.sent_headers = headers
        self.wrote.append(("answer", body))

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        self.began, self.sent_headers = True, headers
        self.wrote.append(("begin", b""))

    async def write(self, chunk: bytes) -> None:
        self.wrote.append(("write", chunk))

    async def end(self, tail: bytes) -> None:
        self.wrote.append(("end", tail))

    def cut(self) -> None:
        self.wrote.append(("cut", b""))


class FakeTokenizers:
    def __init__(self) -> None:
        self.counts: int | None = None

    async def bound(self, model: Model, ask: Any) -> int | None:
        return self.counts


class FakeSpool:
    def __init__(self) -> None:
        self.kept: list[tuple[str, Settlement]] = []

    async def keep(self, settlement: Settlement, verb: str) -> None:
        self.kept.append((verb, settlement))


class FakeDenials:
    def __init__(self) -> None:
        self.counted: list[DenialKey] = []

    def count(self, key: DenialKey, request_id: str, message: str) -> None:
        self.counted.append(key)


class FakeMeters:
    def __init__(self) -> None:
        self.faults: list[str] = []
        self.retries: list[tuple[str, str]] = []
        self.rests: list[tuple[str, str]] = []
        self.waits: list[str] = []
        self.queue_length = 0
        self.answers: list[tuple[Any, ...]] = []

    def attempt(self, *labels: Any) -> None: ...

    def answered(self, *facts: Any) -> None:
        self.answers.append(facts)

    def fault(self, what: str) -> None:
        self.faults.append(what)

    def retried(self, upstream: str, upstream_model: str, reason: str) -> None:
        self.retries.append((upstream, reason))

    def rest(self, upstream: str, upstream_model: str, to: str, reason: str = "") -> None:
        self.rests.append((upstream, to))

    def waiting(self, upstream: str, requests: int) -> None:
        self.queue_length = requests

    def waited(self, upstream: str, outcome: str, wait_ms: int) -> None:
        self.waits.append(outcome)


class FakeStoredResponses:
    """Records by customer and id; `fails` is raised by all that is asked of it."""

    def __init__(self) -> None:
        self.responses: dict[tuple[str, str], StoredResponse] = {}
        self.items: dict[tuple[str, str], StoredResponse] = {}
        self.fails: Exception | None = None

    async def keep(
        self,
        shard: int,
        customer_id: str,
        responses: Mapping[str, StoredResponse],
        items: Mapping[str, StoredResponse],
    ) -> None:
        if self.fails:
            raise self.fails
        self.responses |= {(customer_id, id): each for id, each in responses.items()}
        self.items |= {(customer_id, id): each for id, each in items.items()}

    async def find_response(self, shard: int, customer_id: str, id: str) -> StoredResponse | None:
        if self.fails:
            raise self.fails
        return self.responses.get((customer_id, id))

    async def find_items(self, shard: int, customer_id: str, ids: Sequence[str]) -> list[StoredResponse | None]:
        if self.fails:
            raise self.fails
        return [self.items.get((customer_id, id)) for id in ids]

    async def forget(self, shard: int, customer_id: str, id: str) -> None:
        self.responses.pop((customer_id, id), None)


class FakeClock:
    """Its monotonic time stands still until somebody moves it."""

    def __init__(self) -> None:
        self.us = 1_000

    def now_us(self) -> int:
        return NOW_US

    def monotonic_us(self) -> int:
        return self.us

    def store_now_us(self) -> int:
        return NOW_US

    def store_said(self, now_us: int) -> None: ...


class Doubles:
    """The house, and each of its doubles by name."""

    def __init__(self) -> None:
        self.budgets = FakeBudgets()
        self.directory = FakeDirectory()
        self.provider = FakeProvider()
        self.providers = {"up": self.provider}
        self.tokenizers = FakeTokenizers()
        self.spool = FakeSpool()
        self.denials = FakeDenials()
        self.meters = FakeMeters()
        self.stored_responses = FakeStoredResponses()
        self.spawned: list[str] = []
        self.clock = FakeClock()
        self.turns: dict[str, Turns] = {}
        self.retries: dict[str, RetryRule] = {}
        self.pauses: list[float] = []
        self.house = House(
            budgets=self.budgets,
            knowledge=Knowledge(self.directory),
            providers=self.providers,  # type: ignore[arg-type]
            tokenizers=self.tokenizers,
            spool=self.spool,
            denials=self.denials,
            meters=self.meters,
            clock=self.clock,
            spawn=self._spawn,
            pepper=PEPPER,
            new_request_id=lambda: "req_1",
            digest_user=lambda user: "digested",
            drains=Drains(),
            leases=Leases(self.budgets, self.meters),
            stored_responses=self.stored_responses,
            rests=Rests(self.clock, self.meters),
            turns=self.turns,
            retries=self.retries,
            chance=lambda: 1.0,
            pause=self._pause,
        )

    async def _pause(self, seconds: float, call: Any) -> None:
        """Time passes at once."""
        self.pauses.append(seconds)
        self.clock.us += int(seconds * 1_000_000)

    def _spawn(self, work: Any, name: str) -> None:
        work.close()
        self.spawned.append(name)
