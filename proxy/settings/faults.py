"""A fault of something that a person wrote: where it is, what is wrong and what would be right."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """`line` counts from 1; 0 if the fault is of the file as a whole, or of the environment."""

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}" if self.line else f"{self.file}: {self.message}"


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean "models"?`, or the known words if none is near, or nothing if there are too many."""
    words = list(known)
    by_lower = {candidate.lower(): candidate for candidate in words}
    near = get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    near = near or [candidate for candidate in by_lower if len(word) > 2 and word.lower() in candidate]
    if near:
        return f'; did you mean "{by_lower[near[0]]}"?'
    if not words or len(words) > 12:
        return ""
    return "; there is " + ", ".join(f'"{candidate}"' for candidate in words)
