"""An edited plan is live within a second, however the editor writes it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from proxy.policy_files import watching
from proxy.policy_files.watching import watch

Policies = Callable[..., Path]
SOON_S = 1.0


class Watched:
    """A watched directory, and the calls that the watcher made."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.plan = directory / "plans" / "x.toml"
        self.calls: asyncio.Queue[str] = asyncio.Queue()

    async def on_change(self) -> None:
        self.calls.put_nowait(self.plan.read_text() if self.plan.exists() else "")

    async def told(self) -> str:
        return await asyncio.wait_for(self.calls.get(), SOON_S)


@pytest.fixture
async def watched(policies: Policies) -> AsyncIterator[Watched]:
    watched = Watched(policies())
    task = asyncio.create_task(watch(watched.directory, watched.on_change))
    await watched.told()  # The call at the start: from here on changes are noticed.
    yield watched
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_file_written_in_place_is_noticed(watched: Watched) -> None:
    """As `nano` and shell redirection do."""
    watched.plan.write_text('id = "x"\nname = "New"\n')
    assert "New" in await watched.told()


async def test_a_file_replaced_by_another_is_noticed_every_time(watched: Watched) -> None:
    """As `vim` and most editors do: a watch on the file itself would be lost with it."""
    for n in range(3):
        draft = watched.plan.with_name(".x.toml.swp")
        draft.write_text(f'id = "x{n}"\n')
        draft.rename(watched.plan)
        assert f"x{n}" in await watched.told()


async def test_added_and_removed_plans_are_noticed(watched: Watched) -> None:
    """A plan is a file: adding one adds the plan."""
    added = watched.plan.with_name("y.toml")
    added.write_text('id = "y"\n')
    await watched.told()
    added.unlink()
    await watched.told()


async def test_a_directory_swapped_whole_is_noticed(watched: Watched, tmp_path: Path) -> None:
    """As deployments do: the directory that was watched is gone."""
    fresh = tmp_path / "fresh"
    shutil.copytree(watched.directory, fresh)
    (fresh / "plans" / "x.toml").write_text('id = "swapped"\n')
    watched.directory.rename(tmp_path / "old")
    fresh.rename(watched.directory)
    while "swapped" not in await watched.told():
        pass
    watched.plan.write_text('id = "afterwards"\n')
    assert "afterwards" in await watched.told()


async def test_what_is_no_policy_is_not_worth_a_call(policies: Policies, monkeypatch: pytest.MonkeyPatch) -> None:
    """A README, an editor's draft or nothing at all must not lead to a new policy revision."""
    watched = Watched(policies())

    async def four_moments(_: Path) -> AsyncIterator[None]:
        yield
        yield
        (watched.directory / "README.md").write_text("hello")
        (watched.directory / "plans" / ".x.toml.swp").write_text("draft")
        yield
        watched.plan.write_text('id = "x"\nname = "Last"\n')
        yield

    monkeypatch.setattr(watching, "_moments", four_moments)
    await watch(watched.directory, watched.on_change)
    assert watched.calls.qsize() == 2
