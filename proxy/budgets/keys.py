"""Every key of the store. Nothing else in the house spells one.

Keys of one shard carry its tag, `{s<k>}`, so that a script may touch any of them, on one server or on a
cluster. The scripts get them ready-made: none is put together inside Lua.
"""

from __future__ import annotations

from dataclasses import dataclass, field

INSTALL = "faregate:install"
"""Hash: `shards`, `format`, written once and checked at every start; `vouched`, the run id of the server that a
keeper has compared with the ledger."""

DIRECTORY = "faregate:directory"
"""String: the completeness mark of the directory. Absent: an unknown secret proves nothing."""

POLICY = "faregate:policy"
"""String: the newest policy revision."""


ALL_COUNTERS = "faregate:{s*}:b:*"
"""Pattern of every shard's counters."""

ALL_OF_SHARDS = "faregate:{s*}:*"
"""Pattern of everything that lies in shards."""


def secret(digest: str) -> str:
    """String: JSON `{"secret_id", "agent_id", "agent_type_id", "customer_id", "expires_at_ms"}`."""
    return f"faregate:secret:{digest}"


def policy_document(revision: int) -> str:
    """String: the policy of that revision as a JSON document."""
    return f"faregate:policy:{revision}"


def keeper_lease(work: str) -> str:
    """String: which keeper does this work; it goes by itself when that keeper does not renew it."""
    return f"faregate:lease:{work.replace(' ', '_')}"


def secret_field(secret_id: str) -> str:
    """The field of a customer's hash that holds a secret's `expires_at_ms` (0: never)."""
    return "k:" + secret_id


@dataclass(frozen=True, slots=True)
class ShardKeys:
    """The keys of one shard. Plain attributes are whole keys; methods add a name to a prefix made once.

    shard     hash: epoch, seq, clock_us, policy, admitted, settled, released, expired; full, while the ledger
              is too far behind to admit more
    held      hash: reference -> "<admitted_us>|<a>|<b>|<amount,...>|<counter key TAB ...>\\n<record>"
              ([a, b) is the virtual interval that the tokens-per-minute limit gave to it)
    leases    zset: reference -> deadline in microseconds of Redis time
    observed  hash: reference -> output tokens observed so far (only after an extend)
    events    stream of usage events: event, kind, seq, charged, late, disputed, prior
    denials   stream of denial deltas
    """

    number: int
    shard: str = field(init=False)
    held: str = field(init=False)
    leases: str = field(init=False)
    observed: str = field(init=False)
    events: str = field(init=False)
    denials: str = field(init=False)
    counters: str = field(init=False)
    _customers: str = field(init=False)
    _rates: str = field(init=False)
    _holding: str = field(init=False)
    _done: str = field(init=False)
    _responses: str = field(init=False)
    _items: str = field(init=False)

    def __post_init__(self) -> None:
        tag = f"faregate:{{s{self.number}}}:"
        for name in ("shard", "held", "leases", "observed", "events", "denials"):
            object.__setattr__(self, name, tag + name)
        for name, letter in _PREFIXES.items():
            object.__setattr__(self, name, f"{tag}{letter}:")

    def customer(self, customer_id: str) -> str:
        """Hash: rev, doc (JSON `{"status", "plan", "anchor_us", "timezone"}`), and `secret_field`s."""
        return self._customers + customer_id

    def counter(self, name: str) -> str:
        """Hash: used, held; carry (what the window has of the ones before), users (of a counter that many share).

        `name` is `Source.name`."""
        return self.counters + name

    def remembered(self) -> tuple[str, ...]:
        """Prefixes of what a shard remembers of spending: counters, and references held and done."""
        return self.counters, self._holding, self._done

    def rates(self, customer_id: str) -> str:
        """Hash: requests, tokens; theoretical arrival times in microseconds of Redis time."""
        return self._rates + customer_id

    def holding(self, customer_id: str) -> str:
        """Set: the customer's held references; its size is how many requests it has under way."""
        return self._holding + customer_id

    def done(self, ref: str) -> str:
        """String, kept for an hour: `<state>|<input,output,cost_pico>|<charged amounts>|<disputed usages>`."""
        return self._done + ref

    def response(self, customer_id: str, id: str) -> str:
        """String, kept for 30 days: JSON `{"customer_id", "upstream", "upstream_model", "tokens"}` of a response
        that an upstream keeps under this id."""
        return f"{self._responses}{customer_id}/{id}"

    def item(self, customer_id: str, id: str) -> str:
        """As `response`, of an item of its output."""
        return f"{self._items}{customer_id}/{id}"


_PREFIXES = {
    "counters": "b",
    "_customers": "c",
    "_rates": "r",
    "_holding": "h",
    "_done": "done",
    "_responses": "response",
    "_items": "item",
}
