"""A plan has one owner, and moves between the files and the store without two truths at any moment."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from keepers_policies import ADA, Keeper
from redis.asyncio import Redis

from proxy.billing.ports import AlreadyExists, FilesInTheWay, NotFound, OwnedByFiles, PlanFaults, PlanInUse
from proxy.budgets.store_client import connect
from proxy.ledger.engine import open_ledger
from proxy.ledger.migrate import migrate

DOCUMENT = {"id": "pro", "models": ["gpt-4o-mini"], "budgets": [{"meter": "cost_usd", "limit": "12.50"}]}


@pytest.fixture
async def keeper(store: Redis, valkey_url: str, tmp_path: Path) -> AsyncIterator[Keeper]:
    """It has the lease, the file of `starter`, and `pro` in its store."""
    url = f"sqlite:///{tmp_path}/ledger.sqlite3"
    await migrate(url)
    engine = open_ledger(url)
    async with connect(valkey_url, 5.0) as client:
        keeper = Keeper("a", tmp_path, engine, client, 10.0)
        await keeper.live.begin()
        await keeper.edits.create(DOCUMENT, ADA, "")
        yield keeper
    await engine.dispose()


async def test_a_written_plan_is_live_when_it_is_answered(keeper: Keeper) -> None:
    """The next request is decided by it."""
    plan = await keeper.edits.replace("pro", {**DOCUMENT, "name": "Edited"}, ADA, "why")
    assert (await keeper.published()).plans["pro"] == plan
    assert (plan.version, plan.budgets[0].limit) == (2, 12_500_000)


async def test_a_document_is_checked_as_a_file_is(keeper: Keeper) -> None:
    """Against the catalogue that is live, too."""
    with pytest.raises(PlanFaults) as faulty:
        await keeper.edits.create({"id": "x", "models": ["gpt-4o-min"], "budgets": [{}]}, ADA, "")
    assert [path for path, _ in faulty.value.faults] == ["models[0]", "budgets[0]"]
    assert 'did you mean "gpt-4o-mini"?' in faulty.value.faults[0][1]
    with pytest.raises(PlanFaults, match="as in the path"):
        await keeper.edits.replace("pro", {"id": "other"}, ADA, "")
    assert (await keeper.edits.replace("pro", {"name": "P"}, ADA, "")).id == "pro"


async def test_the_default_plan_is_not_taken_away(keeper: Keeper) -> None:
    """The next customer would be on nothing."""
    await keeper.edits.adopt("starter", "store", ADA)
    with pytest.raises(PlanInUse, match="default_plan"):
        await keeper.edits.delete("starter", ADA)
    await keeper.edits.delete("pro", ADA)
    assert "pro" not in (await keeper.published()).plans


async def test_to_the_store_and_back(keeper: Keeper) -> None:
    """What it says stays as it is, down to the version; the file with its comments is put aside, not lost."""
    keeper.write("starter", "Starter", "# ours\n")
    await keeper.live.reapply()
    before = (await keeper.published()).plans["starter"]
    (told,) = await keeper.edits.adopt("starter", "store", ADA)
    assert told.startswith("plans/starter.toml is now plans/starter.toml.adopted, which nobody reads.")
    assert not keeper.file("starter").exists()
    assert (await keeper.published()).plans["starter"] == before
    assert keeper.live.faults == keeper.live.notices == ()
    with pytest.raises(AlreadyExists):
        await keeper.edits.create({"id": "starter"}, ADA, "")
    edited = await keeper.edits.replace("starter", {"name": "In the store"}, ADA, "")

    told, more = await keeper.edits.adopt("starter", "files", ADA)
    assert told.startswith("plans/starter.toml is written")
    assert more.endswith("starter.toml.adopted.")
    assert (await keeper.published()).plans["starter"] == edited
    keeper.write("starter", "Edited again")
    await keeper.live.reapply()
    assert (await keeper.published()).plans["starter"].name == "Edited again"
    assert list(await keeper.edits.adopt("starter", "files", ADA)) == []


async def test_a_file_of_a_plan_that_the_store_owns_is_ignored_and_complained_of(keeper: Keeper) -> None:
    """Whoever wrote it must learn why nothing happens; adopting it is the way."""
    keeper.write("pro", "Mine", "# a draft\nnam = 1\n")
    await keeper.live.reapply()
    assert (await keeper.published()).plans["pro"].name == "Pro"
    (notice,) = keeper.live.notices
    assert notice.startswith('plans/pro.toml is ignored: the plan "pro" is owned by the store.')
    await keeper.edits.adopt("pro", "files", ADA)
    assert (await keeper.published()).plans["pro"].name == "Pro"
    assert "# a draft" in keeper.file("pro").with_name("pro.toml.adopted").read_text()
    assert keeper.live.notices == ()


async def test_a_file_that_holds_another_plan_is_not_written_over(keeper: Keeper) -> None:
    """File names are free, so this one may be anybody's."""
    keeper.file("pro").write_text('id = "other"\n')
    with pytest.raises(FilesInTheWay, match=r"plans/pro\.toml is there already"):
        await keeper.edits.adopt("pro", "files", ADA)
    keeper.file("pro").write_text("id = \n")
    with pytest.raises(FilesInTheWay, match="put them right first"):
        await keeper.edits.adopt("pro", "files", ADA)


