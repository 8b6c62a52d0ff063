"""A worker that does next to nothing: answers who it is, and holds a connection for as long as it is asked."""

from __future__ import annotations

import asyncio
import json
import os
import sys

from proxy.processes import WorkerControl, listen_shared


async def main(control_fd: int) -> None:
    control, told = await WorkerControl.open(control_fd, title="tiny worker")
    behaviour = told["behaviour"]
    if behaviour == "fails":
        await control.failed("The store is away.")
        sys.exit(1)
    if behaviour == "crashes":
        os._exit(3)
    if behaviour == "mute":
        await asyncio.sleep(60)
    holding: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        holding.add(task)
        while line := await reader.readline():
            if line == b"block\n":
                # As a worker that does not listen to anybody any more.
                control._end = lambda why: None  # type: ignore[method-assign]
                control.quickly = asyncio.Event()
            about = {
                "pid": os.getpid(),
                "index": told["index"],
                "secret_len": len(told["secret"]),
                "born_with_secret": told["secret"] in f"{sorted(os.environ.items())} {sys.orig_argv}",
            }
            writer.write(json.dumps(about).encode() + b"\n")
            await writer.drain()
        writer.close()
        holding.discard(task)

    server = await asyncio.start_server(answer, sock=listen_shared(told["host"], told["port"]))
    control.metrics({"counters": {"store_faults": [[["reserve"], 1]]}, "gauges": {}, "histograms": {}})
    control.ready()
    await control.ending.wait()
    server.close()
    hurry = asyncio.ensure_future(control.quickly.wait())
    while holding and not hurry.done():
        await asyncio.wait({*holding, hurry}, return_when=asyncio.FIRST_COMPLETED)
    await control.drained({"counters": {"store_faults": [[["reserve"], 2]]}, "gauges": {}, "histograms": {}})
    os._exit(0)


asyncio.run(main(int(sys.argv[1])))
