"""What a customer has beside its plan: overrides, a scheduled change, grants; and denials that were shadows."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    the_customers_own()
    the_history_of_subscriptions()
    the_grants()
    the_shadows()


def the_customers_own() -> None:
    for column in (
        sa.Column(
            "subscribed",
            sa.Boolean(),
            nullable=False,
            server_default=sa.true(),
            comment="false: its plan is the default plan of the settings, whichever that is",
        ),
        sa.Column("scheduled_plan", sa.Text(), comment="which its plan will be"),
        sa.Column("scheduled_at", sa.BigInteger(), comment="from when on"),
        sa.Column(
            "scheduled_cancel",
            sa.Boolean(),
            nullable=False,
            server_default=sa.false(),
            comment="true: the subscription ends then",
        ),
        sa.Column(
            "overrides",
            JSON,
            nullable=False,
            server_default="{}",
            comment="what wins over its plan, in counted units",
        ),
        sa.Column(
            "overridden",
            sa.Boolean(),
            nullable=False,
            server_default=sa.false(),
            comment="true: it had overrides once, so that no plan tells what its budgets were",
        ),
    ):
        op.add_column("customers", column)
    waiting = sa.text("scheduled_at IS NOT NULL")
    op.create_index(
        "ix_customers_scheduled_at",
        "customers",
        ["scheduled_at"],
        sqlite_where=waiting,
        postgresql_where=waiting,
    )


def the_history_of_subscriptions() -> None:
    op.create_table(
        "subscription_changes",
        sa.Column("id", ROW_NUMBER, nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False, comment="started, changed, canceled, scheduled and so on"),
        sa.Column("from_plan", sa.Text(), comment="null at the start"),
        sa.Column("plan", sa.Text(), nullable=False),
        sa.Column("anchor", sa.BigInteger(), nullable=False),
        sa.Column("effective_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_subscription_changes"),
        sa.ForeignKeyConstraint(["customer_id"], ["customers.id"], name="fk_subscription_changes_customer_id"),
    )
    op.create_index("ix_subscription_changes_customer_id_id", "subscription_changes", ["customer_id", "id"])


def the_grants() -> None:
    op.create_table(
        "grants",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("meter", sa.Text(), nullable=False),
        sa.Column(
            "amount", sa.BigInteger(), nullable=False, comment="in the meter's unit; cost_usd: microdollars"
        ),
        sa.Column("per", sa.Text(), nullable=False),
        sa.Column("budget_id", sa.Text(), comment="null: every budget of this meter and per"),
        sa.Column("priority", sa.Integer(), nullable=False, comment="1 to 255; lower burns first"),
        sa.Column("effective_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger()),
        sa.Column("reason", sa.Text()),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("voided_at", sa.BigInteger(), comment="what was used by then stays used"),
        sa.PrimaryKeyConstraint("id", name="pk_grants"),
        sa.ForeignKeyConstraint(["customer_id"], ["customers.id"], name="fk_grants_customer_id"),
    )
    op.create_index("ix_grants_customer_id_created_at_id", "grants", ["customer_id", "created_at", "id"])


def the_shadows() -> None:
    shadow: sa.Column[bool] = sa.Column(
        "shadow",
        sa.Boolean(),
        nullable=False,
        server_default=sa.false(),
        comment="true: would have been refused, and was let through",
    )
    with op.batch_alter_table("denials") as denials:
        denials.drop_constraint("pk_denials", type_="primary")
        denials.add_column(shadow)
        denials.create_primary_key(
            "pk_denials", ["minute", "customer_id", "agent_id", "model", "reason", "shadow"]
        )
