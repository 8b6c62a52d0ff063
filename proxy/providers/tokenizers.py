"""A tighter bound of an input than its bytes, where the model's tokenizer is exactly known.

It is asked only when a decision hangs on it: counting costs about a millisecond for each ten kilobytes, and runs
in a thread of its own, with a deadline. Known exactly are the models that OpenAI serves itself, by the
vocabularies that come with the litellm package; everything else keeps its byte bound.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson

from proxy.domain.asks import Ask
from proxy.domain.policy import Target
from proxy.domain.request_parts import TOKENS_PER_MESSAGE, TOKENS_PER_REQUEST, TOKENS_PER_TOOL

DEADLINE_S = 1.0
WAITING_MAX = 8
TEXT_CHARACTERS_MAX = 2_000_000

# Any other would be fetched.
BUNDLED = ("cl100k_base", "o200k_base")
COUNTED = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")


class Tokenizers:
    """Implements the port of that name. `exact_upstreams`: those that are OpenAI's own endpoint."""

    def __init__(self, exact_upstreams: frozenset[str]) -> None:
        self._exact = exact_upstreams
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tokenizer")
        self._waiting = 0

    async def bound(self, target: Target, ask: Ask) -> int | None:
        """An upper bound of the input in tokens; None where none is known, or not in time."""
        if ask.endpoint not in COUNTED or target.upstream not in self._exact:
            return None
        if self._waiting >= WAITING_MAX or _vocabularies() is None:
            return None
        encoding = _encoding_name(target.upstream_model)
        chat = ask.endpoint == "/v1/chat/completions"
        if encoding is None or (chat and _has_other_parts(ask.body)):
            return None
        texts, tokens = ([text for text in _texts(ask.body) if text is not None], 0) if chat else _inputs(ask)
        if sum(map(len, texts)) > TEXT_CHARACTERS_MAX:
            return None
        self._waiting += 1
        counting = asyncio.get_running_loop().run_in_executor(self._thread, _count, encoding, texts)
        counting.add_done_callback(self._finished)
        try:
            async with asyncio.timeout(DEADLINE_S):
                tokens += await asyncio.shield(counting)
        except TimeoutError:
            return None
        if not chat:
            return tokens + TOKENS_PER_REQUEST + TOKENS_PER_MESSAGE * ask.inputs
        tools = ask.body.get("tools") or ask.body.get("functions") or ()
        around = TOKENS_PER_REQUEST + TOKENS_PER_MESSAGE * len(ask.body["messages"]) + TOKENS_PER_TOOL * len(tools)
        return tokens + around

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _finished(self, counting: asyncio.Future[int]) -> None:
        self._waiting -= 1
        if not counting.cancelled():
            counting.exception()


def _inputs(ask: Ask) -> tuple[list[str], int]:
    """The texts of prompts or of what is to be embedded, and how many tokens were sent as such."""
    given = ask.body["input" if ask.endpoint == "/v1/embeddings" else "prompt"]
    each = [given] if type(given) is str or type(given[0]) is int else given
    texts = [one for one in each if type(one) is str]
    texts += [ask.body["suffix"]] * ask.inputs if ask.body.get("suffix") else []
    texts += [orjson.dumps(ask.body[name]).decode() for name in ask.unknown_fields] * ask.inputs
    return texts, sum(len(one) for one in each if type(one) is list)


def _has_other_parts(body: dict[str, Any]) -> bool:
    """Whether there is an image or another part that is no text, which no tokenizer counts."""
    contents = (message.get("content") for message in body["messages"])
    parts = (part for content in contents if type(content) is list for part in content)
    return any(part.get("type") not in ("text", "refusal") for part in parts)


def _texts(body: dict[str, Any]) -> Iterator[str | None]:
    """Every text that becomes input."""
    for message in body["messages"]:
        content = message.get("content")
        if type(content) is list:
            yield from (part.get("text") or part.get("refusal") for part in content)
        elif content is not None:
            yield content
        rest = {name: value for name, value in message.items() if name != "content"}
        yield orjson.dumps(rest).decode()
    for name in ("tools", "functions", "tool_choice", "function_call", "response_format"):
        if body.get(name) is not None:
            yield orjson.dumps(body[name]).decode()


def _encoding_name(upstream_model: str) -> str | None:
    from tiktoken.model import encoding_name_for_model

    try:
        name = encoding_name_for_model(upstream_model)
    except KeyError:
        return None
    return name if name in BUNDLED else None


def _count(encoding_name: str, texts: list[str]) -> int:
    """Runs in the thread. The first call loads the vocabulary, from disk: nothing is fetched."""
    import tiktoken

    os.environ["TIKTOKEN_CACHE_DIR"] = str(_vocabularies())
    encoding = tiktoken.get_encoding(encoding_name)
    return sum(len(encoding.encode(text, disallowed_special=())) for text in texts)


@functools.cache
def _vocabularies() -> Path | None:
    """Where litellm's package keeps them, found without importing it."""
    found = importlib.util.find_spec("litellm")
    if found is None or not found.submodule_search_locations:
        return None
    folder = Path(found.submodule_search_locations[0]) / "litellm_core_utils" / "tokenizers"
    return folder if folder.is_dir() else None
