"""FAREGATE_CHAOS: only the operator's environment changes a gate's pace or arms its processes."""

from __future__ import annotations

import json

import pytest

from proxy.app.chaos import VARIABLE, Chaos, ChaosFault, ChaosOfWorkers


def test_without_the_variable_a_gate_is_as_it_is_shipped() -> None:
    """Leases of a minute, and nobody is killed."""
    chaos = Chaos.of({})
    assert (chaos.lease_s, chaos.renew_s, chaos.sweep_s) == (60, 20, 5)
    assert (chaos.keeper_kill, chaos.worker_kills) == (None, ())


def test_each_worker_that_starts_takes_the_next_kill_and_the_later_ones_live() -> None:
    """A worker that is started again in the place of a killed one must not be killed for the same reason."""
    text = json.dumps({"lease_s": 2, "worker_kills": [["after_reserve", 1], ["mid_stream", 3]]})
    configuration = ChaosOfWorkers(Chaos.of({VARIABLE: text}), {"port": 1})
    told = [Chaos.read(configuration(index)["chaos"]) for index in (1, 2, 1)]
    assert [chaos.worker_kills for chaos in told] == [(("after_reserve", 1),), (("mid_stream", 3),), ()]
    assert {chaos.lease_s for chaos in told} == {2}
    assert configuration(1)["port"] == 1


@pytest.mark.parametrize("text", [
    "{", "[]", '{"leases": 1}', '{"keeper_kill": ["nowhere", 1]}', '{"worker_kills": [["mid_stream", 0]]}',
])  # fmt: skip
def test_what_cannot_be_meant_keeps_the_gate_from_starting(text: str) -> None:
    """A proof that quietly did nothing would be worse than none."""
    with pytest.raises(ChaosFault, match=VARIABLE):
        Chaos.of({VARIABLE: text})
