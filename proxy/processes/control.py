"""The worker's side of the control channel."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from setproctitle import setproctitle

from proxy.processes.channel import Channel, ChannelBroken, KeeperGone
from proxy.telemetry import logger

EndReason = Literal["keeper asked", "keeper gone", "SIGTERM"]
_CONFIGURATION_TIMEOUT_S = 10.0
_FLUSH_TIMEOUT_S = 1.0
# Reservations in one line of the channel: some kilobytes each.
_LIVE_A_LINE = 200


class WorkerControl:
    """Tells a worker what it is to be and when it has to end.

    `ending` is set by the keeper's drain, by its death, or by SIGTERM to this worker alone (`why` says which):
    close the listener *at once*, for the next keeper's workers must not share the port with this one; then
    drain, then call `drained`. `quickly` is set by the keeper's `end`, or by a SIGTERM that comes later: end now.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._listen: asyncio.Task[None] | None = None
        self.ending = asyncio.Event()
        self.quickly = asyncio.Event()
        self.why: EndReason | None = None
        self.details: dict[str, Any] = {}
        """What the keeper wants `/readyz` to say beside being ready; JSON values."""
        self.seqs: Callable[[], dict[int, int]] = dict
        """The highest `seq` that this worker has seen of each shard."""
        self.hand_over: Callable[[], Awaitable[list[dict[str, Any]]]] | None = None
        """Called when Redis has lost its data: puts what it had acknowledged where the keeper finds it, and gives
        the reservations under way, as JSON values."""

    @classmethod
    async def open(cls, control_fd: int, title: str = "faregate worker") -> tuple[WorkerControl, dict[str, Any]]:
        """Takes the inherited end, obeys the keeper from now on, and returns with the whole configuration.

        Raises `KeeperGone`, and `TimeoutError` if the keeper says nothing within 10 s. The process is named
        after `title` and the configuration's `index`.
        """
        os.set_inheritable(control_fd, False)
        end = socket.socket(fileno=control_fd)
        control = cls(await Channel.over(end))
        control._obey_signals(asyncio.get_running_loop())
        async with asyncio.timeout(_CONFIGURATION_TIMEOUT_S):
            message = await control._channel.receive()
        if message is None:
            raise KeeperGone("The keeper ended before it said what this worker is to be.")
        if message.pop("type") != "configuration":
            raise ChannelBroken("The keeper's first message was not the configuration.")
        setproctitle(f"{title} {message['index']}" if "index" in message else title)
        control._listen = asyncio.get_running_loop().create_task(control._obey_keeper(), name="control channel")
        return control, message

    def ready(self) -> None:
        """The worker serves."""
        self._channel.send("ready")

    async def failed(self, message: str) -> None:
        """The worker cannot serve; `message` is a sentence for the person who started the keeper."""
        self._channel.send("failed", {"message": message})
        await self._channel.flush(_FLUSH_TIMEOUT_S)

    def metrics(self, snapshot: dict[str, Any]) -> None:
        """Hands a snapshot over, or skips it while the keeper does not read: the next one has it all."""
        self._channel.send_if_read("metrics", {"snapshot": snapshot})

    async def report_metrics(self, snapshot: Callable[[], dict[str, Any]], every_s: float = 2.0) -> None:
        """Hands over snapshots until it is cancelled."""
        while True:
            await asyncio.sleep(every_s)
            self.metrics(snapshot())

    def behind(self, shards: list[tuple[int, int]]) -> None:
        """These shards (number, `seq`) know less than they once told this worker."""
        self._channel.send("behind", {"shards": shards})

    async def drained(self, snapshot: dict[str, Any]) -> None:
        """The last words: the final figures, and that nothing is in flight any more."""
        self._channel.send("metrics", {"snapshot": snapshot})
        self._channel.send("drained")
        await self._channel.flush(_FLUSH_TIMEOUT_S)

    async def close(self) -> None:
        if self._listen is not None:
            self._listen.cancel()
            await asyncio.wait({self._listen})
        self._channel.close()

    def _obey_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        # Ctrl-C and a closed terminal are the keeper's to judge; it will say so in its own time.
        for signum in (signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, signal.SIG_IGN)
        loop.add_signal_handler(signal.SIGTERM, self._terminate)

    def _terminate(self) -> None:
        if self.ending.is_set():
            self.quickly.set()
        self._end("SIGTERM")

    async def _obey_keeper(self) -> None:
        """A worker that has stopped listening to its keeper, for whatever reason, must not serve on."""
        try:
            await self._obey()
        finally:
            self._end("keeper gone")

    async def _obey(self) -> None:
        while True:
            try:
                message = await self._channel.receive()
            except ChannelBroken:
                message = None
            if message is None:
                return
            if message["type"] == "seqs":
                self._channel.send("seqs", {"seqs": list(self.seqs().items())})
            if message["type"] == "hand_over":
                await self._hand_over()
            if message["type"] == "details":
                self.details = message["details"]
            if message["type"] == "end":
                self.quickly.set()
            if message["type"] in ("drain", "end"):
                self._end("keeper asked")

    async def _hand_over(self) -> None:
        try:
            live = await self.hand_over() if self.hand_over is not None else []
        except OSError:
            # The disk is full or gone: the keeper goes on without this worker, and what it has stays with it.
            logger("processes").exception("hand_over.failed")
            return
        for first in range(0, len(live), _LIVE_A_LINE):
            self._channel.send("live", {"reservations": live[first : first + _LIVE_A_LINE]})
        self._channel.send("handed_over")

    def _end(self, why: EndReason) -> None:
        self.why = self.why or why
        self.ending.set()
