"""Keepers that differ in nothing but their name and their policy files, on one ledger and one Redis."""

from __future__ import annotations

import shutil
from pathlib import Path

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from proxy.app.clock import SystemClock
from proxy.app.plan_editing import PlanEditing
from proxy.app.policies import LivePolicy
from proxy.budgets.keeper_lease import KeeperLease
from proxy.budgets.redis_directory import DirectoryProjector, RedisDirectory
from proxy.domain.deeds import Actor, Deed
from proxy.domain.policy import Policy
from proxy.ledger.plan_edits import SqlPlanEdits
from proxy.ledger.plans import SqlPlans
from proxy.settings import load_settings
from proxy.telemetry import Counters

ADA = Deed(Actor("tok_1", "Ada", "owner"), "POST", "/")
MODELS = '[models."gpt-4o-mini"]\nupstream = "openai"\n'
SHARDS = 4


class Keeper:
    """`write` edits its files; `live` and `edits` are what a gate's keeper is made of."""

    def __init__(self, name: str, folder: Path, engine: AsyncEngine, client: Redis, lease_s: float) -> None:
        self.folder = folder / name
        (self.folder / "policies" / "plans").mkdir(parents=True)
        (self.folder / "policies" / "models.toml").write_text(MODELS)
        (self.folder / "config.toml").write_text("")
        self.write("starter", "Starter")
        clock = SystemClock()
        self.counters = Counters()
        self.directory = RedisDirectory(client, SHARDS, deadline_s=5.0)
        self.live = LivePolicy(
            load_settings(self.folder / "config.toml"),
            engine,
            DirectoryProjector(client, SHARDS),
            clock,
            self.counters,
            KeeperLease(client, "policy files", name, clock, lease_s),
        )
        self.plans = SqlPlans(engine)
        self.edits = PlanEditing(self.live, SqlPlanEdits(engine, clock), self.plans, "starter")

    def file(self, id: str) -> Path:
        return self.folder / "policies" / "plans" / f"{id}.toml"

    def write(self, id: str, name: str, more: str = "") -> None:
        self.file(id).write_text(f'id = "{id}"\nname = "{name}"\n{more}')

    async def published(self) -> Policy:
        """What workers read."""
        return await self.directory.policy()

    def remove_files(self) -> None:
        shutil.rmtree(self.folder / "policies" / "plans")
