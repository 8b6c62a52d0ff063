"""From a stream entry to a row of `usage_events`: read, checked, never guessed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import orjson

from proxy.domain.money import pico_of, usd_text
from proxy.domain.usage_events import FIELDS, correction
from proxy.ledger.tables import usage_events

Row = dict[str, Any]

COLUMNS = (*FIELDS, "shard", "cost_pico")
INT64 = 1 << 63


def row_of(fields: Mapping[str, Any], shard: int) -> Row:
    """The row of a stream entry's fields (`StreamEntry`); ValueError says what is wrong with the entry.

    What only Redis knows (`kind`, `seq`, `late`, `disputed`, `charged`) comes from the fields, the rest from
    the event. A correction carries its signed differences from `prior`.
    """
    event = _read(fields, "event", dict)
    kind = fields.get("kind", "terminal")
    seq = _number(fields, "seq")
    late, disputed = _flag(fields, "late"), _flag(fields, "disputed")
    event["charged"] = _read(fields, "charged", list)
    try:
        if kind == "correction":
            event = correction(event, _prior(fields), seq, late, disputed)
        elif kind == "terminal":
            event |= {
                "id": f"{event['request_id']}:{event['attempt']}",
                "kind": kind,
                "seq": seq,
                "late": late,
                "disputed": disputed or bool(event.get("disputed")),
            }
        else:
            raise ValueError(f"kind is {kind!r}; it must be terminal or correction")
    except KeyError as missing:
        raise ValueError(f"the event has no {missing.args[0]}") from None
    return event_row(event, shard)


def event_row(event: Mapping[str, Any], shard: int) -> Row:
    """The row of a whole usage event; ValueError names the first field that the table would not take."""
    row: Row = {}
    for name, kind, nullable in _KINDS:
        value = event.get(name)
        if type(value) is not kind and not (value is None and nullable):
            raise ValueError(f"{name} must be {kind.__name__}, not {type(value).__name__}")
        if kind is int and value is not None and not -INT64 <= value < INT64:
            raise ValueError(f"{name} is {value}, which no counter of ours reaches")
        row[name] = value
    row["cost_usd"], row["cost_pico"] = _cost(row["cost_usd"])
    row["shard"] = shard
    return row


def _cost(usd: str | None) -> tuple[str | None, int | None]:
    if usd is None:
        return None, None
    try:
        pico = pico_of(usd)
        if Decimal(usd_text(pico)) != Decimal(usd):
            raise ValueError(usd)
    except (ArithmeticError, ValueError):
        raise ValueError(f"cost_usd is {usd!r}, no exact decimal of dollars") from None
    if not -INT64 <= pico < INT64:
        raise ValueError(f"cost_usd is {usd}, more than one attempt can cost")
    return usd_text(pico), pico


def _kind(name: str) -> type[Any]:
    if name in ("held", "charged"):
        return list
    if name == "raw_usage":
        return dict
    return {"INTEGER": int, "BIGINT": int, "BOOLEAN": bool}.get(str(usage_events.c[name].type), str)


_KINDS = tuple((name, _kind(name), bool(usage_events.c[name].nullable)) for name in FIELDS)


def _prior(fields: Mapping[str, Any]) -> tuple[int, int, int]:
    try:
        input_tokens, output_tokens, cost_pico = (int(part) for part in fields["prior"].split(","))
    except (KeyError, ValueError):
        raise ValueError('prior must be "input,output,cost_pico"') from None
    return input_tokens, output_tokens, cost_pico


def _read(fields: Mapping[str, Any], name: str, kind: Callable[..., Any]) -> Any:
    try:
        value = orjson.loads(fields[name])
    except KeyError:
        raise ValueError(f"the entry has no {name}") from None
    except orjson.JSONDecodeError as fault:
        raise ValueError(f"{name} is no JSON: {fault}") from None
    if type(value) is not kind:
        raise ValueError(f"{name} is no JSON {'object' if kind is dict else 'list'}")
    return value


def _number(fields: Mapping[str, Any], name: str) -> int:
    try:
        return int(fields[name])
    except (KeyError, ValueError):
        raise ValueError(f"{name} must be a whole number") from None


def _flag(fields: Mapping[str, Any], name: str) -> bool:
    return fields.get(name) in ("1", b"1", "true", b"true")
