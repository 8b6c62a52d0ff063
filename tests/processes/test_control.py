"""The worker's ear: whatever becomes of it, no worker serves on without a keeper."""

from __future__ import annotations

import asyncio
import socket

import pytest

from proxy.processes.channel import Channel
from proxy.processes.control import WorkerControl


async def test_a_worker_that_cannot_listen_to_its_keeper_any_more_ends() -> None:
    """Whatever broke: serving on without a keeper, it would share the port with the next start for ever."""
    ours, theirs = socket.socketpair()
    keeper = await Channel.over(ours)
    control = WorkerControl(await Channel.over(theirs))
    listening = asyncio.ensure_future(control._obey_keeper())

    def broken() -> dict[int, int]:
        raise RuntimeError("a fault of ours")

    control.seqs = broken
    keeper.send("seqs")
    await asyncio.wait_for(control.ending.wait(), 5)
    with pytest.raises(RuntimeError):
        await listening
    keeper.close()
    await control.close()
