"""A tokenizer's bound must hold and be tight; where it is not exactly known, there must be none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from proxy.domain.chat_requests import read_chat
from proxy.domain.policy import Target
from proxy.providers.tokenizers import Tokenizers


@pytest.fixture
def tokenizers() -> Iterator[Tokenizers]:
    made = Tokenizers(frozenset({"openai"}))
    yield made
    made.close()


def target(upstream: str = "openai", upstream_model: str = "gpt-4o-mini") -> Target:
    return Target(upstream, upstream_model)


def chat(content: Any, **more: Any) -> Any:
    body = {"model": "m", "messages": [{"role": "user", "content": content}], **more}
    return read_chat(body, {}, str)


TEXTS = [
    # text                         tokens, as OpenAI counts them
    ("hello world " * 1000, 2_001),
    ("<|endoftext|>", 7),
]


@pytest.mark.parametrize(("text", "tokens"), TEXTS)
async def test_english_is_bound_by_its_tokens_and_not_by_its_bytes(
    tokenizers: Tokenizers, text: str, tokens: int
) -> None:
    bound = await tokenizers.bound(target(), chat(text))
    assert bound is not None
    assert tokens <= bound <= tokens + 60


async def test_a_run_that_is_slow_to_merge_is_bound_all_the_same(tokenizers: Tokenizers) -> None:
    """Some tokenizers take quadratic time for it; the loop must not wait, nor the bound fail."""
    bound = await tokenizers.bound(target(), chat("a" * 100_000))
    assert bound is None or 10_000 < bound < 100_000


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}

UNKNOWN = [
    ("another upstream", target("vllm"), chat("hi")),
    ("a model that nobody mapped", target("openai", "newest-of-all"), chat("hi")),
    ("an image", target(), chat([{"type": "text", "text": "hi"}, IMAGE])),
]


@pytest.mark.parametrize(("why", "of", "ask"), UNKNOWN)
async def test_what_is_not_exactly_known_keeps_its_byte_bound(
    tokenizers: Tokenizers, why: str, of: Target, ask: Any
) -> None:
    assert await tokenizers.bound(of, ask) is None
