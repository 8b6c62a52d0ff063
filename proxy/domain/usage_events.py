"""The usage event as it is written down: one per attempt, and one more for each later correction (DESIGN 5.6).

An event is a dict of plain JSON values with the keys of `FIELDS`. Times are whole microseconds since 1970 (UTC);
`cost_usd` is the decimal string of `domain.money`, or None
where nobody knows the price; `held` and `charged` are lists of `{"budget_id",
"window_start", "grant_id", "amount"}` with amounts in the meter's unit, `cost_usd` in microdollars.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxy.domain.money import pico_of, usd_text

IDENTITY = (
    "id",
    "request_id",
    "attempt",
    "customer_id",
    "agent_id",
    "agent_type_id",
    "plan_id",
    "plan_version",
    "user_id",
    "anonymous_id",
    "run_id",
    "step",
    "endpoint",
    "streamed",
    "model",
    "model_served",
    "upstream",
    "provider_request_id",
    "fallback_from",
    "fallback_reason",
)
OUTCOME = ("kind", "seq", "late", "disputed", "status", "http_status", "error_type", "usage_source")
INPUT_PARTS = ("uncached_input_tokens", "cache_read_tokens", "cache_write_tokens", "audio_input_tokens")
OUTPUT_PARTS = ("reasoning_tokens", "audio_output_tokens")
TOKENS = ("input_tokens", "output_tokens", *INPUT_PARTS, *OUTPUT_PARTS)
TIMES = ("admitted_at", "first_byte_at", "finished_at")

FIELDS = (
    *IDENTITY,
    *OUTCOME,
    *TOKENS,
    "raw_usage",
    "cost_usd",
    "price_version",
    "held",
    "charged",
    *TIMES,
    "latency_ms",
    "ttft_ms",
    "queued_ms",
    "billable",
)


def correction(
    event: Mapping[str, Any], prior: tuple[int, int, int], seq: int, late: bool, disputed: bool
) -> dict[str, Any]:
    """The event that corrects an attempt whose earlier rows already say `prior` (input, output, picodollars).

    `event` says what was really used; the correction says the signed difference, so that an attempt's usage is
    the sum of its rows. What was recorded before had no parts but plain input (an orphan's or a release's), so
    the difference of the input falls on its uncached part. Of a disputed report only the totals can be
    compared, so its parts are left out, and it is never billed. What was held stays with the first row.
    """
    input_before, output_before, cost_before = prior
    cost = event["cost_usd"]
    input_tokens = event["input_tokens"] - input_before
    parts = (
        dict.fromkeys((*INPUT_PARTS, *OUTPUT_PARTS), 0)
        if disputed
        else {part: event[part] for part in (*INPUT_PARTS, *OUTPUT_PARTS)}
    )
    others = sum(parts[part] for part in INPUT_PARTS[1:])
    return {
        **event,
        **parts,
        "id": f"{event['request_id']}:{event['attempt']}:c{seq}",
        "kind": "correction",
        "seq": seq,
        "late": late,
        "disputed": disputed or bool(event.get("disputed")),
        "input_tokens": input_tokens,
        "output_tokens": event["output_tokens"] - output_before,
        "uncached_input_tokens": input_tokens - others,
        "cost_usd": None if cost is None else usd_text(pico_of(cost) - cost_before),
        "held": [],
        "billable": bool(event["billable"]) and not disputed,
    }
