"""A served gate to measure: everything on, nothing ever refused."""

from __future__ import annotations

import contextlib
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.processes import START_DEADLINE_S, descendants, free_port, module, running
from bench.targets import Target

ADMIN_TOKEN = "admin-token-of-the-benchmark"
LOG_TAIL = 2000

MODELS = """
[models."small"]
upstream = "openai"
upstream_model = "small-upstream"
max_output_tokens = 4096
context_tokens = 128000
output_limit_field = "max_tokens"
price = { input = "0.15", output = "0.60" }
"""

# Limits that no run reaches, so that every request passes every check.
PLAN = """
id = "bench"
name = "Bench"
models = ["*"]
[[budgets]]
id = "monthly-tokens"
meter = "tokens"
limit = 1_000_000_000_000
[[budgets]]
id = "daily-requests"
meter = "requests"
limit = 1_000_000_000
window = "P1D"
[[budgets]]
id = "monthly-cost"
meter = "cost_usd"
limit = "1000000"
[rate_limits]
requests_per_minute = 60_000_000
tokens_per_minute = 100_000_000_000
concurrent_requests = 10_000
"""

MORE = """
[[budgets]]
id = "tokens-{}"
meter = "tokens"
limit = 1_000_000_000_000
"""


@contextlib.contextmanager
def gate(folder: Path, upstream_url: str, budgets: int = 3, grants: int = 0) -> Iterator[Target]:
    """One worker, an embedded Valkey and SQLite, ready and with a customer, while the block lasts.

    The usual three `budgets`, or more of tokens; `grants` are the customer's, and each adds to one of those.
    """
    folder.mkdir()
    port, admin_port = free_port(), free_port()
    _write(folder, port, admin_port, upstream_url, max(0, budgets - 3))
    log = folder / "log"
    environment = {**os.environ, "FAREGATE_ADMIN_TOKEN": ADMIN_TOKEN, "OPENAI_API_KEY": "sk-benchmark"}
    argv = module("proxy", "serve", "--config", folder / "config.toml")
    with running(argv, log, env=environment, start_new_session=True) as keeper:
        admin = _Admin(f"http://127.0.0.1:{admin_port}/admin/v1")
        deadline_s = time.monotonic() + START_DEADLINE_S
        while not _ready(port):
            if keeper.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"The gate did not start:\n{log.read_text()[-LOG_TAIL:]}")
            time.sleep(0.1)
        secret = admin.customer()
        for number in range(grants):
            admin.grant(f"grant-{number}", f"tokens-{number % (budgets - 3)}" if budgets > 3 else "monthly-tokens")
        usual = budgets == 3 and not grants
        yield Target(
            "gate" if usual else f"gate, {budgets} budgets, {grants} grants",
            f"http://127.0.0.1:{port}/v1/chat/completions",
            secret,
            "small",
            [pid for pid, command in descendants(keeper.pid).items() if command.startswith("faregate worker")],
            {
                "redis": [pid for pid, command in descendants(keeper.pid).items() if "-server" in command],
                "keeper": [keeper.pid],
            },
        )


def _write(folder: Path, port: int, admin_port: int, upstream_url: str, more_budgets: int) -> None:
    (folder / "policies" / "plans").mkdir(parents=True)
    (folder / "policies" / "models.toml").write_text(MODELS)
    (folder / "policies" / "plans" / "bench.toml").write_text(
        PLAN + "".join(MORE.format(number) for number in range(more_budgets))
    )
    (folder / "config.toml").write_text(
        f"""
[server]
port = {port}
drain_s = 5
[admin]
port = {admin_port}
[policies]
default_plan = "bench"
[upstreams.openai]
base_url = "{upstream_url}"
"""
    )


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


class _Admin:
    def __init__(self, url: str) -> None:
        self._url = url

    def customer(self) -> str:
        """Makes a customer with one agent; returns the agent's secret."""
        self._post("/agent-types", {"id": "bench", "name": "Bench", "kind": "custom"})
        self._post("/customers", {"id": "acme", "name": "Acme", "plan": "bench"})
        agent = {"id": "acme-agent", "name": "Bench", "customer_id": "acme", "agent_type_id": "bench"}
        self._post("/agents", agent)
        return str(self._post("/agents/acme-agent/secrets", {})["secret"])

    def grant(self, id: str, budget_id: str) -> None:
        """Usable from the next request on, and burnt before the plan's own."""
        terms = {"id": id, "meter": "tokens", "amount": 10**12, "budget_id": budget_id, "priority": 1}
        self._post("/customers/acme/grants", {**terms, "reason": "benchmark"})

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            self._url + path,
            json.dumps(body).encode(),
            {"authorization": f"Bearer {ADMIN_TOKEN}", "content-type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return dict(json.load(response))
        except urllib.error.HTTPError as fault:
            raise RuntimeError(f"POST {path}: {fault.code} {fault.read()!r}") from None
