"""`make chaos`: every claim tried at its full figure, and a table of what was counted, with seed and commit."""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "e2e"), str(HERE.parent / "budgets")]

from chaos_table import Row, Scale, commit  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: E402
from rich.table import Table  # noqa: E402
from scenarios import SCENARIOS  # noqa: E402

# Longer than any row has ever taken; a row that hangs must not hold up the others.
ROW_S = {"small": 180.0, "full": 1800.0}


async def tried(name: str, scale: Scale, seed: int) -> Row:
    """The row; one that breaks off is a row that does not hold."""
    try:
        async with asyncio.timeout(ROW_S[scale]):
            return await SCENARIOS[name](scale, seed)
    except (Exception, TimeoutError) as fault:
        return Row(name, 0, {}, False, [f"broke off: {type(fault).__name__}: {fault}"])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="to play a run again")
    parser.add_argument(
        "--only", action="append", choices=list(SCENARIOS), metavar="NAME", help=", ".join(SCENARIOS)
    )
    parser.add_argument("--small", action="store_true", help="the smaller round of `make test`")
    options = parser.parse_args()
    scale: Scale = "small" if options.small else "full"
    # What is cut off says so at length.
    logging.disable()
    console, rows = Console(), []
    console.print(f"commit {commit()}, seed {options.seed}, {scale}")
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}")
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        names = options.only or list(SCENARIOS)
        task = progress.add_task("", total=len(names))
        for name in names:
            progress.update(task, description=name)
            began = time.monotonic()
            row = asyncio.run(tried(name, scale, options.seed))
            rows.append((row, time.monotonic() - began))
            progress.advance(task)
            said = "holds" if row.ok else "[bold red]DOES NOT HOLD[/]"
            console.print(f"{name}: {said} ({row.told()})")
            for line in row.against[:10]:
                console.print(f"    {line}", markup=False)
    table = Table("claim", "rounds", "counted", "", "s", title=f"commit {commit()}, seed {options.seed}")
    for row, took_s in rows:
        table.add_row(row.claim, str(row.rounds), row.told(), "✓" if row.ok else "✗", f"{took_s:.0f}")
    console.print(table)
    return 0 if all(row.ok for row, _ in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
