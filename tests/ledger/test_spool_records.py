"""A settlement comes back from a spool in every field, as the sources of its budgets do."""

from __future__ import annotations

import binascii

import orjson

from proxy.domain.policy import Budget, RateLimits
from proxy.domain.reservations import Counter, Settlement, Source
from proxy.ledger.spool_records import SpoolRecord, framed, unframed

# With a grant, a rollover and the counter of all users beside the user's own.
FILLED = Counter(
    "acme:ann",
    Budget("mine", "tokens", 10, per="user", models=frozenset({"a"}), rollover_max=3),
    5,
    9,
    (Source("acme:grant", 4, 0, None, "g"), Source("acme:ann", 10, 5, 9, None)),
    ("acme:before",),
    Counter("acme:-", Budget("mine", "tokens", 10, per="user", models=frozenset({"a"})), 5, 9),
)

SETTLEMENT = Settlement(
    *("req_1:1", "acme", 3, (FILLED,), (9,), 9, RateLimits(1, None, 2), (4, 5, 6), b"{}"), parts=((4, 5),)
)


def test_grants_rollover_and_shared_counters_come_back() -> None:
    """Who paid must not depend on whether Redis was away for a moment."""
    assert list(unframed(framed(SETTLEMENT, "settle"))) == [SpoolRecord(SETTLEMENT, "settle")]


def test_a_line_of_an_older_faregate_has_no_sources() -> None:
    """A spool that was left behind is replayed by the version that finds it."""
    body = orjson.loads(framed(SETTLEMENT, "settle").split(b" ", 2)[2])
    del body["settlement"]["parts"]
    for later in ("sources", "before", "shared"):
        del body["settlement"]["counters"][0][later]
    text = orjson.dumps(body)
    (record,) = unframed(b"%08x %d %b\n" % (binascii.crc32(text), len(text), text))
    assert isinstance(record, SpoolRecord)
    assert record.settlement.counters[0].sources == ()
    assert record.settlement.parts == ()
