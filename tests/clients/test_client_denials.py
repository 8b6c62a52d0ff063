"""What the user of each client library meets when the gate refuses, and how often the library asks again."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from tests.clients.conftest import Said, Stage
from tests.clients.speakers import ENDPOINTS, model_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

# The name that user code may give to `except` or `instanceof`, by client and status.
CLASSES: dict[str, dict[int, str]] = {
    "openai-python": {
        400: "BadRequestError",
        401: "AuthenticationError",
        402: "APIStatusError",
        403: "PermissionDeniedError",
        404: "NotFoundError",
        429: "RateLimitError",
        503: "InternalServerError",
    },
    "openai-node": {
        400: "BadRequestError",
        401: "AuthenticationError",
        402: "APIError",
        403: "PermissionDeniedError",
        404: "NotFoundError",
        429: "RateLimitError",
        503: "InternalServerError",
    },
    "anthropic-python": {
        400: "BadRequestError",
        401: "AuthenticationError",
        402: "PaymentRequiredError",
        403: "PermissionDeniedError",
        404: "NotFoundError",
        429: "RateLimitError",
        503: "ServiceUnavailableError",
    },
    "pydantic-ai": {
        400: "ModelQuotaExceededError",
        401: "ModelAuthenticationError",
        402: "ModelQuotaExceededError",
        403: "ModelAuthenticationError",
        404: "ModelNotFoundError",
        429: "ModelRateLimitError",
        503: "ModelUnavailableError",
    },
    "litellm": {
        400: "BadRequestError",
        401: "BadRequestError",
        402: "APIError",
        403: "APIError",
        404: "NotFoundError",
        429: "RateLimitError",
        503: "ServiceUnavailableError",
    },
    "ai-sdk": dict.fromkeys((400, 401, 402, 403, 404, 429, 503), "APICallError"),
}
CLASSES["anthropic-typescript"] = CLASSES["anthropic-python"]
# Both are openai-python to their users, who catch its classes.
CLASSES["openai-agents"] = CLASSES["openai-python"]
CLASSES["langchain-openai"] = CLASSES["openai-python"]
for name in ("openai", "openai-compatible", "anthropic"):
    CLASSES[f"ai-sdk-{name}"] = CLASSES["ai-sdk"]

# These hand on the `code` of the body; on messages there is none, and LiteLLM keeps it in few cases only.
WITHOUT_CODE = ("litellm",)
ASKS_AGAIN = 3

# Plan, model, output limit -> status, code, a part of the sentence.
BUDGETS: dict[str, tuple[str, str | None, int | None, int, str, str]] = {
    "spent": ("one-call", None, None, 402, "insufficient_quota", "Dear Once customer: you have had your 1 call."),
    "told as 400": ("told-as-400", None, 4096, 400, "insufficient_quota", "This request may use 4,"),
    "too large": ("tiny", None, 4096, 402, "insufficient_quota", "Dear Tiny customer: 4,"),
}
OTHERS: dict[str, tuple[str, str | None, int | None, int, str, str]] = {
    "bad secret": (
        "starter",
        None,
        None,
        401,
        "invalid_api_key",
        "The agent secret is missing, malformed",
    ),
    "not allowed": ("small-only", "large", None, 403, "model_not_allowed", "large"),
    "not found": ("starter", "nope", None, 404, "model_not_found", "nope"),
}
UNCONFIGURED = ("starter", "unkeyed", None, 503, "upstream_not_configured", "has no API key configured")


async def denied(
    stage: Stage, client: str, endpoint: str, case: str, why: tuple[str, str | None, int | None, int, str, str]
) -> Said:
    """A call that must be refused for that reason."""
    plan, model, limit, status, _, _ = why
    _, secret = await stage.customer(plan)
    if plan == "one-call":
        assert (await stage.gate.chat(secret)).status == 200
        stage.upstream.forget()
    if status == 401:
        secret = "fg_live_nobody"
    return await stage.call(client, endpoint, case, secret, model=model or model_of(client, endpoint), limit=limit)


def innermost(error: dict[str, Any]) -> dict[str, Any]:
    """The last refusal, of which the AI SDK's RetryError tells."""
    return error["last"] if error.get("last") else error


def assert_told(client: str, endpoint: str, error: dict[str, Any], status: int, code: str, sentence: str) -> None:
    error = innermost(error)
    assert CLASSES[client][status] in error["kinds"]
    assert error["status"] == status
    assert sentence in error["message"]
    if endpoint != "messages" and client not in WITHOUT_CODE:
        assert error["code"] == code


@pytest.mark.parametrize("why", [*BUDGETS, *OTHERS])
@pytest.mark.parametrize("case", ["plain", "streamed"])
@pytest.mark.parametrize(("client", "endpoint"), ENDPOINTS)
async def test_a_refusal_is_the_clients_own_exception_and_one_request(
    stage: Stage, client: str, endpoint: str, case: str, why: str
) -> None:
    """A client at its defaults that repeats a refusal makes a storm of what was a sentence."""
    reason = (BUDGETS | OTHERS)[why]
    said = await denied(stage, client, endpoint, case, reason)
    assert_told(client, endpoint, said.refused(), *reason[3:])
    assert len(said.requests) == 1
    assert stage.upstream.calls == []


async def test_what_the_operator_must_mend_is_told_and_bounded(stage: Stage) -> None:
    """x-should-retry stops every library that reads it; the AI SDK does not, and gives up after three."""

    async def one(client: str, endpoint: str, case: str) -> None:
        said = await denied(stage, client, endpoint, case, UNCONFIGURED)
        assert_told(client, endpoint, said.refused(), *UNCONFIGURED[3:])
        assert len(said.requests) == (ASKS_AGAIN if client.startswith("ai-sdk") else 1), client

    async with asyncio.TaskGroup() as all_at_once:
        for each in ENDPOINTS:
            for case in ("plain", "streamed"):
                all_at_once.create_task(one(*each, case))
    assert stage.upstream.calls == []


async def test_a_rate_limit_is_asked_again_but_not_for_ever(stage: Stage) -> None:
    """Of all denials this one passes, so libraries wait as long as Retry-After says, three times in all."""
    secrets = [(await stage.customer("one-at-once"))[1] for _ in ENDPOINTS]
    stage.upstream.hold()
    held = [asyncio.create_task(stage.gate.chat(secret)) for secret in secrets]
    await stage.upstream.arrived(len(secrets))

    async def one(client: str, endpoint: str, secret: str) -> None:
        said = await stage.call(client, endpoint, "plain", secret, model=model_of(client, endpoint))
        assert_told(client, endpoint, said.refused(), 429, "rate_limit_exceeded", "as many as your plan allows")
        moments = [request.at for request in said.requests]
        assert len(moments) == ASKS_AGAIN, client
        waits = [after - before for before, after in itertools.pairwise(moments)]
        assert min(waits) >= 0.9, client

    async with asyncio.TaskGroup() as all_at_once:
        for each, secret in zip(ENDPOINTS, secrets, strict=True):
            all_at_once.create_task(one(*each, secret))
    stage.upstream.release()
    assert {answer.status for answer in await asyncio.gather(*held)} == {200}
    client, endpoint = ENDPOINTS[0]
    (await stage.call(client, endpoint, "plain", secrets[0])).well()
