"""The reference of the admin plane and of the command line is complete: what is missing is named."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from typer.main import get_command

from proxy.cli.root import app
from proxy.domain.accounts import AGENT_KINDS
from proxy.web.admin.app import ROUTES
from proxy.web.admin.bodies import GROUPS

HOME = Path(__file__).parents[2]
API = (HOME / "docs/reference/admin-api.md").read_text()
CLI = (HOME / "docs/reference/cli.md").read_text()
ADMIN = HOME / "proxy/web/admin"


def test_every_route_has_its_line_and_every_line_its_route() -> None:
    """Whoever reads the page must not miss a route, nor look for one that is gone."""
    described = set(re.findall(r"^\| `([A-Z]+ /\S+)`", API, re.MULTILINE))

    assert described == {f"{route.method} {route.path}" for route in ROUTES}


def test_every_field_filter_group_and_kind_is_named() -> None:
    """What may be sent is on the page."""
    sent = {name for route in ROUTES for name in (route.body.model_fields if route.body else ())}
    asked = {field.alias or name for route in ROUTES for name, field in route.query.model_fields.items()}

    assert {word for word in {*sent, *asked, *GROUPS, *AGENT_KINDS} if not re.search(rf"\b{word}\b", API)} == set()


def test_every_error_code_has_its_line() -> None:
    """Programs branch on codes, so they are part of the contract."""
    source = "".join(path.read_text() for path in sorted(ADMIN.glob("*.py")))
    calls = r"(?:AdminError\(\s*\d+,\s*|bad_request\(\s*)\"(\w+)\""
    codes = set(re.findall(calls, source)) - {"bad_request"}

    assert len(codes) > 10
    assert {code for code in codes if f"`{code}`" not in API} == set()


def verbs(command: Any, above: str) -> dict[str, Any]:
    below = getattr(command, "commands", None)
    if below is None:
        return {above: command}
    return {verb: held for name, inner in below.items() for verb, held in verbs(inner, f"{above} {name}").items()}


def test_every_verb_has_its_line_and_every_line_its_verb() -> None:
    """The page is the map of the command line."""
    described = {
        re.sub(r" \[?[A-Z]+\]?", "", words) for words in re.findall(r"^\| `(faregate[^`]*)`", CLI, re.MULTILINE)
    }

    assert described == set(verbs(get_command(app), "faregate"))


def test_every_option_is_named() -> None:
    """`--help` and the page tell the same."""
    options = {
        name
        for command in verbs(get_command(app), "faregate").values()
        for parameter in command.params
        for name in parameter.opts
        if name.startswith("--")
    }

    assert {name for name in options if not re.search(rf"{name}\b", CLI)} - {"--help"} == set()
