"""What is live: a bad edit changes nothing, an outage loses nothing, and two keepers do not fight."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from keepers_policies import ADA, Keeper
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from proxy.app.policies import keeper_id
from proxy.billing.ports import NotProjected
from proxy.budgets.store_client import connect
from proxy.gateway.ports import StoreAway
from proxy.ledger.directory import SqlAccounts
from proxy.ledger.engine import open_ledger
from proxy.ledger.migrate import migrate
from proxy.ledger.plans import newest_revision
from proxy.policy_files import PolicyFaults

MakeKeeper = Callable[..., Keeper]


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    url = f"sqlite:///{tmp_path}/ledger.sqlite3"
    await migrate(url)
    engine = open_ledger(url)
    yield engine
    await engine.dispose()


@pytest.fixture
async def make_keeper(
    store: Redis, valkey_url: str, tmp_path: Path, ledger: AsyncEngine
) -> AsyncIterator[MakeKeeper]:
    async with connect(valkey_url, 5.0) as client:
        yield lambda name="a", lease_s=10.0: Keeper(name, tmp_path, ledger, client, lease_s)


async def test_an_edited_file_is_live(make_keeper: MakeKeeper) -> None:
    """For every worker, with a version of its own."""
    keeper = make_keeper()
    await keeper.live.begin()
    keeper.write("starter", "Edited")
    await keeper.live.reapply()
    plan = (await keeper.published()).plans["starter"]
    assert (plan.name, plan.version) == ("Edited", 2)
    assert (await keeper.plans.owners())["starter"].file == "plans/starter.toml"


async def test_a_bad_edit_changes_nothing_and_is_said_everywhere(make_keeper: MakeKeeper) -> None:
    """The log, /readyz, health and a metric; and all of them are quiet again when it is mended."""
    keeper = make_keeper()
    told: list[dict[str, list[str]]] = []
    keeper.live.on_news = lambda: told.append(keeper.live.details())
    await keeper.live.begin()
    keeper.write("starter", "Edited", "nam = 1\n")
    await keeper.live.reapply()
    assert (await keeper.published()).plans["starter"].name == "Starter"
    fault = 'plans/starter.toml:3: unknown key "nam"; did you mean "name"?'
    assert keeper.live.faults == (fault,)
    assert told == [{"policy_faults": [fault], "policy_notices": []}]
    assert keeper.counters.snapshot()["gauges"]["policy_faults"] == [[[], 1]]
    keeper.write("starter", "Mended")
    await keeper.live.reapply()
    assert (await keeper.published()).plans["starter"].name == "Mended"
    assert told[-1] == {"policy_faults": [], "policy_notices": []}


async def test_a_start_with_bad_files_serves_what_was_live(make_keeper: MakeKeeper) -> None:
    """A crash at night after a bad edit by day is no outage. Only a first start has nothing to serve."""
    first = make_keeper()
    first.write("starter", "Starter", "nam = 1\n")
    with pytest.raises(PolicyFaults):
        await first.live.begin()
    first.write("starter", "Starter")
    await first.live.begin()
    second = make_keeper("b")
    second.write("starter", "Other", "nam = 1\n")
    await second.live.begin()
    assert second.live.policy == first.live.policy
    assert len(second.live.faults) == 1


async def test_a_lost_file_does_not_take_a_plan_from_its_customers(
    make_keeper: MakeKeeper, ledger: AsyncEngine
) -> None:
    """It says what to do instead."""
    keeper = make_keeper()
    keeper.write("pro", "Pro")
    await keeper.live.begin()

    async def project(_: int) -> None: ...

    accounts = SqlAccounts(ledger, keeper.live._clock, lambda count: b"r" * count, project)
    fields = {"name": "n", "timezone": "UTC", "status": "active", "plan": "pro"}
    await accounts.create_customer(fields | {"anchor": datetime(2026, 1, 1, tzinfo=UTC)})
    keeper.file("pro").unlink()
    await keeper.live.reapply()
    assert "pro" in (await keeper.published()).plans
    (fault,) = keeper.live.faults
    assert fault.startswith('plans: has no file for the plan "pro" any more. 1 customer is on the plan')


async def test_two_keepers_with_different_files_do_not_fight(make_keeper: MakeKeeper, ledger: AsyncEngine) -> None:
    """Half of a fleet with yesterday's files must not flip every customer's limits twice a second."""
    a, b = make_keeper("a"), make_keeper("b")
    b.write("starter", "B's")
    await a.live.begin()
    await b.live.begin()
    for _ in range(3):
        await asyncio.gather(a.live.look(), b.live.look(), a.live.reapply(), b.live.reapply())
    assert await newest_revision(ledger) == 1
    assert (await b.published()).plans["starter"].name == "Starter"
    (notice,) = b.live.notices
    assert notice == "What is live differs from the files here (starter): another gate, a, applies its own."

    a.write("starter", "A's")
    await a.live.reapply()
    await b.live.look()
    assert b.live.policy is not None
    assert (b.live.policy.plans["starter"].name, await newest_revision(ledger)) == ("A's", 2)

    await a.live.end()
    await b.live.look()
    await a.live.look()
    assert (await a.published()).plans["starter"].name == "B's"
    assert (b.live.notices, len(a.live.notices), await newest_revision(ledger)) == ((), 1, 3)


async def test_a_keeper_that_was_killed_is_followed_by_the_next(make_keeper: MakeKeeper) -> None:
    """Its lease runs out; until then what it made live stays."""
    a, b = make_keeper("a", lease_s=0.3), make_keeper("b", lease_s=0.3)
    b.write("starter", "B's")
    await a.live.begin()
    await b.live.begin()
    async with asyncio.timeout(5):
        while (await b.published()).plans["starter"].name != "B's":
            await b.live.look()
            await asyncio.sleep(0.02)


async def test_an_edit_of_the_store_is_followed_by_every_keeper(make_keeper: MakeKeeper) -> None:
    """Any of them takes it; the one with the files keeps it."""
    a, b = make_keeper("a"), make_keeper("b")
    await a.live.begin()
    await b.live.begin()
    await b.edits.create({"id": "pro"}, ADA, "")
    assert "pro" in (await a.published()).plans
    await a.live.look()
    assert a.live.policy == b.live.policy
    a.write("starter", "Edited")
    await a.live.reapply()
    assert {"pro", "starter"} == (await b.published()).plans.keys()


async def test_what_redis_missed_is_made_up_for(make_keeper: MakeKeeper, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger has the edit; a Redis that was away for a moment must get it without another edit."""
    keeper = make_keeper()
    await keeper.live.begin()
    projector = keeper.live._projector
    real, away = projector.publish_policy, True

    async def publish(document: object, revision: int) -> None:
        if away:
            raise StoreAway("away")
        await real(document, revision)

    monkeypatch.setattr(projector, "publish_policy", publish)
    with pytest.raises(NotProjected):
        await keeper.edits.create({"id": "pro"}, ADA, "")
    assert (await keeper.published()).revision == 1
    away = False
    await keeper.live.look()
    assert "pro" in (await keeper.published()).plans
    away = True
    keeper.write("starter", "Edited")
    await keeper.live.reapply()
    away = False
    await keeper.live.look()
    assert (await keeper.published()).plans["starter"].name == "Edited"


async def test_a_ledger_that_is_away_does_not_end_the_watch(
    make_keeper: MakeKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The edit is applied when it is back."""
    keeper = make_keeper()
    await keeper.live.begin()
    keeper.write("starter", "Edited")

    async def lost(*_: object) -> None:
        raise TimeoutError

    with monkeypatch.context() as patch:
        patch.setattr("proxy.app.policies.apply_policy", lost)
        await keeper.live.reapply()
    await keeper.live.look()
    assert (await keeper.published()).plans["starter"].name == "Edited"


def test_a_keeper_keeps_its_name(tmp_path: Path) -> None:
    """So that it finds its own lease again after a restart."""
    assert keeper_id(tmp_path) == keeper_id(tmp_path) != ""
