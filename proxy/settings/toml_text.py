"""TOML with line numbers: `tomllib` reads the values, a scanner beside it says in which line each one stands."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxy.settings.faults import Fault

Place = tuple[str | int, ...]
"""Where a value stands: keys, and positions in arrays: `("budgets", 0, "limit")`."""

_AT = re.compile(r" \(at line (\d+), column \d+\)$| \(at end of document\)$")


@dataclass(slots=True)
class TomlText:
    """`file` is named as the reader knows it. `lines` has the tables, the keys and the items of arrays."""

    file: str
    data: dict[str, Any]
    lines: dict[Place, int] = field(default_factory=dict)

    def line(self, place: Place) -> int:
        """The line of `place`, or of the nearest thing around it that is written down; 0 if nothing is."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 0)


def read_toml(path: Path, name: str | None = None) -> TomlText | Fault:
    """The file as TOML, or the one fault that keeps it from being read."""
    file = name or str(path)
    try:
        text = path.read_bytes().decode()
    except OSError as fault:
        return Fault(file, 0, f"cannot be read: {fault.strerror}")
    except UnicodeDecodeError as fault:
        line = fault.object.count(b"\n", 0, fault.start) + 1
        return Fault(file, line, "is not UTF-8 text, which TOML must be")
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as fault:
        return _syntax_fault(file, text, str(fault))
    except RecursionError:
        return Fault(file, 0, "is nested too deeply")
    return TomlText(file, data, _Scanner(text.replace("\r\n", "\n")).lines())


def _syntax_fault(file: str, text: str, said: str) -> Fault:
    at = _AT.search(said)
    line = int(at[1]) if at and at[1] else len(text.rstrip().splitlines())
    said = _AT.sub("", said)
    if "Illegal character '\\n'" in said:
        said = "text does not end on its line: is a quote missing?"
    return Fault(file, max(1, line), f"is no TOML: {said}")


_BLANK = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_KEY_PART = re.compile(r"""[ \t]*(?:"((?:[^"\\\n]|\\.)*)"|'([^'\n]*)'|([A-Za-z0-9_-]+))[ \t]*(\.?)""")
_STRING = re.compile(
    r"""
    \"{3} (?: [^"\\] | \\. | "(?!"") )* "{3,5}
    | '{3} .*? '{3,5}
    | " (?: [^"\\\n] | \\. )* "
    | ' [^'\n]* '
    """,
    re.DOTALL | re.VERBOSE,
)
_BARE = re.compile(r"[^,\]}#\n]*")


class _Scanner:
    """Walks a text that `tomllib` has accepted, so it need not notice faults, and notes where things stand."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.found: dict[Place, int] = {}
        self.counted_to, self.line_there = 0, 1

    def lines(self) -> dict[Place, int]:
        table: Place = ()
        arrays: dict[Place, int] = {}
        self._pass(_BLANK)
        while self.at < len(self.text):
            if self.text[self.at] == "[":
                table = self._header(arrays)
            else:
                self._pair(table)
            self._pass(_BLANK)
        return self.found

    def _header(self, arrays: dict[Place, int]) -> Place:
        line = self._line()
        brackets = 2 if self.text.startswith("[[", self.at) else 1
        self.at += brackets
        names = self._key()
        self.at += brackets
        place: Place = ()
        for depth, name in enumerate(names, 1):
            place += (name,)
            if depth == len(names) and brackets == 2:
                self.found.setdefault(place, line)
                arrays[place] = arrays.get(place, -1) + 1
            if place in arrays:
                place += (arrays[place],)
            self.found.setdefault(place, line)
        self.found[place] = line
        return place

    def _pair(self, table: Place) -> None:
        line = self._line()
        place = table
        for name in self._key():
            place += (name,)
            self.found.setdefault(place, line)
        self.at += 1  # the equals sign
        self._value(place)

    def _key(self) -> list[str]:
        names = []
        more = "."
        while more:
            part = self._pass(_KEY_PART)
            double, single, bare, more = part.groups()
            names.append(_unescaped(double) if double is not None else single if single is not None else bare)
        return names

    def _value(self, place: Place) -> None:
        self._pass(_SPACE)
        if self.text[self.at] == "[":
            self._array(place)
        elif self.text[self.at] == "{":
            self._inline_table(place)
        elif self.text[self.at] in "\"'":
            self._pass(_STRING)
        else:
            self._pass(_BARE)

    def _array(self, place: Place) -> None:
        self.at += 1
        self._pass(_BLANK)
        position = 0
        while self.text[self.at] != "]":
            self.found[(*place, position)] = self._line()
            self._value((*place, position))
            position += 1
            self._past_comma()
        self.at += 1

    def _inline_table(self, place: Place) -> None:
        self.at += 1
        self._pass(_BLANK)
        while self.text[self.at] != "}":
            self._pair(place)
            self._past_comma()
        self.at += 1

    def _past_comma(self) -> None:
        self._pass(_BLANK)
        if self.text[self.at] == ",":
            self.at += 1
            self._pass(_BLANK)

    def _pass(self, pattern: re.Pattern[str]) -> re.Match[str]:
        match = pattern.match(self.text, self.at)
        assert match is not None, "tomllib accepted what the scanner does not know"
        self.at = match.end()
        return match

    def _line(self) -> int:
        self.line_there += self.text.count("\n", self.counted_to, self.at)
        self.counted_to = self.at
        return self.line_there


def _unescaped(quoted: str) -> str:
    return str(tomllib.loads(f'key = "{quoted}"')["key"])
