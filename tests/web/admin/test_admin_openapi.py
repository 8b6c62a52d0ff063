"""The OpenAPI document says what the listener does."""

from __future__ import annotations

from typing import Any

from jsonschema import Draft202012Validator

from proxy.web.admin import admin_app
from proxy.web.admin.app import ROUTES
from proxy.web.admin.openapi import document
from tests.doubles.admin import AdminPlane

DOCUMENT = document(ROUTES)


def test_every_route_of_the_listener_is_described_and_nothing_else() -> None:
    """A document that drifts is worse than none."""
    served = {
        (route.method, route.resource.canonical)
        for route in admin_app(AdminPlane().deps()).router.routes()
        if route.method != "HEAD" and route.resource is not None
    }
    described = {(m.upper(), path) for path, operations in DOCUMENT["paths"].items() for m in operations}

    assert served == described


def test_every_reference_leads_somewhere_and_every_schema_is_one() -> None:
    """Generators of clients stop at the first dangling reference."""
    schemas = DOCUMENT["components"]["schemas"]
    for reference in references(DOCUMENT):
        assert reference.removeprefix("#/components/schemas/") in schemas
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)


def references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [found for item in node for found in references(item)]
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [found for value in node.values() for found in references(value)]
    return []


def test_operations_have_names_of_their_own() -> None:
    """Generated clients name their methods by them."""
    names = [op["operationId"] for operations in DOCUMENT["paths"].values() for op in operations.values()]

    assert len(names) == len(set(names))


def test_parameters_and_bodies_are_those_that_are_checked() -> None:
    """The document is made from the classes that refuse."""
    events = DOCUMENT["paths"]["/admin/v1/usage-events"]["get"]
    names = {parameter["name"] for parameter in events["parameters"]}
    changes = DOCUMENT["components"]["schemas"]["CustomerChanges"]

    assert {"customer_id", "from", "to", "limit", "cursor", "status"} <= names
    assert changes["additionalProperties"] is False
    assert "default" not in changes["properties"]["name"]


async def test_it_is_served(client: Any) -> None:
    """Where DESIGN 5.5 says."""
    assert (await client.ask("GET", "/openapi.json")).json == DOCUMENT
