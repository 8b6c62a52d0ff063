"""A real admin plane in a thread of its own, and the command line pointed at it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from proxy.cli.root import app
from tests.doubles.admin import TOKEN, AdminPlane


@pytest.fixture
def plane() -> Iterator[AdminPlane]:
    plane, loop = AdminPlane(), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(plane.start(), loop).result(10)
    yield plane
    asyncio.run_coroutine_threadsafe(plane.stop(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An empty folder to run in, and none of the operator's own variables."""
    monkeypatch.chdir(tmp_path)
    for name in ("FAREGATE_ADMIN_URL", "FAREGATE_ADMIN_TOKEN", "NO_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.fixture
def run(plane: AdminPlane, environ: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs `faregate <words>` against the plane. `code` is what it must exit with."""
    environ.setenv("FAREGATE_ADMIN_URL", plane.url)
    environ.setenv("FAREGATE_ADMIN_TOKEN", TOKEN)

    def invoke(*words: str, code: int = 0) -> Any:
        result = CliRunner().invoke(app, words)
        assert result.exit_code == code, (result.output, result.exception)
        assert TOKEN not in result.output
        return result

    return invoke


@pytest.fixture
def furnished(run: Callable[..., Any]) -> Callable[..., Any]:
    """As `run`, where customer acme, agent type research and agent scout are known."""
    run("customers", "create", "Acme Corp", "--id", "acme", "--plan", "starter")
    run("agents", "create-type", "Research Agent", "--id", "research", "--kind", "langgraph")
    run("agents", "create", "Scout", "--id", "scout", "--customer", "acme", "--type", "research")
    run("webhooks", "create", "https://example.com/hooks", "--id", "home")
    run("webhooks", "test", "home")
    return run
