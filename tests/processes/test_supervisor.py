"""The lives of workers, with real processes: what ends, what is started again, what never serves beside it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest


async def test_all_workers_serve_the_one_port_before_start_returns(start_keeper: Any, until: Any) -> None:
    """A first request right after the ready line must be answered, and no worker may be left idle."""
    keeper = await (await start_keeper(count=2)).serving()
    seen: set[int] = set()

    async def both_answered() -> bool:
        seen.add((await keeper.who())["index"])
        return seen == {1, 2}

    await until(both_answered, "both workers answer")
    assert len(keeper.pids) == 2


async def test_a_killed_worker_is_replaced(start_keeper: Any, until: Any, is_alive: Any) -> None:
    """kill -9, or the machine out of memory: the gate comes back by itself."""
    keeper = await (await start_keeper()).serving()
    os.kill(keeper.pids[0], signal.SIGKILL)

    async def another_answers() -> bool:
        try:
            keeper.pids.append((await keeper.who())["pid"])
        except (OSError, ValueError):
            return False
        return keeper.pids[-1] != keeper.pids[0]

    await until(another_answers, "another worker answers")
    keeper.signal(signal.SIGTERM)
    last = await keeper.hear("clean")
    assert last == {"clean": True, "left": [], "restarts": 1, "faults": 3}, "1 of the killed, 2 of the drained"
    assert "SIGKILL" in await keeper.read_log()


async def test_sigterm_to_a_worker_alone_drains_and_replaces_it(start_keeper: Any, until: Any) -> None:
    """An operator may renew one worker; what it carries is finished, and new requests go elsewhere."""
    keeper = await (await start_keeper()).serving()
    carried = await keeper.connect()
    first = (await carried.ask())["pid"]
    os.kill(first, signal.SIGTERM)

    async def listener_is_closed() -> bool:
        try:
            (await keeper.connect()).close()
        except OSError:
            return True
        return False

    await until(listener_is_closed, "the draining worker refuses new connections")
    assert (await carried.ask())["pid"] == first
    carried.close()

    async def another_answers() -> bool:
        try:
            keeper.pids.append((await keeper.who())["pid"])
        except (OSError, ValueError):
            return False
        return keeper.pids[-1] != first

    await until(another_answers, "another worker answers")


async def test_a_stop_waits_for_what_is_in_flight(start_keeper: Any) -> None:
    """SIGTERM from an orchestrator must not cut an answer that is being paid for."""
    keeper = await (await start_keeper()).serving()
    carried = await keeper.connect()
    await carried.ask()
    keeper.signal(signal.SIGTERM)
    await keeper.hear("said")
    await carried.ask()
    carried.close()
    assert (await keeper.hear("clean"))["clean"] is True
    assert await keeper.ended() == 0


async def test_a_stop_ends_a_worker_that_does_not_drain_in_time(start_keeper: Any, is_alive: Any) -> None:
    """One hanging upstream must not hold up a restart for ever; and deaf workers are killed."""
    keeper = await (await start_keeper(drain_s=0.2)).serving()
    carried = await keeper.connect()
    await carried.ask("block")
    keeper.signal(signal.SIGTERM)
    assert await keeper.hear("clean") == {"clean": False, "left": [], "restarts": 0, "faults": 1}
    assert await keeper.ended() == 0
    assert not is_alive(keeper.pids[0])
    carried.close()


async def test_a_second_ctrl_c_stops_at_once(start_keeper: Any, is_alive: Any) -> None:
    """The person at the terminal has the last word, and the exit code says that order was cut short."""
    keeper = await (await start_keeper(drain_s=60)).serving()
    carried = await keeper.connect()
    await carried.ask()
    keeper.signal(signal.SIGINT)
    assert "Once more to stop at once" in (await keeper.hear("said"))["said"]
    keeper.signal(signal.SIGINT)
    assert "at once" in (await keeper.hear("said"))["said"]
    assert await keeper.ended() == 130
    assert not is_alive(keeper.pids[0])
    carried.close()


async def test_workers_leave_ctrl_c_to_their_keeper(start_keeper: Any) -> None:
    """Ctrl-C reaches the whole group of a terminal; a worker that obeyed it would cut every answer."""
    keeper = await (await start_keeper()).serving()
    carried = await keeper.connect()
    before = await carried.ask()
    for signum in (signal.SIGINT, signal.SIGHUP):
        os.kill(keeper.pids[0], signum)
    assert await carried.ask() == before
    assert os.getpgid(keeper.pids[0]) != os.getpgid(keeper.process.pid)
    carried.close()


async def test_workers_end_with_a_killed_keeper_and_do_not_hinder_the_next(
    start_keeper: Any, until: Any, is_alive: Any
) -> None:
    """kill -9 of the keeper: old workers finish what they carry, but take nothing new beside the next start."""
    first = await (await start_keeper(count=2)).serving()
    carried = await first.connect()
    old = (await carried.ask())["pid"]
    first.signal(signal.SIGKILL)
    await first.ended()
    second = await (await start_keeper(port=first.port, count=2)).serving()
    for _ in range(20):
        assert (await second.who())["pid"] in second.pids
    assert (await carried.ask())["pid"] == old
    carried.close()
    await until(lambda: not any(is_alive(pid) for pid in first.pids), "the old workers have ended")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_no_secret_is_in_arguments_or_environment(start_keeper: Any, secret: str) -> None:
    """Any user of the machine may read arguments, and a crash report the environment."""
    keeper = await (await start_keeper()).serving()
    about = await keeper.who()
    assert about["secret_len"] == len(secret), "the worker has it all the same"
    # Asked of the worker too, because a process title may have overwritten what the system shows.
    assert about["born_with_secret"] is False
    for what in ("cmdline", "environ"):
        seen = Path(f"/proc/{keeper.pids[0]}/{what}").read_bytes()
        assert secret.encode() not in seen
        assert b"FAREGATE_" not in seen
    assert b"tiny worker 1" in Path(f"/proc/{keeper.pids[0]}/cmdline").read_bytes()


@pytest.mark.parametrize(
    ("behaviour", "because"),
    [
        ("fails", "The store is away."),
        ("crashes", "exit code 3"),
        ("mute", "not ready within 0.5 s"),
    ],
)
async def test_a_worker_that_cannot_start_is_said_and_nothing_is_left(
    start_keeper: Any, behaviour: str, because: str
) -> None:
    """At start a fault is the person's to mend: no endless restarts behind a gate that seems to start."""
    keeper = await start_keeper(behaviour=behaviour, count=2, ready_within_s=0.5 if behaviour == "mute" else 10)
    refused = (await keeper.hear("refused"))["refused"]
    assert "could not be started" in refused
    assert because in refused
    assert await keeper.ended() == 1


async def test_a_second_keeper_is_told_who_holds_the_data(start_keeper: Any) -> None:
    """Two stores on one file would be two truths about what may be spent."""
    first = await (await start_keeper()).serving()
    second = await start_keeper()
    refused = (await second.hear("refused"))["refused"]
    assert f"(process {first.process.pid})" in refused
    assert "data.dir" in refused


async def test_a_second_keeper_with_data_of_its_own_may_not_share_the_port(
    start_keeper: Any, tmp_path: Path
) -> None:
    """SO_REUSEPORT would let it, and a request would reach one or the other gate by chance."""
    first = await (await start_keeper()).serving()
    second = await start_keeper(data_dir=str(tmp_path / "other"), port=first.port, patience_s=0)
    assert "server.port" in (await second.hear("refused"))["refused"]
