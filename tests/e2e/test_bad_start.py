"""Starts that must not be: the gate says in a sentence what is wrong and how to mend it, and leaves nothing.

Half a start is worse than none: a gate that serves over counters it cannot trust gives budgets away, and a process
that nobody knows of holds the lock on the data.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from served import KEYS, Gate, prepare

from proxy.budgets import keys
from proxy.budgets.redis_budgets import FORMAT
from proxy.ledger.migrate import migrate

DEADLINE_S = 30.0


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return prepare(tmp_path / "gate", "http://127.0.0.1:9/v1")


async def refused(gate: Gate, more: str = "") -> str:
    """Serves; returns the one sentence on stderr, after exit code 1, with no process and no socket left."""
    gate.config.write_text(gate.config.read_text() + more)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "proxy", "serve", "--config", str(gate.config),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=gate.folder, start_new_session=True,
        env={**os.environ, **KEYS},
    )  # fmt: skip
    async with asyncio.timeout(DEADLINE_S):
        logged, said = await process.communicate()
    assert process.returncode == 1, said
    assert left_of(gate.folder) == []
    assert b"Traceback" not in said + logged
    lines = said.decode().splitlines()
    assert len(lines) == 1, said
    assert lines[0].startswith("Faregate cannot start. ")
    return lines[0]


def left_of(folder: Path) -> list[str]:
    """Processes that work in the folder, by what the system says of them."""
    left = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if str((entry / "cwd").readlink()).startswith(str(folder)):
                left.append((entry / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return left


def spool(gate: Gate, name: str, content: bytes) -> Path:
    folder = gate.folder / "var" / "spool"
    folder.mkdir(parents=True)
    path = folder / name
    path.write_bytes(content)
    return path


async def test_a_spool_file_with_garbage(gate: Gate) -> None:
    """Somebody's settlement was in those bytes: it must not be thrown away unseen, nor stop the rest."""
    path = spool(gate, "worker-1.000001.spool", b"what is this?\n\x00\xff\xfe\ntorn")
    said = await refused(gate)
    assert f"The spool file {path} is damaged: line 1, 2 is no settlement" in said
    assert "delete these lines, or move the file out of the folder" in said
    assert path.read_bytes().startswith(b"what is this?\n")


async def test_a_spool_file_with_a_torn_end_is_no_reason_not_to_start(gate: Gate) -> None:
    """It is what every crash leaves; its write was acknowledged to nobody."""
    path = spool(gate, "worker-1.000001.spool", b"0badcafe 17 {torn")
    await gate.start()
    try:
        async with asyncio.timeout(10):
            while path.exists():
                await asyncio.sleep(0.05)
    finally:
        assert await gate.stop() == 0
        assert gate.session is not None
        await gate.session.close()
    assert left_of(gate.folder) == []


async def test_a_ledger_of_a_newer_schema(gate: Gate) -> None:
    """An older version would write rows that the newer one cannot read."""
    ledger = gate.folder / "var" / "ledger.sqlite3"
    ledger.parent.mkdir()
    await migrate(f"sqlite:///{ledger}")
    with sqlite3.connect(ledger) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'r9999'")
    connection.close()
    said = await refused(gate)
    assert "The ledger has schema r9999, which this Faregate does not know" in said
    assert "Start that version again, or restore a backup from before" in said


async def test_a_ledger_that_is_no_database(gate: Gate) -> None:
    """A wrong file, or one that a disk has eaten."""
    ledger = gate.folder / "var" / "ledger.sqlite3"
    ledger.parent.mkdir()
    ledger.write_bytes(b"this is no database, and never was\n" * 100)
    said = await refused(gate)
    assert f"{ledger} cannot be opened: file is not a database." in said
    assert "restored from a backup" in said


async def test_a_database_that_is_away_at_the_start(gate: Gate) -> None:
    """While it serves it may be away for an hour; to begin with it must say what was spent."""
    said = await refused(gate, '[ledger]\nurl = "postgresql://someone:hush-hush@127.0.0.1:9/faregate"\n')
    assert "127.0.0.1:9/faregate cannot be opened:" in said
    assert "Start that database, or set ledger.url to the right one" in said
    assert "hush-hush" not in said


async def test_a_redis_that_may_throw_counters_away(gate: Gate, start_valkey: Callable[..., Any]) -> None:
    """Evicted counters are budgets given anew."""
    server = start_valkey("--maxmemory-policy", "allkeys-lru")
    said = await refused(gate, f'[redis]\nurl = "{server.url}"\n')
    assert "maxmemory-policy 'allkeys-lru'" in said
    assert "Set `maxmemory-policy noeviction`" in said
    with Redis.from_url(server.url) as client:
        assert client.dbsize() == 0


async def test_another_number_of_shards_than_the_data_was_written_with(
    gate: Gate, start_valkey: Callable[..., Any]
) -> None:
    """Every customer's counters would be looked for where they are not."""
    server = start_valkey()
    client = Redis.from_url(server.url)
    client.hset(keys.INSTALL, mapping={"shards": 4, "format": FORMAT})
    said = await refused(gate, f'[redis]\nurl = "{server.url}"\n')
    assert "installed with redis.shards = 4, and the settings say 16" in said
    assert "set redis.shards = 4, or point redis.url at a Redis of its own" in said
    assert client.hgetall(keys.INSTALL) == {b"shards": b"4", b"format": FORMAT.encode()}
    client.close()


@pytest.mark.parametrize("how", ["acl", "renamed"])
async def test_a_redis_that_refuses_scripts(gate: Gate, start_valkey: Callable[..., Any], how: str) -> None:
    """Every budget is decided in one: without them there is nothing to serve with."""
    server = start_valkey(*(("--rename-command", "EVALSHA", "") if how == "renamed" else ()))
    if how == "acl":
        with Redis.from_url(server.url) as client:
            client.execute_command("ACL", "SETUSER", "default", "-@scripting")
    said = await refused(gate, f'[redis]\nurl = "{server.url}"\n')
    assert "Redis does not run scripts for this user" in said
    assert "ACL SETUSER <user> ~faregate:*" in said


async def test_a_redis_that_is_not_there(gate: Gate) -> None:
    """The commonest of all: the sentence names it."""
    said = await refused(gate, '[redis]\nurl = "redis://127.0.0.1:9"\n')
    assert "Redis does not answer" in said
