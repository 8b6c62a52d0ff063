"""The catalogue of agent types, the customers' agents, and the secrets that let them in."""

from __future__ import annotations

from typing import Any

from proxy.billing.ports import NotFound, Page
from proxy.domain.accounts import Agent, AgentSecret, AgentType
from proxy.web.admin import answers, bodies
from proxy.web.admin.errors import bad_request
from proxy.web.admin.reading import sliced
from proxy.web.admin.routes import PREFIX, Asked, Route


async def create_agent_type(asked: Asked) -> AgentType:
    return await asked.accounts.create_agent_type(_fields(asked))


async def list_agent_types(asked: Asked) -> Page[AgentType]:
    return await asked.deps.accounts.agent_types(asked.query.limit, asked.query.cursor)


async def create_agent(asked: Asked) -> Agent:
    return await asked.accounts.create_agent(_fields(asked))


async def list_agents(asked: Asked) -> Page[Agent]:
    query = asked.query
    return await asked.deps.accounts.agents(query.limit, query.cursor, query.customer_id)


async def get_agent(asked: Asked) -> Agent:
    return await asked.deps.accounts.agent(asked.path["agent_id"])


async def create_secret(asked: Asked) -> dict[str, Any]:
    expires_at = asked.body.expires_at
    if expires_at is not None and expires_at <= asked.deps.now():
        raise bad_request("invalid_value", "The field 'expires_at' is wrong: it is in the past.", "expires_at")
    secret_id, text, digest = asked.deps.make_secret()
    kept = await asked.accounts.create_secret(asked.path["agent_id"], secret_id, digest, expires_at)
    return {
        "id": kept.id,
        "secret": text,
        "agent_id": kept.agent_id,
        "created_at": kept.created_at,
        "expires_at": kept.expires_at,
    }


async def list_secrets(asked: Asked) -> Page[AgentSecret]:
    secrets = await asked.deps.accounts.secrets(asked.path["agent_id"])
    return sliced(secrets, lambda secret: secret.id, asked.query.limit, asked.query.cursor)


async def get_secret(asked: Asked) -> AgentSecret:
    id = asked.path["secret_id"]
    for secret in await asked.deps.accounts.secrets(asked.path["agent_id"]):
        if secret.id == id:
            return secret
    raise NotFound("secret", id)


async def revoke_secret(asked: Asked) -> None:
    await asked.accounts.revoke_secret(asked.path["agent_id"], asked.path["secret_id"])


def _fields(asked: Asked) -> dict[str, Any]:
    fields: dict[str, Any] = asked.body.model_dump()
    if fields["id"] is None:
        del fields["id"]
    return fields


_TYPES = f"{PREFIX}/agent-types"
_ALL = f"{PREFIX}/agents"
_ONE = f"{PREFIX}/agents/{{agent_id}}"

ROUTES = (
    Route(
        "POST", _TYPES, create_agent_type, "Add an agent type to the catalogue.", answers.AgentType, 201,
        body=bodies.NewAgentType, errors=(409,),
    ),
    Route(
        "GET", _TYPES, list_agent_types, "List the agent types.", answers.AgentType,
        query=bodies.PageQuery, listed=True,
    ),
    Route(
        "POST", _ALL, create_agent, "Make an agent of a type for a customer.", answers.Agent, 201,
        body=bodies.NewAgent, errors=(409,),
    ),
    Route(
        "GET", _ALL, list_agents, "List the agents, of one customer or of all.", answers.Agent,
        query=bodies.AgentsQuery, listed=True,
    ),
    Route("GET", _ONE, get_agent, "Show an agent.", answers.Agent, errors=(404,)),
    Route(
        "POST", f"{_ONE}/secrets", create_secret, "Make an agent secret; it is shown this once.",
        answers.CreatedSecret, 201, body=bodies.NewSecret, errors=(404,), reveals=True,
    ),
    Route(
        "GET", f"{_ONE}/secrets", list_secrets, "List an agent's secrets, without the secrets themselves.",
        answers.AgentSecret, query=bodies.PageQuery, listed=True, errors=(404,),
    ),
    Route(
        "GET", f"{_ONE}/secrets/{{secret_id}}", get_secret, "Show a secret, without the secret itself.",
        answers.AgentSecret, errors=(404,),
    ),
    Route(
        "DELETE", f"{_ONE}/secrets/{{secret_id}}", revoke_secret,
        "Revoke a secret; answered once the gate refuses it everywhere.", status=204, errors=(404,),
    ),
)  # fmt: skip
