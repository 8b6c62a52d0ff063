"""Failpoints: armed, a process ends at the very reaching that was asked for; unarmed, nothing happens."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from proxy.telemetry import failpoints

PROGRAM = """
import sys
from proxy.telemetry.failpoints import arm, reach
if sys.argv[1:]:
    arm("before_settle", 3)
for number in range(5):
    print(number, flush=True)
    reach("after_reserve")
    reach("before_settle")
"""


def test_an_armed_process_is_killed_at_the_nth_reaching_of_its_point() -> None:
    """The moment is what is tried: one earlier or later is another claim."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, "armed"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (-signal.SIGKILL, ["0", "1", "2"])


def test_an_unarmed_process_reaches_every_point_unharmed() -> None:
    """Every gate that serves customers runs so."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert (done.returncode, len(done.stdout.split())) == (0, 5)


@pytest.mark.parametrize(("point", "nth"), [("no_such_point", 1), ("before_settle", 0)])
def test_a_point_that_does_not_exist_cannot_be_armed(point: str, nth: int) -> None:
    """It would never strike, and the proof would prove nothing."""
    with pytest.raises(ValueError, match="before_settle"):
        failpoints.arm(point, nth)
