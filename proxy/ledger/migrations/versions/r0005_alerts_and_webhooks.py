"""Alerts, how far each source of them was looked at, and the webhooks that carry them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    the_watched_amounts()
    the_alerts()
    the_marks()
    the_endpoints()
    the_deliveries()


def the_watched_amounts() -> None:
    op.add_column(
        "counter_sums",
        sa.Column(
            "watched",
            sa.BigInteger(),
            nullable=False,
            server_default="0",
            comment="the amount that alerts have seen",
        ),
    )
    # Nobody is to be told today of what was reached last year.
    op.execute("UPDATE counter_sums SET watched = amount")
    unwatched = sa.text("amount != watched")
    op.create_index(
        "ix_counter_sums_unwatched",
        "counter_sums",
        ["counter"],
        sqlite_where=unwatched,
        postgresql_where=unwatched,
    )


def the_alerts() -> None:
    op.create_table(
        "alerts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False, comment="what happened: raised again, it is the same alert"),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("raised_at", sa.BigInteger(), nullable=False),
        sa.Column("customer_id", sa.Text()),
        sa.Column(
            "subject",
            sa.Text(),
            comment="customer, agent:<id>, user:<id>; or an upstream's model, a plan, a counter",
        ),
        sa.Column("budget_id", sa.Text()),
        sa.Column("threshold", sa.Text()),
        sa.Column("window_start", sa.BigInteger()),
        sa.Column("window_end", sa.BigInteger()),
        sa.Column(
            "renews_at",
            sa.BigInteger(),
            comment="when to tell that the budget has renewed; null: told, or never",
        ),
        sa.Column("data", JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_alerts"),
        sa.UniqueConstraint("key", name="uq_alerts_key"),
    )
    for columns in (
        ["raised_at", "id"],
        ["customer_id", "raised_at", "id"],
        ["subject", "raised_at", "id"],
    ):
        op.create_index(f"ix_alerts_{'_'.join(columns)}", "alerts", columns)
    waiting = sa.text("renews_at IS NOT NULL")
    op.create_index("ix_alerts_renews_at", "alerts", ["renews_at"], sqlite_where=waiting, postgresql_where=waiting)


def the_marks() -> None:
    op.create_table(
        "watch_marks",
        sa.Column("name", sa.Text(), nullable=False, comment="what is watched for alerts"),
        sa.Column("position", sa.BigInteger(), nullable=False, comment="up to where"),
        sa.PrimaryKeyConstraint("name", name="pk_watch_marks"),
    )
    op.execute(
        "INSERT INTO watch_marks (name, position)"
        " SELECT 'policy_revisions', coalesce(max(revision), 0) FROM policy_revisions"
    )


def the_endpoints() -> None:
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("events", JSON, nullable=False, comment='types of alerts; ["*"]: all'),
        sa.Column("description", sa.Text()),
        sa.Column("customer_id", sa.Text(), comment="only what concerns this customer; null: everything"),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("disabled_reason", sa.Text(), comment="why the gate itself has disabled it"),
        sa.Column(
            "salt",
            sa.Text(),
            nullable=False,
            comment="with the pepper it makes the signing secret, which is kept nowhere",
        ),
        sa.Column("previous_salt", sa.Text()),
        sa.Column("rotated_at", sa.BigInteger()),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_endpoints"),
    )


def the_deliveries() -> None:
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("endpoint_id", sa.Text(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False, comment="the webhook-id; the same at every attempt"),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False, comment="as it is signed and sent, every time"),
        sa.Column("status", sa.Text(), nullable=False, comment="pending, delivered or dead"),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column(
            "next_at",
            sa.BigInteger(),
            comment="of a pending one; while it is under way, when it may be taken over",
        ),
        sa.Column("claim", sa.Text(), comment="who has it under way"),
        sa.Column("last_attempt_at", sa.BigInteger()),
        sa.Column("last_status", sa.Integer(), comment="the HTTP status; null: there was none"),
        sa.Column("last_error", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_deliveries"),
    )
    for columns in (["endpoint_id", "created_at", "id"], ["status", "created_at", "id"]):
        op.create_index(f"ix_webhook_deliveries_{'_'.join(columns)}", "webhook_deliveries", columns)
    waiting = sa.text("next_at IS NOT NULL")
    op.create_index(
        "ix_webhook_deliveries_next_at",
        "webhook_deliveries",
        ["next_at"],
        sqlite_where=waiting,
        postgresql_where=waiting,
    )
