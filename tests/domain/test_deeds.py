"""Who may do what, and what is said of a change."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from proxy.domain.deeds import AdminToken, Deed, by_the_gate, difference, may


@dataclass(frozen=True)
class Inner:
    limit: int
    secret: str = "s3cret"


@dataclass(frozen=True)
class Resource:
    name: str
    at: datetime = datetime(2026, 11, 20, 13, 0, tzinfo=timezone(timedelta(hours=1)))
    models: frozenset[str] | None = None
    price: Decimal = Decimal("1.50")
    digest: str = "d1d1"
    parts: tuple[Inner, ...] = ()
    more: dict[str, Any] = field(default_factory=dict)


def test_a_role_includes_the_lesser_ones() -> None:
    """Owner, operator, read-only."""
    assert may("owner", "operator")
    assert may("operator", "operator")
    assert not may("read-only", "operator")
    assert not may("operator", "owner")


def test_only_what_changed_is_told() -> None:
    """From what to what, in JSON's own types."""
    before = Resource("a", models=frozenset("ba"))
    after = Resource("b", at=datetime(2026, 11, 20, 12, 0, tzinfo=UTC), price=Decimal("2"), parts=(Inner(5),))

    assert difference(before, after) == {
        "name": {"from": "a", "to": "b"},
        "models": {"from": ["a", "b"], "to": None},
        "price": {"from": "1.50", "to": "2"},
        "parts": {"from": [], "to": [{"limit": 5, "secret": "(hidden)"}]},
    }
    assert difference(before, before) == {}


def test_what_is_made_or_gone_has_nothing_on_the_other_side() -> None:
    """None is no resource; mappings are resources too."""
    assert difference(None, {"a": 1, "b": None}) == {"a": {"from": None, "to": 1}}
    assert difference({"a": {"x": datetime(2026, 1, 1, tzinfo=UTC)}}, None) == {
        "a": {"from": {"x": "2026-01-01T00:00:00.000000Z"}, "to": None}
    }


def test_a_secret_is_hidden_but_that_it_changed_is_told() -> None:
    """Wherever it stands."""
    after = Resource("a", digest="d2d2", more={"token": "t0ken", "b": {"password": "pw"}})
    told = difference(Resource("a"), after)

    assert told["digest"] == {"from": "(hidden)", "to": "(hidden)"}
    assert "t0ken" not in str(told)
    assert "pw" not in str(told)


@pytest.mark.parametrize(
    ("expires", "revoked", "lets_in"), [(None, None, True), (1, None, True), (0, None, False), (None, -5, False)]
)
def test_a_token_lets_in_until_it_ends(expires: int | None, revoked: int | None, lets_in: bool) -> None:
    """Its end is no more part of it."""
    now = datetime(2026, 11, 20, tzinfo=UTC)
    ends = [None if s is None else now + timedelta(seconds=s) for s in (expires, revoked)]

    assert AdminToken("i", "n", "owner", "d", now, None, ends[0], ends[1], None).lets_in(now) is lets_in


def test_a_deed_without_a_condition_requires_nothing() -> None:
    """And one with it is what the condition says."""
    deed: Deed = by_the_gate("policy files")
    deed.require(None)
    assert (deed.actor.id, deed.actor.role) == ("system", "system")
