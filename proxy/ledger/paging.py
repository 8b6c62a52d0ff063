"""Cursors: where a page ended, as text that means nothing to the client."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import orjson
from sqlalchemy import ColumnElement, literal, tuple_

from proxy.billing.ports import BadCursor, Page

T = TypeVar("T")

Key = Sequence[ColumnElement[Any]]


def after(key: Key, cursor: str, *, newest_first: bool) -> ColumnElement[bool]:
    """The condition that holds for what follows the page that `cursor` ended; `BadCursor` if no page gave it."""
    values = _decoded(cursor)
    if len(values) != len(key) or any(
        type(value) is not _kind(column) for column, value in zip(key, values, strict=True)
    ):
        raise BadCursor(cursor)
    # The key's columns are given as they are stored, so that a moment is compared as its microseconds.
    here = tuple_(*key)
    there = tuple_(*(literal(value) for value in values))
    return here < there if newest_first else here > there


def page_of(rows: Sequence[T], limit: int, key: Callable[[T], Sequence[Any]]) -> Page[T]:
    """The page out of `limit + 1` rows: the one too many says that there is another page."""
    if len(rows) <= limit:
        return Page(rows, None)
    cursor = base64.urlsafe_b64encode(orjson.dumps(list(key(rows[limit - 1])))).decode().rstrip("=")
    return Page(rows[:limit], cursor)


def _decoded(cursor: str) -> list[Any]:
    try:
        values = orjson.loads(base64.urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError):
        raise BadCursor(cursor) from None
    if not isinstance(values, list):
        raise BadCursor(cursor)
    return values


def _kind(column: ColumnElement[Any]) -> type[Any]:
    kind = column.type.python_type
    return kind if kind in (int, bool) else str
