"""The reference of the data plane is complete: what is missing, or there and gone, is named."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from proxy.domain.policy import Budget, Plan
from proxy.web.api.routes import MODEL, RESPONSE, Routes
from proxy.web.errors import RULES

HOME = Path(__file__).parents[2]
DATA_PLANE = (HOME / "docs/reference/data-plane.md").read_text()
ERRORS = (HOME / "docs/reference/errors.md").read_text()
POLICIES = (HOME / "policies/README.md").read_text()

# Where a code stands in the call that makes the refusal.
CODE_ARGUMENT = {"refuse": 0, "fault": 0, "fault_response": 1, "_refuse": 1, "UpstreamFailed": 1}
ROOMS = ("domain", "gateway", "web", "web/api", "providers")
INTERNAL = {"aborted", "untranslatable"}
"""Kinds of upstream failures that are logged, and never a `code`: each comes with another."""


def test_every_route_has_its_line_and_every_line_its_route() -> None:
    """An agent's developer reads the page, not the table in the source."""
    table: Any = Routes(None, None, None, None)._table  # type: ignore[arg-type]
    routes = {f"{method} {path}" for path, methods in table.items() for method in methods}
    described = set(re.findall(r"^\| `([A-Z]+ /\S+)`", DATA_PLANE, re.MULTILINE))
    below = {f"GET {MODEL}{{id}}", f"GET {RESPONSE}{{id}}", f"DELETE {RESPONSE}{{id}}"}
    assert described == routes | below


def test_every_header_is_named() -> None:
    """Those that the gate reads, and those that it writes."""
    source = "".join(path.read_text() for path in sources("domain", "gateway", "web/api"))
    headers = set(re.findall(r'"(faregate-[a-z-]+)"', source)) | {"x-request-id", "x-api-key", "x-goog-api-key"}
    assert len(headers) > 8
    assert {header for header in headers if f"`{header}`" not in DATA_PLANE} == set()


def test_every_error_code_has_its_line_and_every_line_its_code() -> None:
    """Programs branch on codes, so they are part of the contract."""
    known = codes() | {rule.code for rule in RULES.values() if rule.code} - {"bad_request", "upstream_error"}
    documented = {
        code
        for row in re.findall(r"^\| (?:[^|]*) \|([^|]*)\|", ERRORS, re.MULTILINE)
        for code in re.findall(r"`(\w+)`", row)
        if code != "code"
    }
    assert len(known) > 40
    assert known - documented - INTERNAL == set()
    assert documented - known == set()


def test_every_reason_has_its_type() -> None:
    """The `type` is what a few clients look at before the code."""
    assert {rule.type for rule in RULES.values() if f"`{rule.type}`" not in ERRORS} == set()


def test_every_key_of_the_policy_files_is_explained() -> None:
    """A plan key that nobody can find does not exist."""
    source = "".join(
        (HOME / f"proxy/policy_files/{name}.py").read_text() for name in ("plans", "budgets", "catalogue")
    )
    keys = set(re.findall(r'\b(?:table|root|entry)\.\w+\(\s*"(\w+)"', source))
    assert len(keys) > 25
    keys |= {field.name for kind in (Plan, Budget) for field in fields(kind)} - {"version"}
    assert {key for key in keys if not re.search(rf"\b{key}\b", POLICIES)} == set()


def sources(*rooms: str) -> Iterator[Path]:
    for room in rooms:
        yield from sorted((HOME / "proxy" / room).glob("*.py"))


def codes() -> set[str]:
    """Every code that a refusal can be made with, read from the calls that make one."""
    found: set[str] = set()
    for room in ROOMS:
        for path in sources(room):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    found |= set(codes_of(node, room))
                elif isinstance(node, ast.FunctionDef) and node.name == "_meaning":
                    found |= {first for each in ast.walk(node) for first in first_of_tuple(each)}
    return found


def codes_of(call: ast.Call, room: str) -> Iterator[str]:
    name = getattr(call.func, "id", getattr(call.func, "attr", ""))
    # The gateway's `fault` counts what went wrong inside, and answers nobody.
    if name in CODE_ARGUMENT and room != "gateway":
        yield from texts(call.args[CODE_ARGUMENT[name] : CODE_ARGUMENT[name] + 1])
    yield from texts([keyword.value for keyword in call.keywords if keyword.arg == "code"])


def first_of_tuple(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
        yield from texts(node.value.elts[:1])


def texts(nodes: list[ast.expr]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
