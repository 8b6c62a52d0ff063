"""No setting of the machine that runs the tests may decide one."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith("FAREGATE_"):
            monkeypatch.delenv(name)
