"""Exceptions as the log tells them: type and frames, and a message only where it is known to be ours.

A message is often somebody's text: a parser quotes the document, pydantic the input, SQLAlchemy its
parameters, a provider's library the answer. So it is withheld, except for the operating system's sentences
and for exceptions of this house, whose sentences are written for the person who reads them.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

from proxy.telemetry.redaction import Redactor

_HOUSE = Path(__file__).resolve().parents[2]
_FRAMES_MAX = 30
_CHAIN_MAX = 8


def told(fault: BaseException, redactor: Redactor) -> list[dict[str, Any]]:
    """The exception and what caused it, one after the other: `type`, `message`, `frames` ("file:line in name")."""
    chain: list[dict[str, Any]] = []
    waiting: list[BaseException] = [fault]
    seen: set[int] = set()
    while waiting and len(chain) < _CHAIN_MAX:
        current = waiting.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        chain.append(
            {
                "type": _name(current),
                "message": _message(current, redactor),
                "frames": _frames(current.__traceback__),
            }
        )
        if isinstance(current, BaseExceptionGroup):
            waiting.extend(current.exceptions)
        cause = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
        if cause is not None:
            waiting.append(cause)
    return chain


def as_text(chain: list[dict[str, Any]]) -> str:
    """The same for people, in several lines."""
    parts = []
    for link in chain:
        frames = "".join(f"\n    {frame}" for frame in link["frames"])
        parts.append(f"{link['type']}: {link['message']}{frames}")
    return "\n  because of ".join(parts)


def _name(fault: BaseException) -> str:
    kind = type(fault)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _message(fault: BaseException, redactor: Redactor) -> str:
    if isinstance(fault, OSError) and fault.errno is not None:
        return redactor.text(f"[Errno {fault.errno}] {fault.strerror}")
    module = type(fault).__module__
    if module == "proxy" or module.startswith("proxy."):
        return redactor.text(str(fault))
    return "(withheld)"


def _frames(trace: TracebackType | None) -> list[str]:
    frames = [
        f"{_short(frame.f_code.co_filename)}:{line} in {frame.f_code.co_name}"
        for frame, line in traceback.walk_tb(trace)
    ]
    return frames[-_FRAMES_MAX:]


def _short(filename: str) -> str:
    path = Path(filename)
    if path.is_relative_to(_HOUSE / "proxy"):
        return str(path.relative_to(_HOUSE))
    parts = path.parts
    for root in ("site-packages", "dist-packages"):
        if root in parts:
            return "/".join(parts[parts.index(root) + 1 :])
    return "/".join(parts[-2:])
