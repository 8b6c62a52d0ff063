"""A plan -> the text of its file: what `read_plan` makes the same plan of. Comments are nobody's to keep."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from proxy.domain.policy import Plan
from proxy.domain.written_plans import shortest_plan
from proxy.settings import TomlText, read_toml

ASIDE = ".adopted"
"""What a plan file's name gets at its end when the store has become the plan's owner: it is then read no more."""

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def plan_toml(plan: Plan) -> str:
    """Keys at their defaults are left out; tables come behind the keys, budgets last."""
    document = shortest_plan(plan)
    plain = {key: value for key, value in document.items() if not _is_table(value)}
    parts = ["".join(f"{_key(key)} = {_value(value)}\n" for key, value in plain.items())]
    for key, value in document.items():
        if isinstance(value, dict) and value:
            parts.append(_table(f"[{_key(key)}]", value))
    for key, value in document.items():
        if isinstance(value, list) and _is_table(value):
            parts += [_table(f"[[{_key(key)}]]", item) for item in value]
    return "\n".join(parts)


def write_plan(path: Path, plan: Plan) -> None:
    """Puts the file in place whole, under its name or not at all; raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Hidden files are no plans, so nobody reads it before it is whole.
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("w", encoding="utf-8", newline="\n") as file:
            file.write(plan_toml(plan))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def put_aside(path: Path) -> Path:
    """Renames a plan's file, so that it is read no more and nothing of it is lost; raises `OSError`."""
    aside = path.with_name(path.name + ASIDE)
    path.replace(aside)
    return aside


def adopted(directory: Path) -> list[str]:
    """The plans that the store has taken over, by the files that were put aside: all that files know of it."""
    texts = (read_toml(path) for path in sorted(directory.glob(f"*/*{ASIDE}")))
    return [str(text.data.get("id")) for text in texts if isinstance(text, TomlText)]


def _is_table(value: Any) -> bool:
    """Budgets are written as tables; a seller's own lists of tables stay within their feature."""
    return isinstance(value, dict) or (isinstance(value, list) and value != [] and isinstance(value[0], dict))


def _table(header: str, table: Mapping[str, Any]) -> str:
    return f"{header}\n" + "".join(f"{_key(key)} = {_value(value)}\n" for key, value in table.items())


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _text(key)


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return f"{value:_}" if abs(value) >= 100_000 else str(value)
        case str():
            return _text(value)
        case list():
            return "[" + ", ".join(map(_value, value)) + "]"
        case dict():
            return "{ " + ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items()) + " }"
    raise TypeError(f"{type(value).__name__} has no form in a plan file")


def _text(text: str) -> str:
    """TOML's escapes are JSON's, and DEL as well."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
