"""One row of the table that `make chaos` prints: a claim, and what was counted when it was tried."""

from __future__ import annotations

import subprocess
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Scale = Literal["small", "full"]
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Row:
    """`counts` is what was seen, in the order in which it is to be read; `ok` whether the claim held.

    `against` says what went wrong, for whoever has to find out.
    """

    claim: str
    rounds: int
    counts: Mapping[str, object]
    ok: bool
    against: list[str] = field(default_factory=list)

    def told(self) -> str:
        return ", ".join(f"{name} {count}" for name, count in self.counts.items())


Run = Callable[[Scale, int], Awaitable[Row]]


def commit() -> str:
    """The commit that is tried, marked where the tree differs from it."""
    said = subprocess.run(
        ["git", "describe", "--always", "--dirty=+changes"], cwd=ROOT, capture_output=True, text=True
    )
    return said.stdout.strip() or "no commit"
