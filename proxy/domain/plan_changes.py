"""What differs between two plans, for people and for programs.

A change is `{"path", "from", "to"}`: the path in the written plan, `budgets[monthly-tokens].limit`, and the values
as an admin writes them; null where there was, or is, nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from proxy.domain.policy import Plan
from proxy.domain.written_plans import written_plan

Change = dict[str, Any]

_BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_LONGEST_SHOWN = 60


def plan_changes(before: Plan | None, after: Plan | None) -> list[Change]:
    """What leads from one to the other; None: there was, or is, no such plan. Empty: they say the same."""
    return _changes("", _document(before), _document(after))


def told(change: Change) -> str:
    """A change in a line: `budgets[monthly-tokens].limit: 1,000,000 -> 2,000,000`."""
    return f"{change['path']}: {_shown(change['from'])} -> {_shown(change['to'])}"


def path_of(place: Sequence[str | int]) -> str:
    """Where a value stands in a document: `budgets[0].limit`, `features[max.agents]`."""
    path = ""
    for part in place:
        if isinstance(part, str) and _BARE.fullmatch(part):
            path += f".{part}" if path else part
        else:
            path += f"[{part}]"
    return path


def _document(plan: Plan | None) -> dict[str, Any]:
    return {} if plan is None else written_plan(plan)


def _changes(path: str, before: Any, after: Any) -> list[Change]:
    if _same(before, after):
        return []
    old, new = _parts(before), _parts(after)
    if old is None or new is None:
        return [{"path": path, "from": before, "to": after}]
    # A key that was null is a key that was not there.
    found = [
        change
        for key in [*old, *(key for key in new if key not in old)]
        for change in _changes(_below(path, key, listed=isinstance(after, list)), old.get(key), new.get(key))
    ]
    if isinstance(after, list) and [key for key in old if key in new] != [key for key in new if key in old]:
        found.append({"path": path, "from": list(old), "to": list(new)})
    return found


def _parts(value: Any) -> Mapping[str, Any] | None:
    """What can be compared part by part: an object's keys, or budgets by their ids. None: it is one value."""
    if isinstance(value, dict):
        return value
    if isinstance(value, list):
        parts = {item["id"]: item for item in value if isinstance(item, dict) and isinstance(item.get("id"), str)}
        return parts if len(parts) == len(value) else None
    return None


def _below(path: str, key: str, *, listed: bool) -> str:
    if listed:
        return f"{path}[{key}]"
    below = path_of([key])
    return f"{path}.{below}" if path and not below.startswith("[") else path + below


def _same(one: Any, other: Any) -> bool:
    """JSON's equality: true is not 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _shown(value: Any) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case int():
            return f"{value:,}"
        case list():
            text = "[" + ", ".join(map(_shown, value)) + "]"
        case dict():
            text = "{" + ", ".join(f"{key} = {_shown(item)}" for key, item in value.items()) + "}"
        case _:
            text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 1] + "…"
