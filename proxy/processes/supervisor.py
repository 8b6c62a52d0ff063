"""The keeper's side: N workers started, watched, started again when they end, and ended in order."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from typing import Any

from proxy.processes.channel import Channel, ChannelBroken
from proxy.processes.launch import WorkerArgv, WorkerProcess, worker_argv, worker_environment
from proxy.telemetry import Counters, Merged, Tasks, logger

# A worker that keeps failing is tried again ever more slowly, and at once if it had served for a while.
_BACKOFF_S_MIN = 0.1
_BACKOFF_S_MAX = 10.0
_SERVED_LONG_S = 30.0
_TERM_S = 2.0
_LAST_WORDS_S = 1.0


class WorkerFailed(Exception):
    """A worker could not be brought to serve at start."""


class _Worker:
    """One place in the row of workers, and the process that fills it now."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.process: WorkerProcess | None = None
        self.channel: Channel | None = None
        self.ready = asyncio.Event()
        self.hearing: asyncio.Task[None] | None = None
        self.said: str | None = None
        self.live: list[dict[str, Any]] = []
        self.handed_over = asyncio.Event()
        self.seqs: list[tuple[int, int]] = []
        self.told_seqs = asyncio.Event()


class Supervisor:
    """Starts `count` workers and keeps as many alive until `stop`.

    `configuration(index)` gives a worker's whole configuration (JSON values; `index` is added), asked anew at
    every start. `merged` gets the workers' metrics; `counters` are the keeper's own.
    """

    def __init__(
        self,
        count: int,
        configuration: Callable[[int], Mapping[str, Any]],
        *,
        tasks: Tasks,
        counters: Counters,
        merged: Merged,
        drain_s: float,
        argv: WorkerArgv = worker_argv,
        ready_within_s: float = 60.0,
    ) -> None:
        self._workers = [_Worker(index) for index in range(1, count + 1)]
        self._configuration = configuration
        self._tasks = tasks
        self._counters = counters
        self._merged = merged
        self._drain_s = drain_s
        self._argv = argv
        self._ready_within_s = ready_within_s
        self._environment = worker_environment(os.environ)
        self._keeping: list[asyncio.Task[None]] = []
        self.on_behind: Callable[[list[tuple[int, int]]], None] | None = None
        """Told the shards that were put back to an older state, each with the `seq` that a worker has seen."""
        self._told: dict[str, Any] = {}
        self._log = logger("processes")

    @property
    def pids(self) -> list[int]:
        """Of the workers that live, in the order of their index."""
        return [w.process.pid for w in self._workers if w.process is not None and w.process.alive]

    async def start(self) -> None:
        """Returns when every worker serves; raises `WorkerFailed` after ending those that were started.

        Whoever cancels it (Ctrl-C while starting) calls `stop` next.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for worker in self._workers:
                    group.create_task(self._bring_up(worker))
        except* WorkerFailed as failures:
            await self.stop(at_once=True)
            raise failures.exceptions[0] from None
        except* OSError as failures:
            await self.stop(at_once=True)
            raise WorkerFailed(f"No worker process can be started: {failures.exceptions[0]}.") from None
        for worker in self._workers:
            name = f"worker {worker.index}"
            self._keeping.append(self._tasks.spawn(self._keep(worker), name))

    async def stop(self, quickly: asyncio.Event | None = None, *, at_once: bool = False) -> bool:
        """Drains all workers, then ends by force those left after `drain_s`, or once `quickly` is set.

        Returns whether every worker ended by itself. Afterwards no process of this supervisor lives.
        """
        for task in self._keeping:
            task.cancel()
        if self._keeping:
            await asyncio.wait(self._keeping, timeout=_TERM_S)
        self._keeping.clear()
        results = await asyncio.gather(*(self._end(w, quickly, at_once) for w in self._workers))
        self._count_ready()
        return all(results)

    def tell(self, details: dict[str, Any]) -> None:
        """Tells all workers, also those that come later, what `/readyz` says beside being ready (JSON values)."""
        self._told = details
        for worker in self._serving():
            if worker.channel is not None:
                worker.channel.send("details", {"details": details})

    async def hand_over(self, within_s: float) -> list[dict[str, Any]]:
        """Asks every worker that serves to hand over what Redis may have lost; returns the reservations under way.

        A worker that does not answer in time is left out: what it has reaches the record later.
        """
        asked = self._serving()
        for worker in asked:
            worker.live, worker.handed_over = [], asyncio.Event()
        await self._ask(asked, "hand_over", [worker.handed_over for worker in asked], within_s)
        return [reservation for worker in asked for reservation in worker.live]

    async def seqs(self, within_s: float) -> dict[int, int]:
        """The highest `seq` of each shard that any worker has seen, of those that answer in time."""
        asked = self._serving()
        for worker in asked:
            worker.seqs, worker.told_seqs = [], asyncio.Event()
        await self._ask(asked, "seqs", [worker.told_seqs for worker in asked], within_s)
        highest: dict[int, int] = {}
        for shard, seq in (pair for worker in asked for pair in worker.seqs):
            highest[shard] = max(seq, highest.get(shard, 0))
        return highest

    def _serving(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.channel is not None and worker.ready.is_set()]

    async def _ask(
        self, workers: list[_Worker], what: str, answered: list[asyncio.Event], within_s: float
    ) -> None:
        for worker in workers:
            if worker.channel is not None:
                worker.channel.send(what)
        waits = [self._tasks.spawn(event.wait(), what) for event in answered]
        if waits:
            _, late = await asyncio.wait(waits, timeout=within_s)
            for wait in late:
                wait.cancel()

    async def _bring_up(self, worker: _Worker) -> None:
        """Starts the process and waits until it serves; raises `WorkerFailed` with what it said."""
        worker.ready.clear()
        worker.said = None
        process = worker.process = WorkerProcess.launch(self._argv, worker.index, self._environment)
        channel = worker.channel = await Channel.over(process.end)
        channel.send("configuration", {"index": worker.index, **self._configuration(worker.index)})
        hearing = self._tasks.spawn(self._hear(worker, channel), f"control of worker {worker.index}")
        worker.hearing = hearing
        serving = self._tasks.spawn(worker.ready.wait(), f"ready of worker {worker.index}")
        try:
            await asyncio.wait(
                {hearing, serving}, timeout=self._ready_within_s, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            serving.cancel()
        if worker.ready.is_set():
            self._count_ready()
            channel.send("details", {"details": self._told})
            self._log.info("worker.ready", index=worker.index, pid=process.pid)
            return
        in_time = hearing.done()
        if in_time:
            await process.ended(_TERM_S)
        how = process.how_it_ended() if in_time else f"not ready within {self._ready_within_s:g} s"
        await self._end_by_force(worker, process)
        await self._let_go(worker)
        because = worker.said or f"{how}; what it logged stands above"
        raise WorkerFailed(f"Worker {worker.index} could not be started: {because}")

    async def _hear(self, worker: _Worker, channel: Channel) -> None:
        """Takes a worker's messages until it closes its end, which a process does by ending."""
        while True:
            try:
                message = await channel.receive()
            except ChannelBroken as fault:
                self._log.error("worker.unintelligible", index=worker.index, fault=str(fault))
                return
            if message is None:
                return
            if message["type"] == "ready":
                worker.ready.set()
            elif message["type"] == "metrics":
                self._merged.take(f"worker {worker.index}", message["snapshot"])
            elif message["type"] == "live":
                worker.live.extend(message["reservations"])
            elif message["type"] == "seqs":
                worker.seqs = message["seqs"]
                worker.told_seqs.set()
            elif message["type"] == "handed_over":
                worker.handed_over.set()
            elif message["type"] == "behind" and self.on_behind is not None:
                self.on_behind(message["shards"])
            elif message["type"] == "failed":
                worker.said = str(message["message"])

    async def _keep(self, worker: _Worker) -> None:
        """Watches a worker that serves, and puts another in its place when it ends."""
        loop = asyncio.get_running_loop()
        backoff_s = _BACKOFF_S_MIN
        since_s = loop.time()
        while True:
            await self._until_ended(worker)
            if loop.time() - since_s >= _SERVED_LONG_S:
                backoff_s = _BACKOFF_S_MIN
            try:
                await asyncio.sleep(backoff_s)
                backoff_s = min(backoff_s * 2, _BACKOFF_S_MAX)
                self._counters.add("worker_restarts")
                since_s = loop.time()
                await self._bring_up(worker)
            except (WorkerFailed, OSError) as fault:
                self._log.error("worker.not_started", index=worker.index, why=str(fault), again_in_s=backoff_s)

    async def _until_ended(self, worker: _Worker) -> None:
        """Waits until the worker has ended: its end of the channel closes, then the process is gone."""
        process, hearing = worker.process, worker.hearing
        if process is None or hearing is None:
            return
        await asyncio.wait({hearing})
        if not await process.ended(self._drain_s):
            self._log.error("worker.out_of_reach", index=worker.index, pid=process.pid)
            await self._end_by_force(worker, process)
        self._log.warning("worker.ended", index=worker.index, pid=process.pid, how=process.how_it_ended())
        await self._let_go(worker)

    async def _end(self, worker: _Worker, quickly: asyncio.Event | None, at_once: bool) -> bool:
        process = worker.process
        if process is None:
            return True
        if worker.channel is not None:
            worker.channel.send("drain")
        by_itself = await self._drained(process, 0 if at_once else self._drain_s, quickly)
        if not by_itself:
            self._log.warning("worker.ended_by_force", index=worker.index, pid=process.pid)
            await self._end_by_force(worker, process)
        await self._let_go(worker)
        return by_itself

    async def _end_by_force(self, worker: _Worker, process: WorkerProcess) -> None:
        if worker.channel is not None:
            worker.channel.send("end")
        if not await process.end_by_force(_TERM_S):
            self._log.error("worker.outlived_kill", index=worker.index, pid=process.pid)

    async def _drained(self, process: WorkerProcess, wait_s: float, quickly: asyncio.Event | None) -> bool:
        ending = self._tasks.spawn(process.ended(wait_s), "drain of a worker")
        hurry = self._tasks.spawn((quickly or asyncio.Event()).wait(), "hurry")
        try:
            # `process.ended` keeps the deadline.
            await asyncio.wait({ending, hurry}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ending.cancel()
            hurry.cancel()
        return not process.alive

    async def _let_go(self, worker: _Worker) -> None:
        """Takes the last words of a process that has ended, and empties its place."""
        if worker.hearing is not None:
            await asyncio.wait({worker.hearing}, timeout=_LAST_WORDS_S)
        if worker.channel is not None:
            worker.channel.close()
        worker.process = worker.channel = worker.hearing = None
        worker.ready.clear()
        self._merged.retire(f"worker {worker.index}")
        self._count_ready()

    def _count_ready(self) -> None:
        self._counters.set("workers_ready", sum(worker.ready.is_set() for worker in self._workers))
