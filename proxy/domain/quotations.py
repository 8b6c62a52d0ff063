"""Taking a prompt's own words out of what somebody says about it.

A provider that refuses a request may quote it, and an error is shown, logged and forwarded where a prompt must
not be. Whatever is said for as long as `RUN_CHARACTERS` in the same letters counts as a quotation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

RUN_CHARACTERS = 12
STEP_CHARACTERS = 3
CONTENT_CHARACTERS_MAX = 1 << 18
LEFT_OUT = "[…]"

_ONE_LINE = str.maketrans("\r\n\t", "   ")


def without_quotations(text: str, content: Any) -> str | None:
    """`text` without what it quotes of any text in `content` (JSON values); None if that is too long to look."""
    parts = list(_texts(content))
    if sum(map(len, parts)) > CONTENT_CHARACTERS_MAX:
        return None
    whole = "\0".join(parts).translate(_ONE_LINE)
    line = text.translate(_ONE_LINE)
    quoted = [False] * len(text)
    for start in range(0, len(text) - RUN_CHARACTERS + 1, STEP_CHARACTERS):
        if line[start : start + RUN_CHARACTERS] in whole:
            quoted[start : start + RUN_CHARACTERS] = [True] * RUN_CHARACTERS
    kept = "".join("\0" if hidden else character for character, hidden in zip(text, quoted, strict=True))
    return LEFT_OUT.join(part for part in _runs(kept))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        # Pictures are no text that anybody quotes, and most of a body's length.
        if not value.startswith("data:"):
            yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


def _runs(kept: str) -> Iterator[str]:
    """What is between the quotations, which are runs of NUL."""
    while True:
        before, nul, after = kept.partition("\0")
        yield before
        if not nul:
            return
        kept = after.lstrip("\0")
