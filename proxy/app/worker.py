"""A gate worker put together: the journey, its ports, and nothing that knows SQL or files of policies."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import hmac
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import structlog

from proxy.app.catalogue import WorkerCatalogue
from proxy.app.chaos import Chaos
from proxy.app.clock import SystemClock, id_maker
from proxy.app.memory import Memory
from proxy.app.meters import ProcessMeters
from proxy.app.queues import build_turns, retry_rules
from proxy.app.replay import replay_into
from proxy.app.upstreams import build_providers, exact_upstreams, warm_up
from proxy.budgets.balances import RedisBalances
from proxy.budgets.denial_stream import DenialStream
from proxy.budgets.hot_connection import HotConnection
from proxy.budgets.recovery import Recovery
from proxy.budgets.redis_budgets import RedisBudgets
from proxy.budgets.redis_directory import RedisDirectory
from proxy.budgets.store_client import connect
from proxy.budgets.stored_responses import RedisStoredResponses
from proxy.budgets.unrecorded import Unrecorded
from proxy.gateway.denials import DenialCounts
from proxy.gateway.drains import Drains
from proxy.gateway.house import House
from proxy.gateway.journey import serve
from proxy.gateway.knowledge import Knowledge
from proxy.gateway.leases import Leases
from proxy.gateway.ports import Call, StoreAway
from proxy.gateway.responses import stored_response
from proxy.gateway.rests import Rests
from proxy.ledger.spool import FileSpool
from proxy.processes import WorkerControl, listen_shared
from proxy.providers.tokenizers import Tokenizers
from proxy.settings import Settings, Upstream
from proxy.telemetry import Counters, Logs, RequestLog, Tasks, report_loop_faults, set_up, watch_loop_lag
from proxy.web.server import DataPlane, serve_data_plane

log = structlog.get_logger(__name__)

USER_DIGEST_BYTES = 16
SPOOL_LOOK_S = 1.0
DETAILS_MOST = 20
GC_YOUNG_OBJECTS = 25_000


@dataclass(frozen=True, slots=True)
class WorkerConfiguration:
    """What the keeper tells a worker, through the control channel and nowhere else."""

    index: int
    workers: int
    host: str
    port: int
    drain_s: float
    redis_url: str
    shards: int
    pepper: bytes
    upstreams: Mapping[str, Upstream]
    upstream_keys: Mapping[str, str]
    spool_dir: Path
    log_format: str
    chaos: Chaos

    @classmethod
    def message(
        cls, settings: Settings, port: int, redis_url: str, pepper: bytes, keys: Mapping[str, str]
    ) -> dict[str, Any]:
        """The configuration as JSON values, without the index, which the supervisor adds."""
        return {
            "workers": settings.server.workers,
            "host": settings.server.host,
            "port": port,
            "drain_s": settings.server.drain_s,
            "redis_url": redis_url,
            "shards": settings.redis.shards,
            "pepper": pepper.decode(),
            "upstreams": {name: u.model_dump(mode="json") for name, u in settings.upstreams.items()},
            "upstream_keys": dict(keys),
            "spool_dir": str(settings.data.dir / "spool"),
            "log_format": settings.telemetry.log_format,
        }

    @classmethod
    def read(cls, message: Mapping[str, Any]) -> WorkerConfiguration:
        return cls(
            **{
                **message,
                "pepper": message["pepper"].encode(),
                "upstreams": {n: Upstream.model_validate(u) for n, u in message["upstreams"].items()},
                "spool_dir": Path(message["spool_dir"]),
                "chaos": Chaos.read(message["chaos"]),
            }
        )


async def work(control_fd: int) -> int:
    """A worker's life: take the configuration, serve until it is told to end, drain, say goodbye."""
    control, message = await WorkerControl.open(control_fd)
    said = WorkerConfiguration.read(message)
    logs = set_up(said.log_format, process=f"worker {said.index}")  # type: ignore[arg-type]
    logs.know_secrets(said.pepper.decode(), *said.upstream_keys.values())
    said.chaos.arm_worker()
    counters, tasks = Counters(), Tasks()
    report_loop_faults(asyncio.get_running_loop())
    requests = RequestLog(logs, counters)
    async with contextlib.AsyncExitStack() as closing:
        try:
            details = _redacted(control, logs)
            worker = await Worker.build(said, counters, requests, tasks, closing, details)
        except Exception as fault:
            log.exception("worker.cannot_serve")
            await control.failed(logs.redactor.text(f"{type(fault).__name__}: {fault}"))
            return 1
        control.hand_over = worker.memory.hand_over
        control.seqs = worker.memory.seqs
        tasks.spawn(worker.memory.run(control.behind), "what the ledger has")
        tasks.spawn(control.report_metrics(counters.snapshot), "metrics")
        tasks.spawn(watch_loop_lag(counters), "loop lag")
        tasks.spawn(requests.run(), "request log")
        _spare_the_collector()
        control.ready()
        await control.ending.wait()
        await worker.drain(said.drain_s, control.quickly)
        await tasks.cancel_all(2.0)
        await control.drained(counters.snapshot())
    await control.close()
    logs.close()
    return 0


