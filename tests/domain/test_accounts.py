"""When a grant counts as over: by it the directory and the bound on live grants are kept."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from proxy.domain.accounts import IssuedGrant

NOW = datetime(2026, 11, 20, tzinfo=UTC)
SECOND = timedelta(seconds=1)
GRANT = IssuedGrant("g", "acme", "tokens", 5, "customer", None, 128, NOW, None, None, NOW, None)


def test_a_grant_is_live_until_it_expires_or_is_voided() -> None:
    """Its end is exclusive, and one that is yet to begin is not over."""
    assert GRANT.live(NOW)
    assert replace(GRANT, effective_at=NOW + SECOND).live(NOW)
    assert replace(GRANT, expires_at=NOW + SECOND).live(NOW)
    assert not replace(GRANT, expires_at=NOW).live(NOW)
    assert not replace(GRANT, voided_at=NOW).live(NOW)
