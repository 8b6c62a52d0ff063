"""All that is done once beside the workers, put together: each part pushes its own ending when it is made."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Mapping

import structlog
from aiohttp import web
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from proxy.app.admin import admin_deps
from proxy.app.admin_upkeep import AdminUpkeep
from proxy.app.backlog import BacklogBound, KeeperFigures
from proxy.app.chaos import Chaos, ChaosOfWorkers
from proxy.app.clock import SystemClock, id_maker
from proxy.app.doctor import Doctor
from proxy.app.invariants import examine
from proxy.app.meters import ProcessMeters
from proxy.app.notifying import Notifying
from proxy.app.older import OlderShards
from proxy.app.policies import LivePolicy, keeper_id
from proxy.app.reopening import HAND_OVER_S, Reopening
from proxy.app.replay import Replaying
from proxy.app.store import Store
from proxy.app.worker import WorkerConfiguration
from proxy.budgets.denial_stream import DenialStream
from proxy.budgets.event_stream import RedisEventStream
from proxy.budgets.keeper_lease import KeeperLease
from proxy.budgets.recovery import Recovery
from proxy.budgets.redis_directory import DirectoryProjector
from proxy.domain.reservations import LiveReservation
from proxy.gateway.ports import StoreAway
from proxy.gateway.sweep import Sweeper
from proxy.ledger.admin_tokens import SqlAdminTokens
from proxy.ledger.audit import events_set_aside
from proxy.ledger.directory import SqlAccounts
from proxy.ledger.engine import open_ledger
from proxy.ledger.idempotency import SqlIdempotency
from proxy.ledger.migrate import migrate
from proxy.ledger.outbox import Projector
from proxy.ledger.spool import check_spools, drain_dead
from proxy.ledger.subscriptions import adopt_default_plan, apply_due
from proxy.ledger.writer import DenialWriter, LedgerWriter
from proxy.policy_files import watch
from proxy.processes import KeeperLock, PortClaim, StopSignals, Supervisor, listen_alone
from proxy.settings import Settings
from proxy.telemetry import Counters, Merged, Tasks
from proxy.web.admin.app import admin_app
from proxy.web.admin.listener import AdminRunner

log = structlog.get_logger(__name__)

LAST_EVENTS_S = 10.0
LAST_WORDS_S = 2.0
SEQS_S = 2.0
SPOOL_LOOK_S = 5.0
SCHEDULE_LOOK_S = 1.0


class Housekeeping:
    """The parts of a keeper. `bring_up` makes them in an order in which each finds what it needs."""

    _claim: PortClaim
    _admin_socket: socket.socket
    _store: Store
    _engine: AsyncEngine
    _projector: DirectoryProjector
    _policies: LivePolicy
    _outbox: Projector
    _writer: LedgerWriter
    _denials: DenialWriter
    _replaying: Replaying
    _reopening: Reopening
    _older: OlderShards
    _notifying: Notifying

    def __init__(
        self,
        settings: Settings,
        token: str,
        pepper: bytes,
        keys: Mapping[str, str],
        signals: StopSignals,
        closing: contextlib.AsyncExitStack,
    ) -> None:
        self._settings = settings
        self._token, self._pepper, self._keys = token, pepper, keys
        self._signals = signals
        self._closing = closing
        self._chaos = Chaos.of(os.environ)
        self._spool = settings.data.dir / "spool"
        self._clock, self._counters, self._merged, self._tasks = SystemClock(), Counters(), Merged(), Tasks()

    async def bring_up(self) -> tuple[int, int]:
        """Returns the data plane's port and the admin plane's, once both serve."""
        self._chaos.arm_keeper()
        await self._claim_places()
        await self._open_stores()
        await self._make_whole()
        self._begin_work()
        await self._serve_admin_plane()
        await self._start_workers()
        return self._claim.port, int(self._admin_socket.getsockname()[1])

    async def _claim_places(self) -> None:
        """The data folder and both ports, before anything is touched."""
        settings = self._settings
        lock = KeeperLock.take(settings.data.dir)
        self._closing.callback(lock.release)
        self._claim = await PortClaim.take(settings.server.host, settings.server.port)
        self._closing.callback(self._claim.release)
        self._admin_socket = listen_alone(settings.admin.host, settings.admin.port, "admin")
        self._closing.callback(self._admin_socket.close)
        await asyncio.to_thread(check_spools, self._spool)

    async def _open_stores(self) -> None:
        """Redis and the ledger, each checked and of the right age."""
        settings = self._settings
        self._store = await Store.open(settings, self._tasks, self._closing, self._chaos.lease_s)
        ledger_url = settings.ledger.url or f"sqlite:///{settings.data.dir / 'ledger.sqlite3'}"
        await migrate(ledger_url)
        self._engine = open_ledger(ledger_url)
        self._closing.push_async_callback(self._engine.dispose)
        shards, cold = settings.redis.shards, self._store.cold_blocking
        consumer = id_maker("keeper")()
        self._writer = LedgerWriter(RedisEventStream(cold, shards), self._engine, self._clock, consumer)
        self._denials = DenialWriter(DenialStream(cold, shards), self._engine, self._clock, consumer)

    async def _make_whole(self) -> None:
        """What Redis has lost or never had is put there, before anybody is served by it."""
        settings, store, engine = self._settings, self._store, self._engine
        shards = settings.redis.shards
        self._projector = DirectoryProjector(store.cold, shards)
        lease = KeeperLease(store.cold, "policy files", keeper_id(settings.data.dir), self._clock)
        self._policies = LivePolicy(settings, engine, self._projector, self._clock, self._counters, lease)
        self._closing.push_async_callback(self._policies.end)
        self._replaying = Replaying(store.budgets, Recovery(store.hot, shards), engine, self._clock)
        self._reopening = Reopening(store.books, engine, self._spool, self._replaying, self._policies.publish)
        self._older = OlderShards(store.books, store.budgets, engine, shards, self._counters)
        await store.check_install()
        await self._older.close_older()
        self._reopening.backlog = self._writer.drain
        await self._reopening.open_blank_shards()
        self._reopening.backlog = store.backlog
        await store.budgets.adopt_epochs()
        await self._policies.begin()
        if default_plan := settings.policies.default_plan:
            await adopt_default_plan(engine, default_plan, self._clock.now_us())
        self._outbox = Projector(engine, self._projector, self._clock.now_us)
        await self._outbox.project_all()

    def _begin_work(self) -> None:
        """Everything that goes on for as long as the keeper lives."""
        settings, store, chaos = self._settings, self._store, self._chaos
        self._closing.push_async_callback(self._record_last_events)
        self._closing.push_async_callback(self._tasks.cancel_all, 3.0)
        meters = ProcessMeters(self._counters, None, self._clock)
        sweeper = Sweeper(store.budgets, settings.redis.shards, meters, chaos.sweep_s)
        bound = BacklogBound(store.waiting, settings.ledger.backlog_max_events, self._counters)
        figures = KeeperFigures(self._counters, self._writer.lag, sweeper, self._spool)
        doctor = Doctor(
            lambda: examine(store, self._engine, settings.redis.shards, self._clock),
            store.corrections,
            lambda: events_set_aside(self._engine),
            self._counters,
            chaos.examine_s,
        )
        for work, name in (
            (self._writer.run(), "ledger writer"),
            (self._denials.run(), "denial writer"),
            (self._outbox.run(), "directory projection"),
            (self._apply_scheduled_changes(), "scheduled changes of subscriptions"),
            (sweeper.run(), "sweeper"),
            (self._replay_spools(), "spools of dead workers"),
            (store.guard(self._older.look), "store guard"),
            (self._older.run(), "older shards"),
            (self._reopening.run(), "blank shards"),
            (bound.run(), "backlog bound"),
            (figures.run(), "keeper's figures"),
            (doctor.run(), "doctor"),
            (self._policies.run(), "policy"),
        ):
            self._tasks.spawn(work, name)
        self._notify(doctor)
        if settings.policies.watch:
            self._tasks.spawn(watch(self._policies.directory, self._policies.reapply), "policy files")

    def _notify(self, doctor: Doctor) -> None:
        self._notifying = Notifying(
            self._settings,
            self._pepper,
            self._engine,
            self._store,
            self._policies,
            self._clock,
            self._counters,
            self._merged,
        )
        self._notifying.begin(self._tasks, self._denials, doctor)

    async def _serve_admin_plane(self) -> None:
        tokens = SqlAdminTokens(self._engine, self._clock)
        upkeep = AdminUpkeep(tokens, SqlIdempotency(self._engine, self._clock))
        self._closing.push_async_callback(upkeep.last_round)
        self._tasks.spawn(upkeep.run(), "admin plane's upkeep")
        deps = admin_deps(
            self._settings,
            self._token,
            self._pepper,
            SqlAccounts(self._engine, self._clock, os.urandom, self._outbox.wait_for),
            tokens,
            self._engine,
            self._store,
            self._writer,
            self._policies,
            self._clock,
            self._counters,
            self._merged,
            self._notifying,
        )
        runner = AdminRunner(admin_app(deps))
        await runner.setup()
        self._closing.push_async_callback(runner.cleanup)
        await web.SockSite(runner, self._admin_socket).start()

    async def _start_workers(self) -> None:
        settings = self._settings
        message = WorkerConfiguration.message(
            settings, self._claim.port, self._store.url, self._pepper, self._keys
        )
        supervisor = Supervisor(
            settings.server.workers,
            ChaosOfWorkers(self._chaos, message),
            tasks=self._tasks,
            counters=self._counters,
            merged=self._merged,
            # A worker drains for `drain_s` and then has last words to say, before force is used.
            drain_s=settings.server.drain_s + LAST_WORDS_S,
        )
        self._closing.push_async_callback(supervisor.stop, self._signals.quickly)
        self._reopening.hand_over = _hand_over(supervisor)
        self._reopening.refresh = self._refresh
        self._older.seen_by_workers = lambda: supervisor.seqs(SEQS_S)
        supervisor.on_behind = self._close_behind
        supervisor.tell(self._policies.details())
        self._policies.on_news = lambda: supervisor.tell(self._policies.details())
        await supervisor.start()

    async def _refresh(self) -> None:
        """Projects again what a Redis that was put back to an older state believes to be complete."""
        if await self._projector.is_complete():
            await self._policies.publish()
            await self._outbox.project_all()
        for writer in (self._writer, self._denials):
            writer.take_over_at_once()

    def _close_behind(self, shards: list[tuple[int, int]]) -> None:
        self._tasks.spawn(self._older.close_behind(shards), "shards behind")

    async def _apply_scheduled_changes(self) -> None:
        """Workers obey them at their time; this makes them the customers' present."""
        while True:
            try:
                if count := await apply_due(self._engine, self._clock.store_now_us()):
                    log.info("subscriptions.changed_as_scheduled", customers=count)
            except (SQLAlchemyError, OSError, TimeoutError) as fault:
                log.warning("subscriptions.wait_for_ledger", why=str(fault))
            await asyncio.sleep(SCHEDULE_LOOK_S)

    async def _replay_spools(self) -> None:
        """What dead workers could not settle is settled for them, as soon as Redis takes it."""
        while True:
            try:
                if count := await drain_dead(self._spool, self._replaying.into_redis):
                    log.info("spool.replayed", settlements=count)
            except StoreAway:
                log.warning("spool.waits_for_redis")
            await asyncio.sleep(SPOOL_LOOK_S)

    async def _record_last_events(self) -> None:
        """The workers have ended: what they left in the streams goes into the ledger before the store ends."""
        for stream in (self._writer, self._denials):
            try:
                async with asyncio.timeout(LAST_EVENTS_S):
                    await stream.drain()
            except Exception as fault:
                log.warning("events.left_in_redis", writer=type(stream).__name__, why=str(fault))


def _hand_over(supervisor: Supervisor) -> Callable[[], Awaitable[list[LiveReservation]]]:
    async def hand_over() -> list[LiveReservation]:
        rows = await supervisor.hand_over(HAND_OVER_S)
        return [
            LiveReservation(**{**row, "counters": tuple(row["counters"]), "amounts": tuple(row["amounts"])})
            for row in rows
        ]

    return hand_over
