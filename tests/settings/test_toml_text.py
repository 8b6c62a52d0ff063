"""A complaint without the right line sends an admin searching."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.settings import Fault, TomlText, read_toml

TEXT = '''# a comment with [a.table] = 1
title = "x"

[server]   # a comment
port = 1
"quoted key" = 2
'single' = 3
"esc\\u0061ped" = 4
a.b . c = 5

[ models . "gpt-4.1" ]
price = { input = "1", output = { "deep.er" = 2 } }
fallbacks = [  # first
  "a",

  "b", # ]
  [ "nested", { x = 1 } ],
]
text = """
[not.a.table]
port = 9 \\
"""""
raw = \'\'\'
[[neither]]\'\'\'
after = 2026-11-20

[[budgets]]
limit = 1
[[budgets]]
limit = 2
[budgets.sub]
x = 1
[[budgets.items]]
y = 1
[[budgets.items]]
y = 2
'''


@pytest.fixture
def parsed(tmp_path: Path) -> TomlText:
    path = tmp_path / "x.toml"
    path.write_text(TEXT)
    text = read_toml(path)
    assert isinstance(text, TomlText)
    return text


@pytest.mark.parametrize(
    ("place", "line"),
    [
        (("title",), 2),
        (("server",), 4),
        (("server", "port"), 5),
        (("server", "quoted key"), 6),
        (("server", "single"), 7),
        (("server", "escaped"), 8),
        (("server", "a", "b", "c"), 9),
        (("server", "a", "b"), 9),
        (("models", "gpt-4.1"), 11),
        (("models", "gpt-4.1", "price", "output"), 12),
        (("models", "gpt-4.1", "price", "output", "deep.er"), 12),
        (("models", "gpt-4.1", "fallbacks"), 13),
        (("models", "gpt-4.1", "fallbacks", 0), 14),
        (("models", "gpt-4.1", "fallbacks", 1), 16),
        (("models", "gpt-4.1", "fallbacks", 2, 1, "x"), 17),
        (("models", "gpt-4.1", "text"), 19),
        (("models", "gpt-4.1", "raw"), 23),
        (("models", "gpt-4.1", "after"), 25),
        (("budgets",), 27),
        (("budgets", 0), 27),
        (("budgets", 0, "limit"), 28),
        (("budgets", 1), 29),
        (("budgets", 1, "limit"), 30),
        (("budgets", 1, "sub", "x"), 32),
        (("budgets", 1, "items", 1, "y"), 36),
        # What is not written down stands where it would be.
        (("server", "absent", "x"), 4),
        (("absent",), 0),
    ],
)
def test_every_value_knows_its_line(parsed: TomlText, place: tuple[str | int, ...], line: int) -> None:
    """Comments, quotes, nesting and text over several lines must not shift what follows."""
    assert parsed.line(place) == line


def test_lines_are_counted_the_same_with_windows_line_ends(tmp_path: Path) -> None:
    """Files come from all editors."""
    path = tmp_path / "x.toml"
    path.write_bytes(TEXT.replace("\n", "\r\n").encode())
    text = read_toml(path)
    assert isinstance(text, TomlText)
    assert text.line(("budgets", 1, "items", 1, "y")) == 36


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        (b"a = 1\nb = \n", 2, "is no TOML"),
        (b"a = 1\na = 2\n", 2, "overwrite"),
        (b'a = "x\n', 1, "is no TOML"),
        (b"a = 1\n[b", 2, "is no TOML"),
        (b'a = 1\nb = "\xff"\n', 2, "UTF-8"),
    ],
)
def test_what_is_no_toml_is_told_with_its_line(tmp_path: Path, content: bytes, line: int, said: str) -> None:
    """The most common fault of all is a forgotten quote."""
    path = tmp_path / "x.toml"
    path.write_bytes(content)
    fault = read_toml(path)
    assert isinstance(fault, Fault)
    assert (fault.file, fault.line) == (str(path), line)
    assert said in fault.message
    assert str(fault).startswith(f"{path}:{line}: ")


def test_a_missing_file_is_a_fault(tmp_path: Path) -> None:
    """Not a stack trace."""
    fault = read_toml(tmp_path / "absent.toml")
    assert isinstance(fault, Fault)
    assert "No such file" in str(fault)
