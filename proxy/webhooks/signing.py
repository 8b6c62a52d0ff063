"""Secrets and signatures of webhooks, by Standard Webhooks.

No signing secret is kept anywhere: it is made anew, from the installation's pepper and the salt of the endpoint,
whenever something is signed. Who has the ledger without the pepper can sign nothing.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta

from standardwebhooks import Webhook

from proxy.billing.alerts import WebhookEndpoint

OVERLAP = timedelta(hours=24)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def secret_of(pepper: bytes, endpoint_id: str, salt: str) -> str:
    """`whsec_…`, as the endpoint's owner is shown it once."""
    derived = hmac.new(pepper, f"webhook:{endpoint_id}:{salt}".encode(), hashlib.sha256).digest()
    return f"whsec_{base64.b64encode(derived).decode()}"


def signed_headers(
    pepper: bytes, endpoint: WebhookEndpoint, message_id: str, body: str, now_us: int
) -> dict[str, str]:
    """The three headers of a message. For a day after a rotation both secrets sign it, the new one first."""
    now = _EPOCH + timedelta(seconds=now_us // 1_000_000)
    salts = [endpoint.salt]
    if endpoint.previous_salt and endpoint.rotated_at is not None and now < endpoint.rotated_at + OVERLAP:
        salts.append(endpoint.previous_salt)
    keys = (Webhook(secret_of(pepper, endpoint.id, salt)) for salt in salts)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(now_us // 1_000_000),
        "webhook-signature": " ".join(key.sign(message_id, now, body) for key in keys),
    }
