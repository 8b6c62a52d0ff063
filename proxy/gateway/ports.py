"""What the paths need of the world. Adapters depend on these, never the other way round."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from proxy.domain.asks import Ask, Endpoint
from proxy.domain.balances import Tally
from proxy.domain.identity import Identity
from proxy.domain.policy import Model, Policy, Target
from proxy.domain.reservations import Reservation, ReserveReply, Settled, Settlement, TopUp, TopUpReply
from proxy.domain.usage import Usage


class Clock(Protocol):
    """Wall time for what is only written down (event timestamps); admission time is always Redis's."""

    def now_us(self) -> int: ...

    def monotonic_us(self) -> int: ...

    def store_now_us(self) -> int:
        """A guess of Redis's time, for choosing windows; the script corrects it."""
        ...

    def store_said(self, now_us: int) -> None: ...


class StoreAway(Exception):
    """Redis did not answer within the deadline, or the connection is down.

    `sent`: the command may have been carried out, nobody knows; False: it certainly was not.
    """

    def __init__(self, message: str = "", *, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


class DirectoryIncomplete(Exception):
    """Redis does not hold the whole directory (yet): an absent secret proves nothing."""


class Budgets(Protocol):
    """Reservations and counters, atomic per call. Every method may raise `StoreAway`."""

    async def reserve(self, reservation: Reservation) -> ReserveReply: ...

    async def settle(self, settlement: Settlement) -> Settled: ...

    async def release(self, settlement: Settlement) -> Settled:
        """Give everything back and record the terminal event (`settlement.amounts` are zero).

        On a reference that Redis does not know a tombstone is left, which a delayed reserve respects.
        """
        ...

    async def extend(self, shard: int, observed: Mapping[str, int]) -> frozenset[str]:
        """Renew the leases of `observed` (reference -> output tokens seen so far); returns those lost."""
        ...

    async def top_up(self, top_up: TopUp) -> TopUpReply:
        """Hold more for a reservation under way, all or nothing, and renew its lease."""
        ...


@dataclass(frozen=True, slots=True)
class OverdueReservation:
    """A held reservation whose lease has run out, as Redis keeps it. `record` is `Reservation.record`; `amounts`
    are by source, in the order of `names`, their counters'."""

    ref: str
    shard: int
    admitted_us: int
    observed_output_tokens: int
    amounts: tuple[int, ...]
    record: bytes
    names: tuple[str, ...] = ()


class Sweepable(Protocol):
    """What the sweeper needs of Redis, one shard at a time."""

    async def overdue(self, shard: int, most: int) -> Sequence[OverdueReservation]: ...

    async def expire(self, overdue: OverdueReservation, settlement: Settlement) -> Settled:
        """Charge an overdue reservation; refused (`duplicate`) if it was extended or finished meanwhile."""
        ...


class Balances(Protocol):
    """Reads counters without moving them. May raise `StoreAway`."""

    async def tallies(self, shard: int, names: Sequence[str]) -> Mapping[str, Tally]:
        """Each counter by its name, complete."""
        ...

    async def balances(self, shard: int, names: Sequence[str]) -> Sequence[tuple[int, int]]:
        """(used, held) of each counter, zero where it has not been touched."""
        ...


class Directory(Protocol):
    """Identities and the policy, as projected into Redis. May raise `StoreAway`, `DirectoryIncomplete`."""

    async def identity(self, digest: str) -> Identity | None: ...

    async def policy(self) -> Policy: ...

    async def current(self, identity: Identity, policy_revision: int) -> bool:
        """Whether the customer's revision, the secret and the policy's revision are still these."""
        ...


class Spool(Protocol):
    """Where settlements wait while Redis is away: fsynced before `keep` returns."""

    async def keep(self, settlement: Settlement, verb: Literal["settle", "release"]) -> None: ...


@dataclass(frozen=True, slots=True)
class DenialKey:
    """What denials are counted by, per minute."""

    minute: int
    customer_id: str
    agent_id: str
    model: str
    reason: str


class Spawn(Protocol):
    """Starts a task that somebody holds, and whose fault is reported."""

    def __call__(self, coroutine: Coroutine[Any, Any, None], name: str) -> object: ...


class Meters(Protocol):
    """Counts what the operator watches, without cost to a request. No customer, user or agent among the labels."""

    def attempt(
        self,
        upstream: str,
        model: str,
        status: str,
        usage_source: str,
        input_tokens: int,
        output_tokens: int,
        ttft_ms: int | None,
    ) -> None: ...

    def answered(
        self,
        request_id: str,
        endpoint: str,
        status: int,
        reason: str,
        customer_id: str,
        agent_id: str,
        model: str,
        model_served: str,
        streamed: bool,
        attempts: int,
        input_tokens: int,
        output_tokens: int,
        latency_ms: int,
        ttft_ms: int | None,
    ) -> None:
        """One request answered: the canonical log line, written off the path. Texts that are unknown are ""."""
        ...

    def fault(self, what: str) -> None:
        """Something that an operator should look at, by a fixed short name."""
        ...

    def retried(self, upstream: str, upstream_model: str, reason: str) -> None:
        """An attempt is made at the same target again, `reason` being the failed one's `error_type`."""
        ...

    def rest(
        self, upstream: str, upstream_model: str, to: Literal["rested", "probed", "closed"], reason: str = ""
    ) -> None:
        """A target's breaker has moved: it rests now, is tried with a probe, or is in service again."""
        ...

    def waiting(self, upstream: str, requests: int) -> None:
        """So many requests wait for their turn at this upstream, by now."""
        ...

    def waited(self, upstream: str, outcome: str, wait_ms: int) -> None:
        """A request waits no longer: its `turn` came, its client was `gone`, it was `late`, or all was `full`."""
        ...


class Denials(Protocol):
    """Counts refusals off the path; never waits, never fails."""

    def count(self, key: DenialKey, request_id: str, message: str) -> None: ...


@dataclass(slots=True)
class Dispatch:
    """One attempt as a provider gets it. `output_limit` is always sent upstream, under the model's own name.

    `upstream_model` is what the upstream calls the model.
    """

    request_id: str
    attempt: int
    ask: Ask
    model: Model
    upstream_model: str
    output_limit: int


class UpstreamFailed(Exception):
    """An attempt that brought no answer to pass on.

    `kind`: `unsent` (the request never left: connect failure), `refused` (the upstream definitively
    refused: a status without usage), `unknown` (timeout or reset after it was sent).
    `status` is what the upstream said, if anything; `message` is our sentence, never provider text verbatim
    with secrets in it; `blame` says whose trouble it is. `retry_after_s` as the upstream gave it.
    """

    def __init__(
        self,
        kind: Literal["unsent", "refused", "unknown"],
        error_type: str,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        param: str | None = None,
        blame: Literal["request", "operator", "upstream"] = "upstream",
        retry_after_s: int | None = None,
        provider_request_id: str | None = None,
        usage: Usage | None = None,
    ) -> None:
        super().__init__(error_type)
        self.kind = kind
        self.error_type = error_type
        self.message = message
        self.status = status
        self.code = code
        self.param = param
        self.blame = blame
        self.retry_after_s = retry_after_s
        self.provider_request_id = provider_request_id
        self.usage = usage


class Answer(Protocol):
    """An upstream's answer that has begun (2xx, headers read), to be passed on as it comes.

    Plain: `read()` gives the whole body. Streamed: `next()` gives whole events, ready to forward, until None;
    the wire's own ending (`[DONE]`) is not among them but in `tail`, so that the attempt is settled before it
    goes out. `usage` is set once it is known: None at the end means that the provider reported none (an
    estimate says so in its `source`). Either may raise `UpstreamFailed`, mid-stream too.
    """

    status: int
    streamed: bool
    content_type: str
    provider_request_id: str | None
    usage: Usage | None
    tail: bytes
    failed: bool
    """True once the stream carried the wire's own error event."""

    async def read(self) -> bytes: ...

    async def next(self) -> bytes | None: ...

    def observed_output_tokens(self) -> int:
        """An estimate of the output delivered so far; at least one token per event that carries text."""
        ...

    async def end_by_length(self) -> bytes:
        """End a stream here as if its output limit were reached: drops the upstream, sets `usage` and `tail`.

        Returns the wire's own last events, to go out before `tail`; empty where the output has ended by itself or
        is in the middle of an event, so that nothing is ended and `next` goes on.
        """
        ...

    def error_event(self, message: str, code: str) -> bytes:
        """The wire's own error event, for a stream that has begun and cannot end cleanly."""
        ...

    def abort(self) -> None:
        """Drop the upstream connection; whoever waits in `read` or `next` gets `UpstreamFailed`."""
        ...


@dataclass(frozen=True, slots=True)
class KeptResponse:
    """What an upstream keeps of an answer, by ids: the response, the items of its output that the model alone has
    made, and those that also hold what the provider has gathered."""

    id: str
    made: tuple[str, ...] = ()
    gathered: tuple[str, ...] = ()


@runtime_checkable
class Keeping(Protocol):
    """An `Answer` that may be kept by its upstream; `kept` is set once the answer has ended."""

    kept: KeptResponse | None


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """Where something that an upstream keeps is to be found, and how many tokens of input it makes at most (None:
    nobody knows)."""

    upstream: str
    upstream_model: str
    tokens: int | None


class StoredResponses(Protocol):
    """Whose the responses are that upstreams keep, and their items. Every method may raise `StoreAway`."""

    async def keep(
        self,
        shard: int,
        customer_id: str,
        responses: Mapping[str, StoredResponse],
        items: Mapping[str, StoredResponse],
    ) -> None:
        """Write them down, by their ids, for as long as upstreams keep them."""
        ...

    async def find_response(self, shard: int, customer_id: str, id: str) -> StoredResponse | None:
        """None if that customer has none of that id, whoever else may have."""
        ...

    async def find_items(
        self, shard: int, customer_id: str, ids: Sequence[str]
    ) -> Sequence[StoredResponse | None]:
        """As `find_response`, of items, in the order of `ids`."""
        ...

    async def forget(self, shard: int, customer_id: str, id: str) -> None:
        """The response is gone."""
        ...


class Provider(Protocol):
    """An upstream, spoken to in its wire, or in the client's by way of a translation."""

    configured: bool

    def serves(self, endpoint: Endpoint) -> bool:
        """Whether calls to `endpoint` can be carried there at all."""
        ...

    def send(self, dispatch: Dispatch) -> Awaitable[Answer]:
        """Send and wait for the answer's head; raises `UpstreamFailed`."""
        ...

    async def fetch(self, method: Literal["GET", "DELETE"], path: str, query: str) -> bytes:
        """The body of a small JSON answer about something that the upstream keeps; raises `UpstreamFailed`."""
        ...

    async def close(self) -> None: ...


class Tokenizers(Protocol):
    """Counts tokens where the tokenizer of a model is exactly known at its upstream, off the loop."""

    async def bound(self, target: Target, ask: Ask) -> int | None:
        """A tighter upper bound of the input than its bytes; None where there is none, or not in time."""
        ...


class Call(Protocol):
    """A client's request and the way back to it. Writing to a client that has left does nothing."""

    request_id: str
    endpoint: str
    query: str
    secret: str | None
    headers: Mapping[str, str]
    gone: bool
    began: bool

    async def json(self) -> dict[str, Any]:
        """The body, parsed once; raises `Refused` (bad_request) for every fault of it."""
        ...

    def when_gone(self, act: Callable[[], None] | None) -> None:
        """Calls `act` once if the client leaves (at once if it has); None takes it back."""
        ...

    async def answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None: ...

    async def begin(self, status: int, headers: Mapping[str, str]) -> None: ...

    async def write(self, chunk: bytes) -> None:
        """Forwards a chunk of a begun stream, waiting for a slow reader (who is `gone` after 60 s)."""
        ...

    async def end(self, tail: bytes) -> None:
        """The tail and the terminating chunk, in one write."""
        ...

    def cut(self) -> None:
        """Drop the connection: what was begun is not ended cleanly."""
        ...


@dataclass(frozen=True, slots=True)
class StreamEntry:
    """One entry of a shard's stream. `id` is the stream's own; `fields` are as they were appended.

    A usage event: `event` (JSON), `kind`, `seq`, `charged` (JSON list as in DESIGN 5.6), `late` and `disputed`
    ("1" or "0"), `prior` ("input,output,cost_pico", corrections only). Denials: `deltas`, a JSON list of
    `{"id", "minute", "customer_id", "agent_id", "model", "reason", "count", "sample_request_id",
    "sample_message"}`; the id is unique, by which a redelivered delta counts once.
    """

    shard: int
    id: str
    fields: Mapping[str, str]


class EventStream(Protocol):
    """What waits in Redis to be written down, of all shards. Every method may raise `StoreAway`."""

    async def read(self, consumer: str, count: int, block_ms: int) -> Sequence[StreamEntry]:
        """At most `count` entries that nobody has read; waits up to `block_ms` for the first."""
        ...

    async def claim(self, consumer: str, idle_ms: int) -> Sequence[StreamEntry]:
        """Entries that were read and not finished for `idle_ms`, by whomever; empty when there are none."""
        ...

    async def done(self, entries: Sequence[StreamEntry]) -> None:
        """Acknowledge and delete: only after the ledger has committed them."""
        ...


class DirectorySink(Protocol):
    """Where the directory is projected to. Every method may raise `StoreAway`."""

    async def project_customer(
        self,
        customer_id: str,
        doc: Mapping[str, Any],
        revision: int,
        secrets: Mapping[str, int],
        digests: Mapping[str, Mapping[str, Any]],
        revoked_digests: Sequence[str],
    ) -> None:
        """Replace what Redis holds of a customer, unless it holds a higher revision already.

        `doc` is `{"status", "plan", "anchor_us", "timezone"}` and, where there are any, `grants` (the fields of
        `Grant`), `overrides` (`domain.overrides`) and `scheduled` (`{"plan", "at_us"}`). `secrets` maps the id of
        each live secret to its `expires_at_ms` (0: never); `digests` maps digests to `{"secret_id", "agent_id",
        "agent_type_id", "customer_id", "expires_at_ms"}`.
        """
        ...

    async def mark_complete(self) -> None: ...

    async def is_complete(self) -> bool: ...
