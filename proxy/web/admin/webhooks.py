"""Webhooks: where alerts are sent, and what became of each on its way."""

from __future__ import annotations

from typing import Any

from proxy.billing.alerts import Delivery, EndpointDisabled, WebhookEndpoint
from proxy.billing.ports import Page
from proxy.web.admin import alert_shapes as shapes
from proxy.web.admin import bodies
from proxy.web.admin.errors import AdminError, bad_request
from proxy.web.admin.routes import PREFIX, Asked, Route


async def create_webhook_endpoint(asked: Asked) -> dict[str, Any]:
    fields = asked.body.model_dump()
    _callable(asked, fields["url"])
    return _with_secret(asked, await asked.deps.webhooks.by(asked.deed).create_endpoint(fields))


async def list_webhook_endpoints(asked: Asked) -> Page[WebhookEndpoint]:
    return await asked.deps.webhooks.endpoints(asked.query.limit, asked.query.cursor)


async def get_webhook_endpoint(asked: Asked) -> WebhookEndpoint:
    return await asked.deps.webhooks.endpoint(asked.path["endpoint_id"])


async def change_webhook_endpoint(asked: Asked) -> WebhookEndpoint:
    changes = asked.body.model_dump(exclude_unset=True)
    if "url" in changes:
        _callable(asked, changes["url"])
    return await asked.deps.webhooks.by(asked.deed).change_endpoint(asked.path["endpoint_id"], changes)


async def delete_webhook_endpoint(asked: Asked) -> None:
    await asked.deps.webhooks.by(asked.deed).delete_endpoint(asked.path["endpoint_id"])


async def rotate_webhook_secret(asked: Asked) -> dict[str, Any]:
    rotated = await asked.deps.webhooks.by(asked.deed).rotate_secret(asked.path["endpoint_id"])
    return _with_secret(asked, rotated)


async def send_test_webhook(asked: Asked) -> Delivery:
    try:
        return await asked.deps.webhooks.by(asked.deed).send_test(asked.path["endpoint_id"])
    except EndpointDisabled as disabled:
        raise _disabled(disabled) from None


async def list_webhook_deliveries(asked: Asked) -> Page[Delivery]:
    query = asked.query
    return await asked.deps.webhooks.deliveries(bodies.filters_of(query), query.limit, query.cursor)


async def get_webhook_delivery(asked: Asked) -> Delivery:
    return await asked.deps.webhooks.delivery(asked.path["delivery_id"])


async def replay_webhook_delivery(asked: Asked) -> Delivery:
    try:
        return await asked.deps.webhooks.by(asked.deed).replay(asked.path["delivery_id"])
    except EndpointDisabled as disabled:
        raise _disabled(disabled) from None


def _callable(asked: Asked, url: str) -> None:
    if fault := asked.deps.webhook_url_fault(url):
        raise bad_request("invalid_value", f"The field 'url' is wrong: {fault}.", "url")


def _with_secret(asked: Asked, endpoint: WebhookEndpoint) -> dict[str, Any]:
    shown = {name: getattr(endpoint, name) for name in shapes.WebhookEndpoint.model_fields}
    return shown | {"secret": asked.deps.webhook_secret(endpoint)}


def _disabled(disabled: EndpointDisabled) -> AdminError:
    return AdminError(409, "endpoint_disabled", str(disabled))


_ALL = f"{PREFIX}/webhook-endpoints"
_ONE = f"{_ALL}/{{endpoint_id}}"
_SENT = f"{PREFIX}/webhook-deliveries"

ROUTES = (
    Route(
        "POST", _ALL, create_webhook_endpoint,
        "Have alerts sent somewhere; the signing secret is shown this once.", shapes.CreatedWebhookEndpoint, 201,
        body=shapes.NewWebhookEndpoint, errors=(409,), reveals=True,
    ),
    Route(
        "GET", _ALL, list_webhook_endpoints, "List where alerts are sent, oldest first.", shapes.WebhookEndpoint,
        query=bodies.PageQuery, listed=True,
    ),
    Route("GET", _ONE, get_webhook_endpoint, "Show an endpoint.", shapes.WebhookEndpoint, errors=(404,)),
    Route(
        "PATCH", _ONE, change_webhook_endpoint, "Change an endpoint; `enabled` stops it and starts it again.",
        shapes.WebhookEndpoint, body=shapes.WebhookEndpointChanges, errors=(404,),
    ),
    Route(
        "DELETE", _ONE, delete_webhook_endpoint, "Delete an endpoint, with all that was to be sent to it.",
        status=204, errors=(404,),
    ),
    Route(
        "POST", f"{_ONE}/rotate-secret", rotate_webhook_secret,
        "Make a new signing secret; for a day messages are signed with the old one, too.",
        shapes.CreatedWebhookEndpoint, errors=(404,), reveals=True,
    ),
    Route(
        "POST", f"{_ONE}/test", send_test_webhook, "Send it a `webhook.test`; the answer is the delivery.",
        shapes.WebhookDelivery, 201, errors=(404, 409),
    ),
    Route(
        "GET", _SENT, list_webhook_deliveries, "List deliveries, newest first.", shapes.WebhookDelivery,
        query=shapes.DeliveriesQuery, listed=True,
    ),
    Route(
        "GET", f"{_SENT}/{{delivery_id}}", get_webhook_delivery, "Show a delivery.", shapes.WebhookDelivery,
        errors=(404,),
    ),
    Route(
        "POST", f"{_SENT}/{{delivery_id}}/replay", replay_webhook_delivery,
        "Send it again, at once, whatever became of it; a pending one is not waited for any longer.",
        shapes.WebhookDelivery, errors=(404, 409),
    ),
)  # fmt: skip
