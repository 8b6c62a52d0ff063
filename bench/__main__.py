"""`make bench`: what a gated request costs in CPU, beside a bare pass-through in the same minute.

python -m bench            about four minutes: 1, 16 and 64 connections, and 16 streams
python -m bench --quick    about half a minute: 16 connections and 16 streams
python -m bench --guard 1.2    exit 1 if a request or a chunk costs more than 1.2 times the pass-through's
python -m bench --budgets 10 --grants 5    a second gate, with as many of each, beside the usual one
python -m bench --peers    other gateways too, each in an environment of its own
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bench.gate import gate
from bench.peers import PEERS, Unavailable
from bench.report import about_this_machine, print_tables, ratio, write_json
from bench.rounds import Figures, LoadGenerator, Scenario, play_rounds
from bench.targets import Target, canned_upstream, pass_through

CHUNKS = 200
CHUNK_INTERVAL_S = 0.005
WIDTH = 130

PLAIN_16 = Scenario("16 connections", 16)
STREAMED_16 = Scenario(f"16 streams of {CHUNKS} chunks", 16, streamed=True)
GUARDED = (PLAIN_16, STREAMED_16)
FULL = (Scenario("1 connection", 1), PLAIN_16, Scenario("64 connections", 64), STREAMED_16)


def main() -> int:
    options = _options()
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    scenarios = GUARDED if options.quick else FULL
    with contextlib.ExitStack() as closing:
        folder = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="faregate-bench-")))
        upstream_url = closing.enter_context(canned_upstream(folder, CHUNKS, CHUNK_INTERVAL_S))
        targets = [
            closing.enter_context(gate(folder / "gate", upstream_url)),
            closing.enter_context(pass_through(folder, upstream_url)),
        ]
        if options.budgets > 3 or options.grants:
            more = gate(folder / "gate-of-many", upstream_url, max(3, options.budgets), options.grants)
            targets.append(closing.enter_context(more))
        if options.peers:
            targets += _peers(folder, upstream_url, closing, console)
        load = closing.enter_context(LoadGenerator(folder / "load.log"))
        rounds, seconds = (3, 1.5) if options.quick else (options.rounds, options.seconds)
        results = _play(load, targets, scenarios, rounds, seconds, console)
    about = about_this_machine()
    print_tables(results, about, console)
    console.print(f"Every round: {write_json(results, about)}", soft_wrap=True)
    return 0 if options.guard is None else _guard(results, options.guard, console)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="16 connections and 16 streams only, short rounds")
    parser.add_argument("--guard", type=float, metavar="RATIO", help="exit 1 above this ratio to the pass-through")
    parser.add_argument("--peers", action="store_true", help="measure other gateways too")
    parser.add_argument("--budgets", type=int, default=3, help="of a second gate, where it is more than 3")
    parser.add_argument("--grants", type=int, default=0, help="of the second gate's customer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of one round")
    return parser.parse_args()


def _peers(folder: Path, upstream_url: str, closing: contextlib.ExitStack, console: Console) -> list[Target]:
    found = []
    for name, peer in PEERS.items():
        try:
            with console.status(f"Preparing {name} ..."):
                found.append(closing.enter_context(peer(folder, upstream_url)))
        except Unavailable as why:
            console.print(f"{name} is left out: {why}", soft_wrap=True)
    return found


def _play(
    load: LoadGenerator,
    targets: list[Target],
    scenarios: tuple[Scenario, ...],
    rounds: int,
    seconds: float,
    console: Console,
) -> dict[Scenario, dict[str, Figures]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=len(scenarios) * len(targets) * rounds)
        step: Callable[[], None] = lambda: progress.advance(bar)  # noqa: E731
        left_out: Callable[[str], None] = lambda why: progress.console.print(f"Left out: {why}")  # noqa: E731
        results = {}
        for scenario in scenarios:
            progress.update(bar, description=scenario.name)
            results[scenario] = play_rounds(load, targets, scenario, rounds, seconds, step, left_out)
    return results


def _guard(results: dict[Scenario, dict[str, Figures]], most: float, console: Console) -> int:
    """A ratio within one run means the same on every machine; microseconds do not."""
    failed = 0
    for scenario in GUARDED:
        found = ratio(results, scenario, "gate")
        verdict = "within" if found <= most else "ABOVE"
        console.print(f"{scenario.name}: {found:.2f} times the pass-through, {verdict} the guard of {most:.2f}")
        failed |= found > most
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
