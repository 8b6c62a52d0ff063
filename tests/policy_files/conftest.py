"""A directory of policies that a test may spoil."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

MODELS = '[models."gpt-4o-mini"]\nupstream = "openai"\n'
PLAN = 'id = "x"\nmodels = ["gpt-4o-mini"]\n'


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("FAREGATE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def policies(tmp_path: Path) -> Callable[..., Path]:
    """`policies(models=…, x=…)` writes models.toml and plans/x.toml; both are right unless given."""

    def write(models: str = MODELS, **plans: str) -> Path:
        directory = tmp_path / "policies"
        (directory / "plans").mkdir(parents=True, exist_ok=True)
        (directory / "models.toml").write_text(models)
        for name, text in (plans or {"x": PLAN}).items():
            (directory / "plans" / f"{name}.toml").write_text(text)
        return directory

    return write
