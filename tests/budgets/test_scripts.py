"""The scripts as files: their headers, and that Redis may forget them at any time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

import pytest
from books import KEYS, Books, counter, reservation, settlement

from proxy.budgets import scripts
from proxy.budgets.hot_connection import HotConnection
from proxy.budgets.scripts import Script, StoreRefused
from proxy.domain.reservations import Held

EVERY = [
    scripts.RESERVE,
    scripts.SETTLE,
    scripts.RELEASE,
    scripts.EXTEND,
    scripts.EXPIRE,
    scripts.INSPECT,
    scripts.CLOSE,
    scripts.CORRECT,
    scripts.RECOUNT,
]


def parts(script: Script) -> tuple[str, str]:
    """The header and what comes after it."""
    header, body = script.source.decode().split("\n]]\n", 1)
    return header, body


@pytest.mark.parametrize("script", EVERY, ids=lambda script: script.name)
def test_the_header_names_the_keys_and_arguments_that_the_script_takes(script: Script) -> None:
    """A header that has drifted is worse than none: whoever calls the script goes by it."""
    header, body = parts(script)
    for what in ("KEYS", "ARGV"):
        said = re.findall(rf"^  {what}\[(\d+)(\.\.)?\] +(\w+) ", header, re.M)
        named = {name: number for number, tail, name in said if not tail}
        taken = dict(re.findall(rf"^local (\w+) = {what}\[(\d+)\]", body, re.M))
        assert named == taken, what
        assert [int(number) for number, _, _ in said] == list(range(1, len(said) + 1)), what
        tails = {int(number) for number, tail, _ in said if tail}
        indexed = {int(number) for number in re.findall(rf"for i = (\d+), #{what}", body)}
        indexed |= {int(number) + 1 for number in re.findall(rf"{what}\[(\d+) \+ i\]", body)}
        indexed |= {int(number) + 2 for number in re.findall(rf"{what}\[(\d+) \+ 2 \* i\]", body)}
        assert not tails or min(indexed) == min(tails), what
        assert tails or not indexed, what


@pytest.mark.parametrize("script", EVERY, ids=lambda script: script.name)
def test_every_name_in_the_header_is_used(script: Script) -> None:
    """A key that is declared and never touched locks and misleads for nothing."""
    _, body = parts(script)
    for name in re.findall(r"^local (\w+) = (?:KEYS|ARGV)\[\d+\]", body, re.M):
        assert len(re.findall(rf"\b{name}\b", body)) > 1, name


@pytest.mark.parametrize("script", EVERY, ids=lambda script: script.name)
def test_a_script_declares_how_it_stands_to_memory_and_what_it_does(script: Script) -> None:
    """Under memory pressure nothing new may begin, and everything begun must end."""
    flags = {"reserve": "#!lua", "inspect": "#!lua flags=no-writes"}.get(script.name, "#!lua flags=allow-oom")
    header, body = parts(script)
    lines = header.splitlines()
    assert lines[0] == flags
    assert lines[2].startswith(f"  {script.name.capitalize()}: ")
    assert "\n  Guarantee: " in header
    assert "\n  Returns   " in header
    assert "faregate:" not in body, "keys are spelled in keys.py alone"


async def test_a_forgotten_script_is_loaded_again_for_that_call_alone(books: Books) -> None:
    """After a restart or a failover the first calls find no script; nobody should notice."""
    await books.budgets.reserve(reservation("req_0:1"))
    await books.redis.script_flush()
    replies = await asyncio.gather(
        books.budgets.reserve(reservation("req_1:1")),
        books.budgets.settle(settlement("req_0:1")),
        books.connection.send(("PING",)),
        books.budgets.reserve(reservation("req_2:1")),
    )
    assert isinstance(replies[0], Held)
    assert replies[1].outcome == "settled"
    assert replies[2] == b"PONG"
    assert await books.balance(counter()) == (7, 20)


async def test_scripts_flushed_over_and_over_cost_no_client_an_error(books: Books) -> None:
    """SCRIPT FLUSH under load is what a failover with restarts looks like from here."""
    finished = False

    async def flush() -> None:
        while not finished:
            await books.redis.script_flush()
            await asyncio.sleep(0.001)

    flushing = asyncio.create_task(flush())
    for round in range(100):
        refs = [f"req_{round}_{n}:1" for n in range(5)]
        await asyncio.gather(*(books.budgets.reserve(reservation(ref, (counter(), 0))) for ref in refs))
        await asyncio.gather(*(books.budgets.settle(settlement(ref, (counter(), 0))) for ref in refs))
    finished = True
    await flushing
    assert await books.redis.xlen(KEYS.events) == 500


async def test_a_fault_comes_out_as_itself_at_once(
    connection: HotConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no forgotten script: reloading would only do the damage again."""
    arguments = (["a", "a", "a"], ["e", "nan", 1])
    with pytest.raises(StoreRefused, match="BADARG"):
        await scripts.EXTEND.run(connection, *arguments)
    sent: list[object] = []
    send: Callable[..., Awaitable[object]] = connection.send
    monkeypatch.setattr(connection, "send", lambda command: sent.append(command) or send(command))
    with pytest.raises(StoreRefused, match="BADARG"):
        await scripts.EXTEND.run(connection, *arguments)
    assert len(sent) == 1
