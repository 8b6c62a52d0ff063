"""What every verb that speaks to a gate has in common: where the gate is, the token, and how to print."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from proxy.cli.client import CliFault, find_gate

Config = Annotated[
    Path | None,
    typer.Option(
        exists=True, dir_okay=False, help="The gate's config file.  [default: config.toml, if there is one]"
    ),
]
Limit = Annotated[int, typer.Option(min=1, help="How many to list at most.")]
_Url = Annotated[
    str | None,
    typer.Option(help="Where the admin plane is.  [env: FAREGATE_ADMIN_URL; default: http://127.0.0.1:8081]"),
]
_TokenFile = Annotated[
    Path | None,
    typer.Option(help="A file with the admin token.  [env: FAREGATE_ADMIN_TOKEN; default: the one in data.dir]"),
]
_Json = Annotated[bool, typer.Option("--json", help="Print the gate's answer as JSON.")]

_SHARED = [
    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
    for name, annotation, default in (
        ("as_json", _Json, False),
        ("url", _Url, None),
        ("token_file", _TokenFile, None),
        ("config", Config, None),
    )
]


def group(help: str) -> typer.Typer:
    return typer.Typer(help=help, no_args_is_help=True, rich_markup_mode=None)


def verb(app: typer.Typer, name: str) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Makes a function a verb. It takes the `Gate` first and `as_json` by name; the shared options are added.

    What it returns is the gate's answer, printed as JSON if that was asked for.
    """

    def register(act: Callable[..., Any]) -> Callable[..., None]:
        own = list(inspect.signature(act, eval_str=True).parameters.values())[1:]

        @functools.wraps(act)
        def run(
            as_json: bool, url: str | None, token_file: Path | None, config: Path | None, **given: Any
        ) -> None:
            with told():
                act(find_gate(url, token_file, config), as_json, **given)

        own = [parameter for parameter in own if parameter.name != "as_json"]
        run.__signature__ = inspect.Signature([*own, *_SHARED])  # type: ignore[attr-defined]
        return app.command(name)(run)

    return register


class told:  # noqa: N801  # it reads as a word: `with told():`
    """Turns a `CliFault` into its sentence on stderr and its exit code."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, fault: BaseException | None, trace: Any) -> None:
        if isinstance(fault, CliFault):
            from proxy.cli.printing import harmless

            typer.echo(harmless(fault.message), err=True)
            raise typer.Exit(fault.exit_code) from None


def given(**fields: Any) -> dict[str, Any]:
    """The fields that were given a value."""
    return {name: value for name, value in fields.items() if value is not None}


def quoted(id: str) -> str:
    """An id as one segment of a path."""
    from urllib.parse import quote

    return quote(id, safe="")
