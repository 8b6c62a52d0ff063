"""Programs run in a process of their own, because setting up the log takes over a whole process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import pytest


class Ran:
    """What a program wrote to stderr, as text and (JSON log) as records."""

    def __init__(self, stderr: str, code: int) -> None:
        self.text = stderr
        self.code = code

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture
def run_program() -> Callable[..., Ran]:
    """Runs the body after `set_up`, with `logs` and `log` at hand; then closes the log."""

    def run(body: str, log_format: str = "json", environment: dict[str, str] | None = None) -> Ran:
        program = (
            "import asyncio, logging, sys, threading, warnings\n"
            "from proxy import telemetry\n"
            "secrets = ['hunter2-hunter2', 'päss \"word']\n"
            f"logs = telemetry.set_up({log_format!r}, process='worker 1', secrets=secrets)\n"
            "log = telemetry.logger('test')\n" + textwrap.dedent(body) + "\nlogs.close()\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            timeout=30,
            env={**os.environ, **(environment or {})},
        )
        return Ran(done.stderr.decode(), done.returncode)

    return run
