"""One settlement as one line of a spool: `<crc32, 8 hex> <length> <JSON>\\n`.

The JSON holds no newline, so after any damage the next line is whole again; length and checksum tell a line that
was torn or overwritten from one that was written.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import orjson

from proxy.domain.policy import Budget, RateLimits
from proxy.domain.reservations import Counter, Settlement, Source

Verb = Literal["settle", "release"]


@dataclass(frozen=True, slots=True)
class SpoolRecord:
    """A settlement, and how it was to be applied."""

    settlement: Settlement
    verb: Verb


@dataclass(frozen=True, slots=True)
class Damage:
    """A line that is no record: where it begins (bytes), how long it is, and whether it is just the torn end."""

    offset: int
    length: int
    torn: bool


def framed(settlement: Settlement, verb: Verb) -> bytes:
    """The line of a settlement."""
    document = asdict(settlement)
    document["event"] = settlement.event.decode()
    for counter in document["counters"]:
        for at in (counter, counter["shared"]):
            if at is not None and (models := at["budget"]["models"]) is not None:
                at["budget"]["models"] = sorted(models)
    body = orjson.dumps({"verb": verb, "settlement": document})
    return b"%08x %d %b\n" % (binascii.crc32(body), len(body), body)


def unframed(content: bytes) -> Iterator[SpoolRecord | Damage]:
    """The records of a spool in order, and in between what is damaged. A torn end is what a crash leaves."""
    offset = 0
    while offset < len(content):
        end = content.find(b"\n", offset)
        last = end < 0
        line = content[offset:] if last else content[offset:end]
        yield _record(line) or Damage(offset, len(line), torn=last)
        offset += len(line) + 1


def _record(line: bytes) -> SpoolRecord | None:
    checksum, _, rest = line.partition(b" ")
    length, _, body = rest.partition(b" ")
    if length != b"%d" % len(body) or checksum != b"%08x" % binascii.crc32(body):
        return None
    try:
        document = orjson.loads(body)
        return SpoolRecord(_settlement(document["settlement"]), document["verb"])
    except (KeyError, TypeError, ValueError):
        # Whole, but of another release's making: kept and reported like damage, never half understood.
        return None


def _settlement(document: dict[str, Any]) -> Settlement:
    return Settlement(
        **{
            **document,
            "counters": tuple(_counter(counter) for counter in document["counters"]),
            "amounts": tuple(document["amounts"]),
            "limits": RateLimits(**document["limits"]),
            "usage": tuple(document["usage"]),
            "parts": tuple(tuple(parts) for parts in document.get("parts", ())),
            "event": document["event"].encode(),
        }
    )


def _counter(document: dict[str, Any]) -> Counter:
    budget = document["budget"]
    models, shared = budget["models"], document.get("shared")
    alert_at = {"alert_at": tuple(budget["alert_at"])} if "alert_at" in budget else {}
    return Counter(
        **{
            **document,
            "budget": Budget(**{**budget, "models": None if models is None else frozenset(models), **alert_at}),
            "sources": tuple(Source(**source) for source in document.get("sources", ())),
            "before": tuple(document.get("before", ())),
            "shared": None if shared is None else _counter(shared),
        }
    )
