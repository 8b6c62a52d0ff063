"""Usage events that nobody made: for the writers to take in, and for a ledger that has seen some years."""

from __future__ import annotations

import orjson
from chaos_gate import HISTORY, SHARDS, Place

from proxy.ledger.engine import open_ledger
from proxy.ledger.entries import record_events
from proxy.ledger.rows import row_of

CUSTOMERS = 1000
WINDOW_US = 1_795_200_000_000_000


def fields(number: int, tokens: int, counter: str, seq: int | None = None) -> dict[str, str]:
    """A stream entry's, as the settle script appends it."""
    charged = [{"budget_id": "tokens", "window_start": 0, "grant_id": None, "counter": counter, "amount": tokens}]
    event = {**EVENT, "request_id": f"req_{number:08d}", "id": f"req_{number:08d}:0"}
    return {
        "event": orjson.dumps(event).decode(), "kind": "terminal", "seq": str(number + 1 if seq is None else seq),
        "charged": orjson.dumps(charged).decode(), "late": "0", "disputed": "0", "prior": "0,0,0",
    }  # fmt: skip


async def add_history(place: Place, events: int) -> None:
    """Records that many events of a thousand customers that call no more."""
    engine = open_ledger(f"sqlite:///{place.folder}/var/ledger.sqlite3")
    for first in range(0, events, 500):
        rows = []
        for number in range(first, min(first + 500, events)):
            counter = f"old{number % CUSTOMERS}/customer/tokens/tokens/P1M/{WINDOW_US}"
            # The first of all sequence numbers: a higher one would say that Redis lies behind.
            rows.append(row_of(fields(number, 7, counter, seq=1), number % CUSTOMERS % SHARDS))
        await record_events(engine, rows, WINDOW_US)
    await engine.dispose()


EVENT = {
    "attempt": 0, "customer_id": HISTORY, "agent_id": "agt_1", "agent_type_id": "research", "plan_id": "starter",
    "plan_version": 1, "user_id": None, "anonymous_id": None, "run_id": None, "step": None,
    "endpoint": "/v1/chat/completions", "streamed": False, "model": "small", "model_served": "small",
    "upstream": "openai", "provider_request_id": None, "fallback_from": None, "fallback_reason": None,
    "disputed": False, "status": "succeeded", "http_status": 200, "error_type": None, "usage_source": "provider",
    "input_tokens": 3, "output_tokens": 4, "uncached_input_tokens": 3, "cache_read_tokens": 0,
    "cache_write_tokens": 0, "audio_input_tokens": 0, "reasoning_tokens": 0, "audio_output_tokens": 0,
    "raw_usage": None, "cost_usd": "0.00001", "price_version": "models.toml", "held": [],
    "admitted_at": 1_795_200_000_123_456, "first_byte_at": None, "finished_at": 1_795_200_000_623_456,
    "latency_ms": 500, "ttft_ms": None, "queued_ms": 0, "billable": True,
}  # fmt: skip
