"""Rounds: every target in turn does the same thing, several times over, and each round is read on its own.

What else the machine does falls on all targets alike that way; the median of the rounds is what counts.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from bench.load import Job, Outcome
from bench.processes import STOP_DEADLINE_S, cpu_us, module
from bench.targets import Target

COUNT_MAX = 100_000
QUIET_SHARE = 0.05
QUIET_CHECK_S = 0.2
QUIET_DEADLINE_S = 20.0


@dataclass(frozen=True)
class Scenario:
    """One kind of load. Its figures are per request, or for streams per chunk."""

    name: str
    connections: int
    streamed: bool = False


@dataclass
class Round:
    """One target under one scenario: CPU in microseconds per request (streams: per chunk), and what was seen."""

    cpu_us: float
    others_us: dict[str, float]
    outcome: Outcome


@dataclass
class Figures:
    """The rounds of one target under one scenario."""

    rounds: list[Round] = field(default_factory=list)

    def cpu_us(self) -> float:
        return median(each.cpu_us for each in self.rounds)

    def spread(self) -> float:
        """Half the distance between the cheapest and the dearest round, as a share of the median."""
        figures = [each.cpu_us for each in self.rounds]
        return (max(figures) - min(figures)) / 2 / self.cpu_us()

    def other_us(self, name: str) -> float | None:
        figures = [each.others_us[name] for each in self.rounds if name in each.others_us]
        return median(figures) if figures else None

    def seen(self, read: Callable[[Outcome], float]) -> float:
        return median(read(each.outcome) for each in self.rounds)

    def as_json(self) -> list[dict[str, object]]:
        return [asdict(each) for each in self.rounds]


class LoadGenerator:
    """The load generator's process, given one job after another."""

    def __init__(self, log: Path) -> None:
        with log.open("ab") as said:
            self._process = subprocess.Popen(
                module("bench.load"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True
            )

    def __enter__(self) -> LoadGenerator:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def play(self, target: Target, scenario: Scenario, seconds: float) -> Outcome:
        """Raises RuntimeError if anything but 200 was answered."""
        job = Job(
            target.url,
            target.secret,
            target.model,
            scenario.connections,
            scenario.streamed,
            seconds,
            COUNT_MAX,
            target.headers,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(job)) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline() or '{"fault": "the load generator ended"}')
        if "fault" in answer:
            raise RuntimeError(f"{target.name}, {scenario.name}: {answer['fault']}")
        return Outcome(**answer)


def measure(load: LoadGenerator, target: Target, scenario: Scenario, seconds: float) -> Round:
    """One round. What the target's other processes still have to do is waited for, and counts."""
    before = _clocks(target)
    outcome = load.play(target, scenario, seconds)
    own = _clocks(target)[""]
    _until_quiet(target)
    after = {**_clocks(target), "": own}
    units = outcome.events if scenario.streamed else outcome.requests
    used = {name: (after[name] - before[name]) / units for name in before}
    return Round(used.pop(""), used, outcome)


def play_rounds(
    load: LoadGenerator,
    targets: Sequence[Target],
    scenario: Scenario,
    rounds: int,
    seconds: float,
    done: Callable[[], None],
    left_out: Callable[[str], None],
) -> dict[str, Figures]:
    """All targets by turns, after one short round each that does not count.

    A peer that fails in it is told of and left out; RuntimeError if one of our own does, or anything later.
    """
    taking_part = []
    for target in targets:
        try:
            measure(load, target, scenario, min(0.5, seconds))
        except RuntimeError as fault:
            if not target.peer:
                raise
            left_out(str(fault))
        else:
            taking_part.append(target)
    figures = {target.name: Figures() for target in taking_part}
    for _ in range(rounds):
        for target in taking_part:
            figures[target.name].rounds.append(measure(load, target, scenario, seconds))
            done()
    return figures


def _clocks(target: Target) -> dict[str, float]:
    groups = {"": target.pids, **target.others}
    return {name: sum(cpu_us(pid) for pid in pids) for name, pids in groups.items()}


def _until_quiet(target: Target) -> None:
    """The keeper writes the ledger a little later; it must not do so during somebody else's round."""
    if not target.others:
        return
    deadline_s = time.monotonic() + QUIET_DEADLINE_S
    while time.monotonic() < deadline_s:
        before = _clocks(target)
        time.sleep(QUIET_CHECK_S)
        after = _clocks(target)
        if all(after[name] - before[name] < QUIET_SHARE * QUIET_CHECK_S * 1e6 for name in target.others):
            return
