"""A smaller round of what `make chaos` proves; the figures are in docs/reference/guarantees.md.

Each prints its seed; `python -m tests.chaos --small --only NAME --seed SEED` plays it again.
"""

from __future__ import annotations

import random
import sys

import pytest
from scenarios import SCENARIOS


@pytest.mark.parametrize("name", SCENARIOS)
async def test_the_claim_holds_in_a_smaller_round(name: str) -> None:
    """Each is a promise made to whoever pays the bill; a kill, a cut or a flush must not break it."""
    seed = random.randrange(1 << 32)
    sys.stdout.write(f"seed {seed}\n")
    row = await SCENARIOS[name]("small", seed)
    assert row.ok, "\n".join([f"seed {seed}: {row.told()}", *row.against[:20]])
