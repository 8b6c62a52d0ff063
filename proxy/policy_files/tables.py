"""A table as an admin wrote it, in TOML or JSON, read key by key: every fault is noted, and none hides another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from proxy.settings import nearest
from proxy.settings.toml_text import Place

# Sums of counters stay exact in Redis, whose numbers are doubles, far beyond this.
WHOLE_MOST = 10**15


Note = Callable[[Place, str], None]
"""Takes a fault: where in the document it is, and the sentence. Whoever knows the document tells the place."""


class Table:
    """One table. A method reads a key, notes what is wrong with it, and then goes on with the default."""

    def __init__(self, values: dict[str, Any], note: Note, place: Place = ()) -> None:
        self.values = values
        self.place = place
        self._note = note
        self._known: list[str] = []

    def fault(self, message: str, *place: str | int) -> None:
        self._note((*self.place, *place), message)

    def text(self, key: str, default: str) -> str:
        value = self._get(key, default)
        if isinstance(value, str):
            if unkept(value):
                self.fault(f"`{key}` holds a control character; only text can be kept", key)
            return value
        self.fault(f"`{key}` must be text in quotes, not {shown(value)}", key)
        return default

    def needed(self, key: str, example: str) -> str | None:
        """Text that has no default; None if it is missing or no text."""
        value = self._get(key, None)
        if value is None:
            self.fault(f'`{key}` is missing; write for example {key} = "{example}"')
        elif isinstance(value, str) and value.strip():
            return value
        else:
            self.fault(f'`{key}` must be text, such as {key} = "{example}", not {shown(value)}', key)
        return None

    def whole(self, key: str, default: int | None, least: int = 1) -> int | None:
        if key not in self.values:
            self._known.append(key)
            return default
        value = self._get(key, default)
        if type(value) is int and least <= value <= WHOLE_MOST:
            return value
        if type(value) is not int:
            self.fault(f"`{key}` must be a whole number, not {shown(value)}", key)
        else:
            self.fault(f"`{key}` must be from {least:,} to {WHOLE_MOST:,}, not {value:,}", key)
        return default

    def one_of(self, key: str, options: Sequence[Any], default: Any) -> Any:
        value = self._get(key, default)
        if any(value == option and type(value) is type(option) for option in options):
            return value
        known = " or ".join(shown(option) for option in options)
        self.fault(f"`{key}` must be {known}, not {shown(value)}", key)
        return default

    def names(self, key: str) -> tuple[str, ...] | None:
        """A list of names, as written; None if absent."""
        value = self._get(key, None)
        if value is None:
            return None
        if not isinstance(value, list):
            self.fault(f'`{key}` must be a list, such as {key} = ["gpt-4o-mini"], not {shown(value)}', key)
            return None
        for position, item in enumerate(value):
            if not isinstance(item, str):
                self.fault(f"`{key}` lists names in quotes, not {shown(item)}", key, position)
            elif item in value[:position]:
                self.fault(f'"{item}" stands twice in `{key}`', key, position)
        return tuple(dict.fromkeys(item for item in value if isinstance(item, str)))

    def only(self, key: str, default: Any) -> None:
        """A key of the contract that is not built yet: accepted at its default, never ignored."""
        value = self._get(key, default)
        if value != default or isinstance(value, bool) != isinstance(default, bool):
            self.fault(
                f"`{key} = {shown(value)}` is not available yet; leave it out or write {shown(default)}", key
            )

    def table(self, key: str) -> Table:
        value = self._get(key, {})
        if not isinstance(value, dict):
            self.fault(f"`{key}` must be a table, written [{key}], not {shown(value)}", key)
            value = {}
        return Table(value, self._note, (*self.place, key))

    def tables(self, key: str) -> list[Table]:
        value = self._get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            self.fault(f"`{key}` must be a list of tables, each written [[{key}]]", key)
            return []
        return [Table(item, self._note, (*self.place, key, n)) for n, item in enumerate(value)]

    def given(self, key: str) -> Any:
        """The value as it stands, unread; None if absent."""
        return self._get(key, None)

    def given_only(self) -> Table:
        """The same table without what is null in it."""
        return Table(
            {key: value for key, value in self.values.items() if value is not None}, self._note, self.place
        )

    def finish(self) -> None:
        """Every key that nobody asked for is unknown."""
        for key in self.values:
            if key not in self._known:
                self.fault(f'unknown key "{key}"{nearest(key, self._known)}', key)

    def _get(self, key: str, default: Any) -> Any:
        self._known.append(key)
        return self.values.get(key, default)


def unkept(text: str) -> bool:
    """Whether it has what no database, terminal or TOML file takes: control characters but line ends and tabs."""
    return any((c < " " and c not in "\t\n\r") or "\x7f" <= c < "\xa0" for c in text)


def shown(value: Any) -> str:
    """A value as TOML writes it, shortened; a table by its kind."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f'"{value}"' if len(value) <= 40 else f'"{value[:40]}…"'
        case list():
            return "[" + ", ".join(map(shown, value[:4])) + (", …]" if len(value) > 4 else "]")
        case dict():
            return "a table"
    return str(value)
