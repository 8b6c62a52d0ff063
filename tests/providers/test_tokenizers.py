"""A tokenizer's bound must hold and be tight; where it is not exactly known, there must be none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from proxy.domain.chat_requests import read_chat
from proxy.domain.completions_requests import read_completions
from proxy.domain.embeddings_requests import read_embeddings
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


def embedding(given: Any, **more: Any) -> Any:
    return read_embeddings({"model": "m", "input": given, **more}, {}, str)


def completion(given: Any, **more: Any) -> Any:
    return read_completions({"model": "m", "prompt": given, **more}, {}, str)


@pytest.mark.parametrize(
    ("ask", "tokens", "inputs"),
    [
        (embedding("hello world " * 1000), 2_001, 1),
        (embedding(["hello world " * 100] * 20), 20 * 201, 20),
        (embedding([[1, 2, 3]] * 5), 15, 5),
        (embedding([7] * 500), 500, 1),
        (completion(["hello world " * 100] * 3), 603, 3),
        (completion("hello", suffix="hello world " * 100), 202, 1),
        (completion("hello", tools=5, guidance="hello world " * 100), 204, 1),
    ],
)
async def test_inputs_are_bound_by_their_tokens_each(
    tokenizers: Tokenizers, ask: Any, tokens: int, inputs: int
) -> None:
    """Of an input alone the whole cost is the bound: four times too much refuses what could be paid."""
    bound = await tokenizers.bound(target(upstream_model="text-embedding-3-small"), ask)
    assert bound is not None
    assert tokens <= bound <= tokens + 20 + 17 * inputs


UNKNOWN = [
    ("a vocabulary that is not at hand", target("openai", "text-davinci-003"), completion("hi")),
    ("another upstream", target("vllm"), chat("hi")),
    ("a model that nobody mapped", target("openai", "newest-of-all"), chat("hi")),
    ("an image", target(), chat([{"type": "text", "text": "hi"}, IMAGE])),
]


@pytest.mark.parametrize(("why", "of", "ask"), UNKNOWN)
async def test_what_is_not_exactly_known_keeps_its_byte_bound(
    tokenizers: Tokenizers, why: str, of: Target, ask: Any
) -> None:
    assert await tokenizers.bound(of, ask) is None
