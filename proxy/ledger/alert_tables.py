"""The tables of alerts and webhooks."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, Table, Text

from proxy.ledger.tables import Json, Moment, metadata

alerts = Table(
    "alerts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("key", Text, nullable=False, unique=True, comment="what happened: raised again, it is the same alert"),
    Column("type", Text, nullable=False),
    Column("raised_at", Moment, nullable=False),
    Column("customer_id", Text),
    Column("subject", Text, comment="customer, agent:<id>, user:<id>; or an upstream's model, a plan, a counter"),
    Column("budget_id", Text),
    Column("threshold", Text),
    Column("window_start", Moment),
    Column("window_end", Moment),
    Column("renews_at", Moment, comment="when to tell that the budget has renewed; null: told, or never"),
    Column("data", Json, nullable=False),
    Index(None, "raised_at", "id"),
    Index(None, "customer_id", "raised_at", "id"),
    Index(None, "subject", "raised_at", "id"),
)
Index(
    "ix_alerts_renews_at",
    alerts.c.renews_at,
    sqlite_where=alerts.c.renews_at.is_not(None),
    postgresql_where=alerts.c.renews_at.is_not(None),
)

watch_marks = Table(
    "watch_marks",
    metadata,
    Column("name", Text, primary_key=True, comment="what is watched for alerts"),
    Column("position", BigInteger, nullable=False, comment="up to where"),
)

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("id", Text, primary_key=True),
    Column("url", Text, nullable=False),
    Column("events", Json, nullable=False, comment='types of alerts; ["*"]: all'),
    Column("description", Text),
    Column("customer_id", Text, comment="only what concerns this customer; null: everything"),
    Column("enabled", Boolean, nullable=False),
    Column("disabled_reason", Text, comment="why the gate itself has disabled it"),
    Column(
        "salt", Text, nullable=False, comment="with the pepper it makes the signing secret, which is kept nowhere"
    ),
    Column("previous_salt", Text),
    Column("rotated_at", Moment),
    Column("created_at", Moment, nullable=False),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", Text, primary_key=True),
    Column("endpoint_id", Text, nullable=False),
    Column("message_id", Text, nullable=False, comment="the webhook-id; the same at every attempt"),
    Column("type", Text, nullable=False),
    Column("body", Text, nullable=False, comment="as it is signed and sent, every time"),
    Column("status", Text, nullable=False, comment="pending, delivered or dead"),
    Column("attempts", Integer, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("next_at", Moment, comment="of a pending one; while it is under way, when it may be taken over"),
    Column("claim", Text, comment="who has it under way"),
    Column("last_attempt_at", Moment),
    Column("last_status", Integer, comment="the HTTP status; null: there was none"),
    Column("last_error", Text),
    Index(None, "endpoint_id", "created_at", "id"),
    Index(None, "status", "created_at", "id"),
)
Index(
    "ix_webhook_deliveries_next_at",
    webhook_deliveries.c.next_at,
    sqlite_where=webhook_deliveries.c.next_at.is_not(None),
    postgresql_where=webhook_deliveries.c.next_at.is_not(None),
)
