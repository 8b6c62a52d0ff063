"""The words of the house are explained where a newcomer looks for them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

HOME = Path(__file__).parents[2]
GLOSSARY = (HOME / "docs/glossary.md").read_text().lower()


def test_every_noun_of_the_domain_is_in_the_glossary() -> None:
    """A class whose word stands nowhere is a second word for something, or a thing nobody explained."""
    classes = {
        node.name
        for path in sorted((HOME / "proxy/domain").glob("*.py"))
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    }
    assert len(classes) > 20

    missing = {name for name in classes for word in words(name) if not re.search(rf"\b{word}", GLOSSARY)}

    assert missing == set()


def words(name: str) -> list[str]:
    """ "RateLimits" -> ["rate", "limit"]."""
    return [word.lower().removesuffix("s") for word in re.findall(r"[A-Z][a-z]+", name)]
