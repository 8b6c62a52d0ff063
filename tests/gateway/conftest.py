"""The fixtures of the gateway's stories."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from gateway_doubles import SECRET, Doubles, FakeCall


@pytest.fixture
def doubles() -> Doubles:
    return Doubles()


@pytest.fixture
def ask() -> Callable[..., FakeCall]:
    """Makes a call: a chat request with these fields changed, under this secret."""

    def make(secret: str | None = SECRET, **fields: Any) -> FakeCall:
        body = {"model": "small", "messages": [{"role": "user", "content": "hi"}], **fields}
        return FakeCall(body, secret)

    return make
