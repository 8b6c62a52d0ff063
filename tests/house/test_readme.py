"""The README is tried as it stands: what it names must exist, and what it shows must be so."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from proxy.cli.root import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "policies/README.md")
BUILT_BY_MAKE = {"dist/faregate-*.whl"}
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def verb_of(words: str) -> tuple[str, list[str]]:
    """The verb that a line calls, and the options that it gives it."""
    command: Any = get_command(app)
    said = words.split()[1:]
    path = "faregate"
    while said and said[0] in getattr(command, "commands", {}):
        command = command.commands[said[0]]
        path += f" {said.pop(0)}"
    assert not said or not getattr(command, "commands", None), f"{words!r} names no verb below {path}"
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    return path, [word for word in said if word.startswith("--") and word not in known]


def commands(text: str) -> list[str]:
    inline = re.findall(r"`(faregate [a-z][^`]*)`", text)
    lines = [
        line
        for kind, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S)
        for line in block.splitlines()
        if kind == "sh"
    ]
    indented = re.findall(r"^    (faregate .*)$", text, re.MULTILINE)
    return [found for line in (*inline, *lines, *indented) for found in re.findall(r"faregate [a-z][^#&)]*", line)]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "policies/README.md"])
def test_every_verb_and_option_named_exists(page: str) -> None:
    """A newcomer who is refused the first command goes away."""
    found = commands((ROOT / page).read_text())

    assert len(found) >= 1
    assert {command: verb_of(command)[1] for command in found if verb_of(command)[1]} == {}


@pytest.mark.parametrize("page", PAGES)
def test_every_file_and_folder_named_exists(page: str) -> None:
    """Where to read on is where something is."""
    text = (ROOT / page).read_text()
    named = {path for path in re.findall(r"`([\w./*-]+)`", text) if "/" in path and not path.startswith("/")}
    named |= set(re.findall(r"`(\w[\w.]*\.(?:md|toml))`", text))
    named |= set(re.findall(r"\]\((?!https?:)([^)#]+)", text))
    known = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("policies/**/*")} | {"config.toml"}

    def exists(path: str) -> bool:
        places = (ROOT, ROOT / "policies")
        return path in known or any(list(place.glob(path.rstrip("/"))) for place in places)

    assert {path for path in named - BUILT_BY_MAKE if not exists(path)} == set()


def test_every_make_verb_named_exists() -> None:
    """`make` is the first thing that is typed."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert {"demo", "test"} <= set(re.findall(r"make ([a-z-]+)", README)) <= targets


def test_the_plan_shown_is_the_plan_that_ships() -> None:
    """Who edits the file must find what was shown."""
    [shown] = [block for kind, block in BLOCKS if kind == "toml"]

    assert tomllib.loads(shown) == tomllib.loads((ROOT / "policies/plans/starter.toml").read_text())


def test_the_sentence_shown_is_the_one_that_ships() -> None:
    """What an end user reads is the product's face."""
    template = re.search(r'^message_exhausted = "(.*)"', (ROOT / "policies/README.md").read_text(), re.MULTILINE)
    assert template is not None
    pattern = re.sub(r"\\{\w+\\}", ".+", re.escape(template[1]))

    assert any(re.fullmatch(pattern, block.strip()) for kind, block in BLOCKS if kind == "")


def test_the_first_call_takes_less_than_ten_lines_and_the_python_is_python() -> None:
    """Issue 2 promises both."""
    start = README.index("## Your first real call")
    first = next(block for kind, block in BLOCKS if kind == "sh" and README.index(block) > start)

    assert len(first.splitlines()) < 10
    for kind, block in BLOCKS:
        if kind == "python":
            compile(block, "README.md", "exec")


def test_the_changelog_counts_the_models_right() -> None:
    """A number that is written down twice is wrong one day."""
    models = tomllib.loads((ROOT / "policies/models.toml").read_text())["models"]
    changelog = re.sub(r"\s+", " ", (ROOT / "CHANGELOG.md").read_text())

    assert f"three plans and {len(models)} models ship" in changelog
