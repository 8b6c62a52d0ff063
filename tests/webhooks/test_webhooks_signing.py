from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from proxy.billing.alerts import WebhookEndpoint
from proxy.webhooks.signing import OVERLAP, secret_of, signed_headers

PEPPER = b"the pepper"
BODY = '{"type":"webhook.test"}'
# The receiver's library takes nothing older than five minutes, and a whole run of the suite is longer than that.
NOW_US = time.time_ns() // 1000
NOW = datetime.fromtimestamp(NOW_US / 1_000_000, UTC)
ENDPOINT = WebhookEndpoint(
    "whe_1", "https://example.com", ("*",), None, None, True, None, "salt", None, None, NOW
)  # fmt: skip


@pytest.fixture(autouse=True)
def _now() -> None:
    """Anew for each test, for the reason above."""
    global NOW_US, NOW
    NOW_US = time.time_ns() // 1000
    NOW = datetime.fromtimestamp(NOW_US / 1_000_000, UTC)


def verified(secret: str, headers: dict[str, str], body: str = BODY) -> bool:
    try:
        Webhook(secret).verify(body, headers)
    except WebhookVerificationError:
        return False
    return True


def test_the_receivers_own_library_accepts_it_and_nothing_else() -> None:
    """Interoperability is the whole point of a standard."""
    secret = secret_of(PEPPER, "whe_1", "salt")
    headers = signed_headers(PEPPER, ENDPOINT, "alr_1", BODY, NOW_US)
    assert headers["webhook-id"] == "alr_1"
    assert verified(secret, headers)
    assert not verified(secret, headers, BODY + " ")
    assert not verified(secret, headers | {"webhook-id": "alr_2"})
    assert not verified(secret, headers | {"webhook-timestamp": str(NOW_US // 1_000_000 - 1)})


@pytest.mark.parametrize(
    "other", [(b"another", "whe_1", "salt"), (PEPPER, "whe_2", "salt"), (PEPPER, "whe_1", "pepper")]
)
def test_every_endpoint_and_installation_has_secrets_of_its_own(other: tuple[bytes, str, str]) -> None:
    """Whoever has one endpoint's secret can sign for that one."""
    assert not verified(secret_of(*other), signed_headers(PEPPER, ENDPOINT, "alr_1", BODY, NOW_US))


def test_a_secret_has_the_standards_form_and_is_made_the_same_again() -> None:
    """It is kept nowhere, so it must be made anew for every message."""
    secret = secret_of(PEPPER, "whe_1", "salt")
    assert secret.startswith("whsec_")
    assert len(secret) == 6 + 44
    assert secret == secret_of(PEPPER, "whe_1", "salt")


def test_for_a_day_after_a_rotation_both_secrets_sign() -> None:
    """A receiver is given the new secret without losing a message."""
    rotated = replace(ENDPOINT, salt="new", previous_salt="salt", rotated_at=NOW - OVERLAP + timedelta(seconds=2))
    old, new = secret_of(PEPPER, "whe_1", "salt"), secret_of(PEPPER, "whe_1", "new")
    headers = signed_headers(PEPPER, rotated, "alr_1", BODY, NOW_US)
    assert verified(old, headers)
    assert verified(new, headers)
    later = signed_headers(
        PEPPER, replace(rotated, rotated_at=NOW - OVERLAP - timedelta(seconds=1)), "alr_1", BODY, NOW_US
    )
    assert verified(new, later)
    assert not verified(old, later)
