"""A keeper over tiny workers. Its settings come on stdin as JSON, what happens goes to stdout as JSON lines."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from proxy.processes import CannotListen, DataInUse, KeeperLock, PortClaim, StopSignals, Supervisor, WorkerFailed
from proxy.telemetry import Counters, Merged, Tasks, set_up

WORKER = str(Path(__file__).with_name("tiny_worker.py"))


def say(**told: object) -> None:
    print(json.dumps(told), flush=True)


async def main() -> int:
    settings = json.loads(sys.stdin.readline())
    logs = set_up("json", process="keeper", secrets=[settings["secret"]])
    signals = StopSignals(lambda sentence: say(said=sentence), settings["drain_s"])
    signals.install(asyncio.get_running_loop())
    try:
        lock = KeeperLock.take(Path(settings["data_dir"]))
        claim = await PortClaim.take("127.0.0.1", settings["port"], patience_s=settings["patience_s"])
    except (DataInUse, CannotListen) as fault:
        say(refused=str(fault))
        return 1
    merged, counters = Merged(), Counters()
    supervisor = Supervisor(
        settings["count"],
        lambda index: {
            "behaviour": settings["behaviour"],
            "secret": settings["secret"],
            "host": "127.0.0.1",
            "port": claim.port,
        },
        tasks=Tasks(),
        counters=counters,
        merged=merged,
        drain_s=settings["drain_s"],
        argv=lambda index, fd: [sys.executable, "-P", WORKER, str(fd)],
        ready_within_s=settings["ready_within_s"],
    )
    try:
        await supervisor.start()
    except WorkerFailed as fault:
        say(refused=str(fault))
        return 1
    say(port=claim.port, pids=supervisor.pids)
    await signals.asked.wait()
    claim.release()
    clean = await supervisor.stop(signals.quickly)
    say(
        clean=clean,
        left=supervisor.pids,
        restarts=counters.snapshot()["counters"].get("worker_restarts", [[[], 0]])[0][1],
        faults=merged.total().counters.get("store_faults", {}).get(("reserve",), 0),
    )
    lock.release()
    logs.close()
    return signals.exit_code


sys.exit(asyncio.run(main()))
