"""Prints answers for people (tables) or programs (JSON)."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import typer

Column = tuple[str, str]
"""A heading, and the key of the value below it."""

_WIDTH_IN_PIPES = 200


def harmless(text: str) -> str:
    """Text without control characters: what an agent calls its step must not steer the admin's terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def print_json(answer: Any) -> None:
    typer.echo(json.dumps(answer, indent=2, ensure_ascii=False))


def print_listed(answer: Mapping[str, Any], columns: Sequence[Column], nothing: str, as_json: bool) -> None:
    """A list as a table, or the sentence that says that it is empty."""
    if as_json:
        print_json(answer)
    elif not answer["data"]:
        typer.echo(nothing)
    else:
        print_table(answer["data"], columns)
        if answer["next_cursor"] is not None:
            typer.echo("There are more; --limit says how many to list.", err=True)


def print_table(rows: Iterable[Mapping[str, Any]], columns: Sequence[Column]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    held = list(rows)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading, key in columns:
        counts = any(_is_count(row.get(key)) for row in held)
        table.add_column(heading, justify="right" if counts else "left", overflow="fold")
    for row in held:
        table.add_row(*(Text(cell(row.get(key))) for _, key in columns))
    console().print(table)


def print_facts(answer: Mapping[str, Any], facts: Sequence[Column]) -> None:
    """One thing, a fact per line; what is not known is left out."""
    width = max(len(name) for name, _ in facts)
    for name, key in facts:
        if answer.get(key) not in (None, ""):
            typer.echo(f"{name:<{width}}  {cell(answer[key])}")


def print_checks(answer: Mapping[str, Any]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in ("", "check", "seen", "expected"):
        table.add_column(heading, overflow="fold")
    for check in answer["checks"]:
        mark = Text("ok", style="green") if check["ok"] else Text("FAILED", style="bold red")
        texts = (Text(cell(check.get(key))) for key in ("id", "seen", "expected"))
        table.add_row(mark, *texts)
    console().print(table)


def cell(value: Any) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case list():
            return ", ".join(cell(item) for item in value) or "-"
        case dict():
            return ", ".join(f"{name}: {cell(item)}" for name, item in value.items()) or "-"
        case _:
            return harmless(str(value))


def console(stderr: bool = False) -> Any:
    """A console that takes text as it is: no markup, no emoji; colours only on a terminal without NO_COLOR."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    fixed = None if stream.isatty() or "COLUMNS" in os.environ else _WIDTH_IN_PIPES
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, width=fixed)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
