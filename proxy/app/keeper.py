"""The keeper put together: all that is done once beside the workers, brought up and taken down in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
from aiohttp import web
from setproctitle import setproctitle

from proxy import __version__
from proxy.app.admin import admin_deps
from proxy.app.backlog import BacklogBound, KeeperFigures
from proxy.app.chaos import Chaos, ChaosFault, ChaosOfWorkers
from proxy.app.clock import SystemClock, id_maker
from proxy.app.doctor import Doctor
from proxy.app.invariants import examine
from proxy.app.meters import ProcessMeters
from proxy.app.older import OlderShards
from proxy.app.policies import LivePolicy
from proxy.app.reopening import HAND_OVER_S, Reopening
from proxy.app.replay import Replaying
from proxy.app.store import Store
from proxy.app.worker import WorkerConfiguration
from proxy.budgets.denial_stream import DenialStream
from proxy.budgets.event_stream import RedisEventStream
from proxy.budgets.recovery import Recovery
from proxy.budgets.redis_budgets import WrongShards
from proxy.budgets.redis_directory import DirectoryProjector
from proxy.budgets.store_binary import EmbeddedStoreFault
from proxy.budgets.store_client import StoreUnfit
from proxy.domain.reservations import LiveReservation
from proxy.gateway.ports import StoreAway
from proxy.gateway.sweep import Sweeper
from proxy.ledger.audit import events_set_aside
from proxy.ledger.directory import SqlAccounts
from proxy.ledger.engine import open_ledger
from proxy.ledger.migrate import LedgerTooNew, LedgerUnfit, migrate
from proxy.ledger.outbox import Projector
from proxy.ledger.spool import SpoolDamaged, check_spools, drain_dead
from proxy.ledger.writer import DenialWriter, LedgerWriter, StreamWriter
from proxy.policy_files import PolicyFaults, watch
from proxy.processes import (
    CannotListen,
    DataInUse,
    KeeperLock,
    PortClaim,
    StopSignals,
    Supervisor,
    WorkerFailed,
    listen_alone,
)
from proxy.settings import Settings, admin_token, secret_pepper, take_upstream_keys
from proxy.telemetry import Counters, Merged, Tasks, report_loop_faults, set_up
from proxy.web.admin.app import admin_app
from proxy.web.admin.listener import AdminRunner

log = structlog.get_logger(__name__)

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

LAST_EVENTS_S = 10.0
LAST_WORDS_S = 2.0
SEQS_S = 2.0
SPOOL_LOOK_S = 5.0


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
                serving = await _bring_up(settings, token, pepper, keys, signals, closing)
            except REFUSALS as refusal:
                _say(f"Faregate cannot start. {refusal}")
                return 1
            if ready is None or await ready(serving):
                await signals.asked.wait()
        return signals.exit_code
    finally:
        logs.close()


async def _bring_up(
    settings: Settings,
    token: str,
    pepper: bytes,
    keys: dict[str, str],
    signals: StopSignals,
    closing: contextlib.AsyncExitStack,
) -> Serving:
    """Each step pushes its own ending, so that all end in the opposite order, whichever step failed."""
    chaos = Chaos.of(os.environ)
    chaos.arm_keeper()
    lock = KeeperLock.take(settings.data.dir)
    closing.callback(lock.release)
    claim = await PortClaim.take(settings.server.host, settings.server.port)
    closing.callback(claim.release)
    admin_socket = listen_alone(settings.admin.host, settings.admin.port, "admin")
    closing.callback(admin_socket.close)

    clock, counters, merged, tasks = SystemClock(), Counters(), Merged(), Tasks()
    meters = ProcessMeters(counters, None, clock)
    spool = settings.data.dir / "spool"
    await asyncio.to_thread(check_spools, spool)
    store = await Store.open(settings, tasks, closing, chaos.lease_s)
    ledger_url = settings.ledger.url or f"sqlite:///{settings.data.dir / 'ledger.sqlite3'}"
    await migrate(ledger_url)
    engine = open_ledger(ledger_url)
    closing.push_async_callback(engine.dispose)
    projector = DirectoryProjector(store.cold, settings.redis.shards)
    policies = LivePolicy(settings, engine, projector, clock, counters)
    replaying = Replaying(store.budgets, Recovery(store.hot, settings.redis.shards), engine, clock)
    reopening = Reopening(store.books, engine, spool, replaying, policies.publish)
    older = OlderShards(store.books, store.budgets, engine, settings.redis.shards, counters)
    await store.check_install()
    await older.close_older()
    streams = RedisEventStream(store.cold_blocking, settings.redis.shards)
    consumer = id_maker("keeper")()
    writer = LedgerWriter(streams, engine, clock, consumer)
    reopening.backlog = writer.drain
    await reopening.open_blank_shards()
    reopening.backlog = store.backlog
    await store.budgets.adopt_epochs()
    await policies.apply()
    outbox = Projector(engine, projector)
    await outbox.project_all()
    accounts = SqlAccounts(engine, clock, os.urandom, outbox.wait_for)

    denials = DenialWriter(DenialStream(store.cold_blocking, settings.redis.shards), engine, clock, consumer)
    closing.push_async_callback(_last_events, writer, denials)
    closing.push_async_callback(tasks.cancel_all, 3.0)
    sweeper = Sweeper(store.budgets, settings.redis.shards, meters, chaos.sweep_s)
    bound = BacklogBound(store.waiting, settings.ledger.backlog_max_events, counters)
    figures = KeeperFigures(counters, writer.lag, sweeper, spool)
    doctor = Doctor(
        lambda: examine(store, engine, settings.redis.shards, clock),
        store.corrections,
        lambda: events_set_aside(engine),
        counters,
        chaos.examine_s,
    )
    for work, name in (
        (writer.run(), "ledger writer"),
        (denials.run(), "denial writer"),
        (outbox.run(), "directory projection"),
        (sweeper.run(), "sweeper"),
        (_replay_spools(spool, replaying), "spools of dead workers"),
        (store.guard(older.look), "store guard"),
        (older.run(), "older shards"),
        (reopening.run(), "blank shards"),
        (bound.run(), "backlog bound"),
        (figures.run(), "keeper's figures"),
        (doctor.run(), "doctor"),
    ):
        tasks.spawn(work, name)
    if settings.policies.watch:
        tasks.spawn(watch(policies.directory, policies.reapply), "policy files")

    deps = admin_deps(settings, token, pepper, accounts, engine, store, writer, policies, clock, counters, merged)
    runner = AdminRunner(admin_app(deps))
    await runner.setup()
    closing.push_async_callback(runner.cleanup)
    await web.SockSite(runner, admin_socket).start()

    message = WorkerConfiguration.message(settings, claim.port, store.url, pepper, keys)
    supervisor = Supervisor(
        settings.server.workers,
        ChaosOfWorkers(chaos, message),
        tasks=tasks,
        counters=counters,
        merged=merged,
        # A worker drains for `drain_s` and then has last words to say, before force is used.
        drain_s=settings.server.drain_s + LAST_WORDS_S,
    )
    closing.push_async_callback(supervisor.stop, signals.quickly)
    reopening.hand_over = lambda: _handed_over(supervisor)
    older.seen_by_workers = lambda: supervisor.seqs(SEQS_S)
    supervisor.on_behind = _closing_behind(older, tasks)
    reopening.refresh = lambda: _refreshed(projector, outbox, policies, writer, denials)
    await supervisor.start()
    return _announce(settings, claim.port, admin_socket.getsockname()[1], token)


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


async def _last_events(writer: LedgerWriter, denials: DenialWriter) -> None:
    """The workers have ended: what they left in the streams goes into the ledger before the store ends."""
    for stream in (writer, denials):
        try:
            async with asyncio.timeout(LAST_EVENTS_S):
                await stream.drain()
        except Exception as fault:
            log.warning("events.left_in_redis", writer=type(stream).__name__, why=str(fault))


async def _refreshed(
    projector: DirectoryProjector, outbox: Projector, policies: LivePolicy, *writers: StreamWriter
) -> None:
    """Projects again what a Redis that was put back to an older state believes to be complete."""
    if await projector.is_complete():
        await policies.publish()
        await outbox.project_all()
    for writer in writers:
        writer.take_over_at_once()


def _closing_behind(older: OlderShards, tasks: Tasks) -> Callable[[list[tuple[int, int]]], None]:
    def close(shards: list[tuple[int, int]]) -> None:
        tasks.spawn(older.close_behind(shards), "shards behind")

    return close


async def _handed_over(supervisor: Supervisor) -> list[LiveReservation]:
    rows = await supervisor.hand_over(HAND_OVER_S)
    return [
        LiveReservation(**{**row, "counters": tuple(row["counters"]), "amounts": tuple(row["amounts"])})
        for row in rows
    ]


async def _replay_spools(spool: Path, replaying: Replaying) -> None:
    """What dead workers could not settle is settled for them, as soon as Redis takes it."""
    while True:
        try:
            if count := await drain_dead(spool, replaying.into_redis):
                log.info("spool.replayed", settlements=count)
        except StoreAway:
            log.warning("spool.waits_for_redis")
        await asyncio.sleep(SPOOL_LOOK_S)


def _say(sentence: str) -> None:
    """To the person at the terminal, beside the log."""
    sys.stderr.write(sentence + "\n")
    sys.stderr.flush()
