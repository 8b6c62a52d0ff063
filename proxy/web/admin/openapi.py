"""The OpenAPI 3.1 document, made from the very table and classes that the listener serves by."""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from proxy import __version__
from proxy.web.admin.answers import Error, Listed
from proxy.web.admin.routes import Route
from proxy.web.admin.values import ID_PATTERN

_REF = "#/components/schemas/{model}"
_Key = tuple[type[BaseModel], Literal["validation", "serialization"]]


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """OpenAPI 3.1 for `routes`."""
    table = tuple(routes)
    refs, components = models_json_schema(_models(table), ref_template=_REF)
    schemas = components["$defs"]
    paths: dict[str, dict[str, Any]] = {}
    conditional = {route.path for route in table if route.reads and route.tagged}
    for route in table:
        operation = _operation(route, refs, route.path in conditional)
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Faregate admin API",
            "version": __version__,
            "description": "Customers, agents, secrets, plans and usage. Lists take `limit` and `cursor`; writes"
            " take `Idempotency-Key`, and `If-Match` where a GET at the same place gives an ETag.",
        },
        "security": [{"adminToken": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"adminToken": {"type": "http", "scheme": "bearer"}},
        },
    }


def _models(routes: Iterable[Route]) -> list[_Key]:
    keys: dict[_Key, None] = {(Error, "serialization"): None}
    for route in routes:
        if route.body:
            keys[route.body, "validation"] = None
        if answer := _answer_model(route):
            keys[answer, "serialization"] = None
    return list(keys)


def _answer_model(route: Route) -> type[BaseModel] | None:
    if route.answer is None or not route.listed:
        return route.answer
    return Listed[route.answer]  # type: ignore[name-defined]  # mypy sees no class in a value


def _operation(route: Route, refs: dict[Any, dict[str, Any]], conditional: bool) -> dict[str, Any]:
    least = "" if route.open else f" Takes the role `{route.role}`."
    operation: dict[str, Any] = {
        "operationId": route.handler.__name__,
        "summary": route.summary,
        "description": route.summary + least,
        "parameters": [
            *_path_parameters(route.path),
            *_query_parameters(route),
            *_header_parameters(route, conditional),
        ],
        "responses": _responses(route, refs, conditional),
    }
    if route.body:
        schema = refs[route.body, "validation"]
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    if route.open:
        operation["security"] = []
    return operation


def _path_parameters(path: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "pattern": ID_PATTERN}}
        for name in re.findall(r"\{(\w+)\}", path)
    ]


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    properties = route.query.model_json_schema().get("properties", {})
    return [
        {"name": name, "in": "query", "required": False, "schema": _without_null(schema)}
        for name, schema in properties.items()
    ]


def _header_parameters(route: Route, conditional: bool) -> list[dict[str, Any]]:
    if route.open:
        return []
    if route.reads:
        named = ["If-None-Match"] if route.tagged and not route.volatile else []
    else:
        named = ["Idempotency-Key", *(["If-Match"] if _conditional(route, conditional) else [])]
    return [{"name": name, "in": "header", "required": False, **_HEADERS[name]} for name in named]


def _conditional(route: Route, conditional: bool) -> bool:
    return conditional and route.method in ("PATCH", "PUT", "DELETE")


_TAGS = r'^(\*|(W/)?"[!#-~]*"(, (W/)?"[!#-~]*")*)$'
_HEADERS: dict[str, dict[str, Any]] = {
    "Idempotency-Key": {
        "description": "Sent twice, the write is done once, and the first answer given again for 24 hours.",
        "schema": {"type": "string", "pattern": r"^[!-~]([ -~]{0,253}[!-~])?$"},
    },
    "If-Match": {
        "description": "The ETag of what is to be changed; if it has changed meanwhile: 412.",
        "schema": {"type": "string", "pattern": _TAGS},
    },
    "If-None-Match": {
        "description": "The ETag of what is known already; if it is the same still: 304.",
        "schema": {"type": "string", "pattern": _TAGS},
    },
}


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter is absent, never null: the schema of what may stand there."""
    choices = [choice for choice in schema.get("anyOf", []) if choice != {"type": "null"}]
    kept = {key: value for key, value in schema.items() if key not in ("anyOf", "title")}
    if kept.get("default", "") is None:
        del kept["default"]
    return {**choices[0], **kept} if choices else kept


def _responses(route: Route, refs: dict[Any, dict[str, Any]], conditional: bool) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": route.summary}
    if route.tagged:
        answer["headers"] = {"ETag": {"description": "Of what this answers.", "schema": {"type": "string"}}}
    if model := _answer_model(route):
        answer["content"] = {"application/json": {"schema": refs[model, "serialization"]}}
    elif route.status != HTTPStatus.NO_CONTENT:
        answer["content"] = {route.media: {"schema": {"type": "string"}}}
    error = {"application/json": {"schema": refs[Error, "serialization"]}}
    refusals = {
        str(status): {"description": HTTPStatus(status).phrase, "content": error}
        for status in errors_of(route, conditional)
    }
    if route.reads and route.tagged and not route.volatile:
        refusals["304"] = {"description": "It is what `If-None-Match` names."}
    return {str(route.status): answer, **refusals}


def errors_of(route: Route, conditional: bool) -> list[int]:
    """Every status with which a route may refuse: its own, and those of its kind."""
    statuses = {*route.errors, 400, 500}
    if not route.open:
        statuses |= {401, 403, 429, 503}
    if not route.reads:
        statuses |= {409, 422}
    if _conditional(route, conditional):
        statuses |= {412}
    if route.body:
        statuses |= {408, 413, 415}
    return sorted(statuses)
