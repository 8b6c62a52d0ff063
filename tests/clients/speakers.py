"""Which endpoints each client speaks, and the models of the gate that they are tried with."""

from __future__ import annotations

Speaker = tuple[str, str, str]
"""Client, endpoint, model."""

# With the model whose upstream has that endpoint itself.
NATIVE: list[Speaker] = [
    ("openai-python", "chat", "small"),
    ("openai-python", "responses", "small"),
    ("openai-node", "chat", "small"),
    ("openai-node", "responses", "small"),
    ("anthropic-python", "messages", "claude"),
    ("anthropic-typescript", "messages", "claude"),
    ("langchain-openai", "chat", "small"),
    ("langchain-openai", "responses", "small"),
    ("pydantic-ai", "chat", "small"),
    ("pydantic-ai", "responses", "small"),
    ("pydantic-ai", "messages", "claude"),
    ("openai-agents", "chat", "small"),
    ("openai-agents", "responses", "small"),
    ("ai-sdk-openai", "chat", "small"),
    ("ai-sdk-openai", "responses", "small"),
    ("ai-sdk-openai-compatible", "chat", "small"),
    ("ai-sdk-anthropic", "messages", "claude"),
    ("litellm", "chat", "small"),
]
# With a model whose upstream has another wire.
CROSSED: list[Speaker] = [
    ("openai-python", "chat", "claude"),
    ("openai-python", "responses", "claude"),
    ("openai-python", "responses", "chat-only"),
    ("openai-node", "responses", "chat-only"),
    ("openai-agents", "responses", "chat-only"),
    ("pydantic-ai", "responses", "chat-only"),
    ("ai-sdk-openai", "responses", "chat-only"),
    ("ai-sdk-openai-compatible", "chat", "claude"),
    ("anthropic-python", "messages", "small"),
    ("anthropic-typescript", "messages", "small"),
    ("ai-sdk-anthropic", "messages", "small"),
]
EMBEDDING = [
    "openai-python",
    "openai-node",
    "langchain-openai",
    "pydantic-ai",
    "ai-sdk-openai",
    "ai-sdk-openai-compatible",
    "litellm",
]
ENDPOINTS = [(client, endpoint) for client, endpoint, _ in NATIVE]


def model_of(client: str, endpoint: str) -> str:
    """The model whose upstream has that endpoint itself."""
    return next(model for who, where, model in NATIVE if (who, where) == (client, endpoint))
