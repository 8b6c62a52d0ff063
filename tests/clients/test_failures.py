"""What the user of each client library meets when the provider fails in the middle of an answer."""

from __future__ import annotations

import pytest

from proxy.demo.scripts import Script
from tests.clients.conftest import Said, Stage
from tests.clients.speakers import CROSSED, NATIVE

pytestmark = pytest.mark.asyncio(loop_scope="session")

# Slow enough that what was said before the failure has been delivered when it comes.
PACE_S = 0.02
# A native wire passes the provider's own sentence on; a translated answer has the gate's.
SENTENCES = ("As the script says.", "in the middle of its answer.")
# A library that hands out the events of a stream one by one leaves it to user code to look at the last of them.
HANDS_OUT_EVENTS = [("openai-python", "responses"), ("openai-node", "responses")]
CLASSES = {
    ("openai-python", "chat"): "APIError",
    ("openai-node", "chat"): "APIError",
    ("anthropic-python", "messages"): "APIStatusError",
    ("anthropic-typescript", "messages"): "APIError",
    ("langchain-openai", "chat"): "APIError",
    ("langchain-openai", "responses"): "ValueError",
    ("pydantic-ai", "chat"): "ModelServerError",
    ("pydantic-ai", "responses"): "ModelServerError",
    ("pydantic-ai", "messages"): "ModelOverloadedError",
    ("openai-agents", "chat"): "APIError",
    ("openai-agents", "responses"): "ModelBehaviorError",
    ("ai-sdk-openai", "chat"): "StreamProviderError",
    ("ai-sdk-openai", "responses"): "StreamProviderError",
    ("ai-sdk-openai-compatible", "chat"): "StreamProviderError",
    ("ai-sdk-anthropic", "messages"): "StreamProviderError",
    ("litellm", "chat"): "MidStreamFallbackError",
}


def assert_told(client: str, endpoint: str, said: Said) -> None:
    """The user has read why there is no whole answer."""
    if (client, endpoint) in HANDS_OUT_EVENTS:
        result = said.well()
        assert result["finish"] == "response.failed"
        message = result["failure"]["message"]
    else:
        message = said.refused()["message"]
    assert any(sentence in message for sentence in SENTENCES), message


async def assert_served_again(stage: Stage, client: str, endpoint: str, model: str, secret: str) -> None:
    """Also, a success in between keeps the gate from giving the upstream a rest."""
    stage.upstream.forget()
    (await stage.call(client, endpoint, "plain", secret, model=model)).well()


@pytest.mark.parametrize(("client", "endpoint", "model"), NATIVE + CROSSED)
async def test_an_error_in_the_stream_is_an_exception_and_no_second_call(
    stage: Stage, client: str, endpoint: str, model: str
) -> None:
    """Half an answer must not pass for a whole one, and asking again by itself would be paid twice."""
    id, secret = await stage.customer()
    stage.upstream.script(Script(error_after=3, chunk_delay_s=PACE_S))
    said = await stage.call(client, endpoint, "streamed", secret, model=model)
    [event] = await stage.gate.events(1, customer_id=id)
    assert (event["status"], event["billable"]) == ("failed", False)
    assert event["error_type"] in ("error_in_stream", "upstream_server_error")
    assert (len(said.requests), len(stage.upstream.calls)) == (1, 1)
    assert_told(client, endpoint, said)
    if (client, endpoint) not in HANDS_OUT_EVENTS:
        assert CLASSES[client, endpoint] in said.refused()["kinds"]
    await assert_served_again(stage, client, endpoint, model, secret)


@pytest.mark.parametrize(("client", "endpoint", "model"), NATIVE + CROSSED)
async def test_an_answer_that_broke_off_is_told_as_such_and_never_taken_for_a_whole_one(
    stage: Stage, client: str, endpoint: str, model: str
) -> None:
    """The provider's connection breaks: whatever a library calls that, its user must not believe it whole."""
    id, secret = await stage.customer()
    stage.upstream.script(Script(breaks_after_bytes=2500, output_tokens=40, chunk_delay_s=PACE_S))
    said = await stage.call(client, endpoint, "streamed", secret, model=model)
    assert_told(client, endpoint, said)
    assert (len(said.requests), len(stage.upstream.calls)) == (1, 1)
    [event] = await stage.gate.events(1, customer_id=id)
    assert (event["status"], event["error_type"], event["billable"]) == ("failed", "upstream_reset", False)
    await assert_served_again(stage, client, endpoint, model, secret)
