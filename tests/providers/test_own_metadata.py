"""What a seller writes down of a run is for the gate alone, where a provider would refuse the call for it."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.domain.asks import Endpoint
from proxy.domain.policy import Model, Target
from proxy.domain.requests import READERS, read_request
from proxy.gateway.ports import Dispatch
from proxy.providers.anthropic_wire import ANTHROPIC_SPEECHES
from proxy.providers.openai_wire import OPENAI_SPEECHES

HELLO = [{"role": "user", "content": "hello"}]
BODY = {"model": "m", "messages": HELLO, "input": "hello", "prompt": "hello", "max_tokens": 9}
SPEECHES = {**OPENAI_SPEECHES, **ANTHROPIC_SPEECHES}
MODEL = Model("m", (Target("up", "m"),), 4_096, 128_000, "max_tokens")
OWN = {"run_id": "r", "step": "s", "anonymous_id": "a"}


def sent(endpoint: Endpoint, metadata: Any) -> Any:
    fields = {
        "messages": ["messages"],
        "completions": ["messages"],
        "responses": ["input"],
        "embeddings": ["input"],
    }
    last = endpoint.rpartition("/")[2]
    names = ["prompt"] if endpoint == "/v1/completions" else fields.get(last, ["messages"])
    body = {name: BODY[name] for name in ("model", *names)}
    if endpoint != "/v1/embeddings":
        body["max_output_tokens" if last == "responses" else "max_tokens"] = 9
    ask = read_request(endpoint, "", {**body, "metadata": metadata}, {}, lambda user: user)
    before = {**metadata}
    made = SPEECHES[endpoint].body(Dispatch("req_1", 0, ask, MODEL, "m", 9))
    assert ask.body["metadata"] == before, "a fallback reads it again"
    return made.get("metadata", "nothing")


def test_every_endpoint_is_spoken() -> None:
    assert SPEECHES.keys() == READERS.keys()


@pytest.mark.parametrize("endpoint", SPEECHES.keys() - {"/v1/responses"})
def test_the_gates_own_words_do_not_go_upstream(endpoint: Endpoint) -> None:
    """OpenAI takes metadata of stored chats alone, of embeddings never; Anthropic knows only the user."""
    assert sent(endpoint, {**OWN}) == "nothing"
    assert sent(endpoint, {**OWN, "user_id": "u"}) == {"user_id": "u"}
    assert sent(endpoint, {"theirs": "x"}) == {"theirs": "x"}


def test_responses_have_metadata_of_the_clients_own_and_say_it_again() -> None:
    """The wire promises to give it back, so all of it goes there."""
    assert sent("/v1/responses", {**OWN, "theirs": "x"}) == {**OWN, "theirs": "x"}
