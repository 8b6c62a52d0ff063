"""What is measured: where it listens, and which processes are its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.processes import free_port, module, running, wait_for_port


@dataclass
class Target:
    """`pids`: whoever carries the requests. `others`: what works beside it, stated apart, by name.

    `headers`: what it must be told with every request.
    """

    name: str
    url: str
    secret: str
    model: str
    pids: list[int]
    others: dict[str, list[int]] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    peer: bool = False


@contextlib.contextmanager
def canned_upstream(folder: Path, chunks: int, interval_s: float) -> Iterator[str]:
    """The upstream's base URL, "…/v1"."""
    port, log = free_port(), folder / "upstream.log"
    with running(module("bench.upstream", port, chunks, interval_s), log) as process:
        wait_for_port(port, process, log)
        yield f"http://127.0.0.1:{port}/v1"


@contextlib.contextmanager
def pass_through(folder: Path, upstream_url: str) -> Iterator[Target]:
    port, log = free_port(), folder / "passthrough.log"
    with running(module("bench.passthrough", upstream_url, port), log) as process:
        wait_for_port(port, process, log)
        yield Target(
            "pass-through", f"http://127.0.0.1:{port}/v1/chat/completions", "none", "small", [process.pid]
        )