def _spare_the_collector() -> None:
    """What was built lives as long as the worker, and requests leave next to no cycles behind.

    So the collector need not walk over all of it for every few hundred objects: a tenth of what a request costs.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_YOUNG_OBJECTS, 20, 50)


class Worker:
    """The built parts that have to be ended in order."""

    def __init__(self, plane: DataPlane, house: House, denials: DenialCounts, memory: Memory) -> None:
        self.plane = plane
        self.house = house
        self.memory = memory
        self._denials = denials

    @classmethod
    async def build(
        cls,
        said: WorkerConfiguration,
        counters: Counters,
        requests: RequestLog,
        tasks: Tasks,
        closing: contextlib.AsyncExitStack,
        details: Callable[[], dict[str, Any]],
    ) -> Worker:
        clock = SystemClock()
        meters = ProcessMeters(counters, requests, clock)
        hot = HotConnection(said.redis_url)
        await hot.start()
        closing.push_async_callback(hot.close)
        cold = connect(said.redis_url)
        closing.push_async_callback(cold.aclose)
        unrecorded = Unrecorded()
        budgets = RedisBudgets(hot, said.shards, said.chaos.lease_s, unrecorded)
        denials = DenialCounts(DenialStream(cold, said.shards), id_maker("den"), meters)
        providers = build_providers(said.upstreams, said.upstream_keys)
        for provider in providers.values():
            closing.push_async_callback(provider.close)
        await warm_up(said.upstreams, said.upstream_keys)
        tokenizers = Tokenizers(exact_upstreams(said.upstreams))
        closing.callback(tokenizers.close)
        spool = FileSpool(said.spool_dir, f"worker-{said.index}")
        house = House(
            budgets=budgets,
            knowledge=Knowledge(RedisDirectory(cold, said.shards)),
            providers=providers,
            tokenizers=tokenizers,
            spool=spool,
            denials=denials,
            meters=meters,
            clock=clock,
            spawn=tasks.spawn,
            pepper=said.pepper,
            new_request_id=id_maker("req"),
            digest_user=_user_digest(said.pepper),
            drains=Drains(),
            leases=Leases(budgets, meters, said.chaos.renew_s),
            stored_responses=RedisStoredResponses(hot, said.shards),
            rests=Rests(clock, meters),
            turns=build_turns(said.upstreams, said.workers, said.index, clock, meters),
            retries=retry_rules(said.upstreams),
            chance=random.Random().random,
        )

        async def stored(call: Call, method: Literal["GET", "DELETE"], id: str) -> None:
            await stored_response(call, method, id, house)

        plane = await serve_data_plane(
            journey=partial(serve, house=house),
            stored=stored,
            catalogue=WorkerCatalogue(house, RedisBalances(hot, said.shards)),
            not_ready=lambda: None if hot.connected else "Redis is away.",
            details=details,
            new_request_id=house.new_request_id,
            clock=clock,
            fault=_report_fault,
            sock=listen_shared(said.host, said.port),
        )
        tasks.spawn(house.leases.run(), "leases")
        tasks.spawn(denials.run(), "denials")
        tasks.spawn(_replay(spool, budgets), "spool")
        spilled = FileSpool(said.spool_dir, f"worker-{said.index}-acknowledged")
        memory = Memory(unrecorded, Recovery(hot, said.shards), budgets, spool, spilled, house.leases)
        return cls(plane, house, denials, memory)

    async def drain(self, drain_s: float, quickly: asyncio.Event) -> None:
        """Stops accepting at once; what is under way gets `drain_s`, or until `quickly`."""
        draining = asyncio.ensure_future(self.plane.drain(drain_s))
        hurry = asyncio.ensure_future(quickly.wait())
        await asyncio.wait({draining, hurry}, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not draining.done():
            draining.cancel()
        elif cut := draining.result():
            log.warning("worker.cut_calls", calls=cut)
        await self._denials.flush()


async def _replay(spool: FileSpool, budgets: RedisBudgets) -> None:
    """What was spooled while Redis was away is settled as soon as it is back; by reference, so never twice."""
    while True:
        await asyncio.sleep(SPOOL_LOOK_S)
        try:
            if count := await spool.drain(replay_into(budgets)):
                log.info("spool.replayed", settlements=count)
            # What Redis does not know is left for the keeper, who has the ledger.
            await spool.hand_over()
        except StoreAway:
            continue


def _redacted(control: WorkerControl, logs: Logs) -> Callable[[], dict[str, Any]]:
    """What the keeper says, for whoever asks without a token: an admin may have put a key into a plan file."""

    def details() -> dict[str, Any]:
        return {
            name: [logs.redactor.text(sentence) for sentence in sentences[:DETAILS_MOST]]
            for name, sentences in control.details.items()
        }

    return details


def _user_digest(pepper: bytes) -> Any:
    def digest(user: str) -> str:
        keyed = hmac.new(pepper, b"user:" + user.encode(), hashlib.sha256).digest()[:USER_DIGEST_BYTES]
        return f"user_{keyed.hex()}"

    return digest


def _report_fault(request_id: str, fault: BaseException) -> None:
    log.error("request.fault", request_id=request_id, exc_info=fault)