async def test_the_last_file_may_go(keeper: Keeper) -> None:
    """A gate whose plans are all in the store needs no plan file."""
    await keeper.edits.adopt("starter", "store", ADA)
    keeper.remove_files()
    await keeper.live.reapply()
    assert keeper.live.faults == ()
    assert (await keeper.published()).plans.keys() == {"starter", "pro"}


async def test_a_roll_back_brings_the_old_content_as_a_new_version(keeper: Keeper) -> None:
    """Where files own the plan, it says how that is done with them."""
    first = (await keeper.published()).plans["pro"]
    await keeper.edits.replace("pro", {"name": "Wrong"}, ADA, "")
    back = await keeper.edits.roll_back("pro", 1, ADA, "wrong")
    assert (back.version, back.name, back.budgets) == (3, first.name, first.budgets)
    assert (await keeper.plans.versions("pro"))[0].message == "wrong"
    with pytest.raises(NotFound, match="version '9'"):
        await keeper.edits.roll_back("pro", 9, ADA, "")
    with pytest.raises(OwnedByFiles, match="faregate plans export starter --version 1 --dir policies --force"):
        await keeper.edits.roll_back("starter", 1, ADA, "")


async def test_files_are_applied_when_an_admin_says_so(keeper: Keeper) -> None:
    """With who and why in the version; before that, what would change."""
    keeper.write("starter", "Edited")
    would = await keeper.edits.apply_files(True, ADA, "")
    assert [(id, before.name, after.name) for id, before, after in would.plans] == [
        ("starter", "Starter", "Edited")
    ]
    assert (await keeper.published()).plans["starter"].name == "Starter"
    done = await keeper.edits.apply_files(False, ADA, "December")
    assert done.plans[0][2].version == 2
    newest = (await keeper.plans.versions("starter"))[0]
    assert (newest.applied_by, newest.message) == ("Ada", "December")
    keeper.write("starter", "Edited", "nam = 1\n")
    with pytest.raises(PlanFaults, match=r"starter\.toml:3: unknown key"):
        await keeper.edits.apply_files(False, ADA, "")


async def test_only_the_gate_with_the_lease_writes_and_applies_files(keeper: Keeper) -> None:
    """Another one's file would be ignored, and its plan would vanish."""
    await keeper.live.end()
    for ask in (keeper.edits.adopt("pro", "files", ADA), keeper.edits.apply_files(False, ADA, "")):
        with pytest.raises(FilesInTheWay, match="Another gate"):
            await ask
    assert not keeper.file("pro").exists()
