"""A gate served for a test: `gate` with one worker, `make_gate` for others."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from served import Gate, prepare, serving

from proxy.demo.scripted_upstream import ScriptedUpstream


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as up:
        yield up


@pytest.fixture
def make_gate(
    upstream: ScriptedUpstream, tmp_path: Path
) -> Callable[..., contextlib.AbstractAsyncContextManager[Gate]]:
    """Makes gates before that upstream: `async with make_gate(workers=2) as gate`."""

    def make(**how: object) -> contextlib.AbstractAsyncContextManager[Gate]:
        folder = tmp_path / "gate"
        folder.mkdir()
        return serving(prepare(folder, upstream.url, **how))  # type: ignore[arg-type]

    return make


@pytest.fixture
async def gate(make_gate: Callable[..., contextlib.AbstractAsyncContextManager[Gate]]) -> AsyncIterator[Gate]:
    async with make_gate() as served:
        yield served
