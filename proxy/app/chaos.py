"""What the proof of the guarantees (`make chaos`) changes of a gate: shorter leases, and processes that kill
themselves.

The operator's environment variable FAREGATE_CHAOS, a JSON object of `Chaos`'s fields, is read by the keeper at
start and handed to the workers with their configuration. It is no setting, and no request comes near it. A gate
that runs with it says so in its log. Never set it where customers are served.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from proxy.telemetry import failpoints

VARIABLE = "FAREGATE_CHAOS"

log = structlog.get_logger(__name__)

Kill = tuple[str, int]
"""A failpoint, and at which of its reachings the process dies."""


class ChaosFault(ValueError):
    """FAREGATE_CHAOS is no object of the fields that there are."""


@dataclass(frozen=True, slots=True)
class Chaos:
    """The default is a gate as it is shipped. Of `worker_kills` each worker that is started takes the next."""

    lease_s: float = 60.0
    renew_s: float = 20.0
    sweep_s: float = 5.0
    examine_s: float = 60.0
    keeper_kill: Kill | None = None
    worker_kills: tuple[Kill, ...] = ()

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Chaos:
        """As the environment says; raises `ChaosFault`."""
        text = environment.get(VARIABLE)
        if not text:
            return cls()
        try:
            chaos = cls.read(json.loads(text))
        except (ValueError, TypeError) as fault:
            names = ", ".join(field.name for field in dataclasses.fields(cls))
            raise ChaosFault(
                f"The environment variable {VARIABLE} is no JSON object of {names}: {fault}. Unset it where"
                " customers are served."
            ) from None
        log.warning("chaos.armed", **dataclasses.asdict(chaos))
        return chaos

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Chaos:
        """From JSON values; raises ValueError or TypeError."""
        chaos = cls(**said)
        keeper_kill = _kill(chaos.keeper_kill) if chaos.keeper_kill else None
        return dataclasses.replace(
            chaos, keeper_kill=keeper_kill, worker_kills=tuple(_kill(each) for each in chaos.worker_kills)
        )

    def arm_keeper(self) -> None:
        """Arms this process, the keeper, if it is to be killed."""
        if self.keeper_kill:
            failpoints.arm(*self.keeper_kill)

    def arm_worker(self) -> None:
        """Arms this process, a worker, if it is to be killed."""
        if self.worker_kills:
            failpoints.arm(*self.worker_kills[0])


class ChaosOfWorkers:
    """The workers' configuration with what each of them is told of the chaos."""

    def __init__(self, chaos: Chaos, message: Mapping[str, Any]) -> None:
        self._chaos = chaos
        self._message = message
        self._kills = list(chaos.worker_kills)

    def __call__(self, _index: int) -> Mapping[str, Any]:
        next_kill = (self._kills.pop(0),) if self._kills else ()
        chaos = dataclasses.replace(self._chaos, keeper_kill=None, worker_kills=next_kill)
        return {**self._message, "chaos": dataclasses.asdict(chaos)}


def _kill(said: Any) -> Kill:
    point, nth = said
    if point not in failpoints.POINTS or type(nth) is not int or nth < 1:
        raise ValueError(f"{said!r} is no failpoint and a number; there are {', '.join(failpoints.POINTS)}")
    return point, nth
