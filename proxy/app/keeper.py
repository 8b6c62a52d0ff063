"""The keeper's life: brought up in order, serving until a signal, taken down in the opposite order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from setproctitle import setproctitle

from proxy import __version__
from proxy.app.chaos import ChaosFault
from proxy.app.housekeeping import Housekeeping
from proxy.budgets.redis_budgets import WrongShards
from proxy.budgets.store_binary import EmbeddedStoreFault
from proxy.budgets.store_client import StoreUnfit
from proxy.gateway.ports import StoreAway
from proxy.ledger.migrate import LedgerTooNew, LedgerUnfit
from proxy.ledger.spool import SpoolDamaged
from proxy.policy_files import PolicyFaults
from proxy.processes import CannotListen, DataInUse, StopSignals, WorkerFailed
from proxy.settings import Settings, admin_token, secret_pepper, take_upstream_keys
from proxy.telemetry import report_loop_faults, set_up

REFUSALS = (
    CannotListen,
    ChaosFault,
    DataInUse,
    EmbeddedStoreFault,
    LedgerTooNew,
    LedgerUnfit,
    PolicyFaults,
    SpoolDamaged,
    StoreUnfit,
    StoreAway,
    WorkerFailed,
    WrongShards,
)
"""What keeps a gate from starting and is told in a sentence, without a traceback."""


@dataclass(frozen=True, slots=True)
class Serving:
    """Where a gate serves, for whoever started it."""

    url: str
    admin_url: str
    admin_token: str
    token_place: str
    settings: Settings


Ready = Callable[[Serving], Awaitable[bool]]
"""Called once when the gate serves; False: stop now."""


async def keep(settings: Settings, ready: Ready | None = None) -> int:
    """Serves until a signal, or until `ready` says so; returns the exit code."""
    setproctitle("faregate keeper")
    token, pepper = admin_token(settings, os.environ), secret_pepper(settings, os.environ)
    keys = take_upstream_keys(settings, os.environ)
    logs = set_up(
        settings.telemetry.log_format, process="keeper", secrets=[token, pepper.decode(), *keys.values()]
    )
    signals = StopSignals(_say, settings.server.drain_s)
    signals.install(asyncio.get_running_loop())
    report_loop_faults(asyncio.get_running_loop())
    try:
        async with contextlib.AsyncExitStack() as closing:
            try:
                house = Housekeeping(settings, token, pepper, keys, signals, closing)
                port, admin_port = await house.bring_up()
            except REFUSALS as refusal:
                _say(f"Faregate cannot start. {refusal}")
                return 1
            serving = _announce(settings, port, admin_port, token)
            if ready is None or await ready(serving):
                await signals.asked.wait()
        return signals.exit_code
    finally:
        logs.close()


def _announce(settings: Settings, port: int, admin_port: int, token: str) -> Serving:
    host, admin_host = settings.server.host, settings.admin.host
    kept = (
        "FAREGATE_ADMIN_TOKEN"
        if os.environ.get("FAREGATE_ADMIN_TOKEN")
        else str(settings.data.dir / "admin-token")
    )
    serving = Serving(f"http://{host}:{port}", f"http://{admin_host}:{admin_port}", token, kept, settings)
    _say(
        f"Faregate {__version__} serves at {serving.url}/v1 ({settings.server.workers} worker(s)); "
        f"admin plane at {serving.admin_url}, its token in {kept}."
    )
    return serving


def _say(sentence: str) -> None:
    """To the person at the terminal, beside the log."""
    sys.stderr.write(sentence + "\n")
    sys.stderr.flush()
