"""The first ledger: the directory and its outbox, the policy, the record of usage, the denials."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
EXACT_USD = sa.Text().with_variant(sa.Numeric(38, 18), "postgresql")
ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    the_directory()
    the_policy()
    the_record()
    the_counter_sums()
    the_denials()


def the_directory() -> None:
    op.create_table(
        "customers",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("email", sa.Text()),
        sa.Column("phone", sa.Text()),
        sa.Column("address", sa.Text()),
        sa.Column("description", sa.Text()),
        sa.Column("timezone", sa.Text(), nullable=False, comment="IANA name; windows of budgets run in it"),
        sa.Column("status", sa.Text(), nullable=False, comment="active or suspended"),
        sa.Column(
            "plan", sa.Text(), nullable=False, comment="no foreign key: plans come from files and may return"
        ),
        sa.Column(
            "anchor", sa.BigInteger(), nullable=False, comment="where the subscription's windows are counted from"
        ),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column(
            "revision",
            sa.BigInteger(),
            nullable=False,
            comment="advances with every change of the customer, its agents or secrets; checked at each admission",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_customers"),
    )
    op.create_index("ix_customers_created_at_id", "customers", ["created_at", "id"])
    op.create_table(
        "contacts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("email", sa.Text()),
        sa.Column("phone", sa.Text()),
        sa.Column("description", sa.Text()),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["customer_id"], ["customers.id"], name="fk_contacts_customer_id"),
        sa.PrimaryKeyConstraint("id", name="pk_contacts"),
    )
    op.create_index("ix_contacts_customer_id_created_at_id", "contacts", ["customer_id", "created_at", "id"])
    op.create_table(
        "agent_types",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text()),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_agent_types"),
    )
    op.create_index("ix_agent_types_created_at_id", "agent_types", ["created_at", "id"])
    op.create_table(
        "agents",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text()),
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("agent_type_id", sa.Text(), nullable=False),
        sa.Column("contact_id", sa.Text()),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["agent_type_id"], ["agent_types.id"], name="fk_agents_agent_type_id"),
        sa.ForeignKeyConstraint(["contact_id"], ["contacts.id"], name="fk_agents_contact_id"),
        sa.ForeignKeyConstraint(["customer_id"], ["customers.id"], name="fk_agents_customer_id"),
        sa.PrimaryKeyConstraint("id", name="pk_agents"),
    )
    op.create_index("ix_agents_agent_type_id", "agents", ["agent_type_id"])
    op.create_index("ix_agents_created_at_id", "agents", ["created_at", "id"])
    op.create_index("ix_agents_customer_id_created_at_id", "agents", ["customer_id", "created_at", "id"])
    op.create_table(
        "agent_secrets",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("agent_id", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False, comment="keyed digest in hex; the secret is never kept"),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger()),
        sa.Column(
            "revoked_at",
            sa.BigInteger(),
            comment="kept after revocation, so that its digest is taken out of Redis again",
        ),
        sa.ForeignKeyConstraint(["agent_id"], ["agents.id"], name="fk_agent_secrets_agent_id"),
        sa.PrimaryKeyConstraint("id", name="pk_agent_secrets"),
        sa.UniqueConstraint("digest", name="uq_agent_secrets_digest"),
    )
    op.create_index("ix_agent_secrets_agent_id", "agent_secrets", ["agent_id"])
    op.create_table(
        "outbox",
        sa.Column(
            "id", ROW_NUMBER, nullable=False, comment="never reused: whoever waits for a row waits for its end"
        ),
        sa.Column(
            "customer_id", sa.Text(), nullable=False, comment="whose part of the directory must be projected"
        ),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
        sqlite_autoincrement=True,
    )


def the_policy() -> None:
    op.create_table(
        "plan_versions",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("applied_at", sa.BigInteger(), nullable=False),
        sa.Column("document", JSON, nullable=False, comment="the plan's content; immutable"),
        sa.PrimaryKeyConstraint("id", "version", name="pk_plan_versions"),
    )
    op.create_table(
        "policy_revisions",
        sa.Column("revision", ROW_NUMBER, nullable=False, comment="a higher revision replaces a lower one whole"),
        sa.Column("applied_at", sa.BigInteger(), nullable=False),
        sa.Column("document", JSON, nullable=False, comment="models and plans, with the plans' versions"),
        sa.PrimaryKeyConstraint("revision", name="pk_policy_revisions"),
        sqlite_autoincrement=True,
    )


def the_record() -> None:
    op.create_table(
        "usage_events",
        sa.Column(
            "id",
            sa.Text(),
            nullable=False,
            comment="{request_id}:{attempt}[:c{seq}]: delivered twice, recorded once",
        ),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column(
            "customer_id", sa.Text(), nullable=False, comment="no foreign key: the record outlives the directory"
        ),
        sa.Column("agent_id", sa.Text(), nullable=False),
        sa.Column("agent_type_id", sa.Text(), nullable=False),
        sa.Column("plan_id", sa.Text(), nullable=False),
        sa.Column("plan_version", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Text()),
        sa.Column("anonymous_id", sa.Text()),
        sa.Column("run_id", sa.Text()),
        sa.Column("step", sa.Text()),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("streamed", sa.Boolean(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False, comment="as asked for"),
        sa.Column("model_served", sa.Text(), comment="as called and priced in this attempt"),
        sa.Column("upstream", sa.Text()),
        sa.Column("provider_request_id", sa.Text()),
        sa.Column("fallback_from", sa.Text()),
        sa.Column("fallback_reason", sa.Text()),
        sa.Column(
            "kind",
            sa.Text(),
            nullable=False,
            comment="terminal (one per attempt) or correction (signed differences)",
        ),
        sa.Column(
            "seq",
            sa.BigInteger(),
            nullable=False,
            comment="the shard's running number, by which a loss is noticed",
        ),
        sa.Column("late", sa.Boolean(), nullable=False),
        sa.Column("disputed", sa.Boolean(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("http_status", sa.Integer()),
        sa.Column("error_type", sa.Text()),
        sa.Column("usage_source", sa.Text(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("uncached_input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cache_read_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cache_write_tokens", sa.BigInteger(), nullable=False),
        sa.Column("audio_input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger(), nullable=False),
        sa.Column("audio_output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("raw_usage", JSON, comment="the provider's own object, numbers only"),
        sa.Column(
            "cost_usd", EXACT_USD, comment="exact, for people and for SQL by hand; null where no price is known"
        ),
        sa.Column("price_version", sa.Text()),
        sa.Column("held", JSON, nullable=False),
        sa.Column("charged", JSON, nullable=False, comment="what Redis applied; sum this, never recompute it"),
        sa.Column("admitted_at", sa.BigInteger(), nullable=False),
        sa.Column("first_byte_at", sa.BigInteger()),
        sa.Column("finished_at", sa.BigInteger()),
        sa.Column("latency_ms", sa.BigInteger()),
        sa.Column("ttft_ms", sa.BigInteger()),
        sa.Column("queued_ms", sa.BigInteger()),
        sa.Column("billable", sa.Boolean(), nullable=False),
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("cost_pico", sa.BigInteger(), comment="cost_usd in picodollars: sums exactly on both"),
        sa.PrimaryKeyConstraint("id", name="pk_usage_events"),
    )
    op.create_index("ix_usage_events_admitted_at_id", "usage_events", ["admitted_at", "id"])
    op.create_index("ix_usage_events_agent_id_admitted_at_id", "usage_events", ["agent_id", "admitted_at", "id"])
    op.create_index(
        "ix_usage_events_customer_id_admitted_at_id", "usage_events", ["customer_id", "admitted_at", "id"]
    )
    op.create_index("ix_usage_events_model_admitted_at_id", "usage_events", ["model", "admitted_at", "id"])
    op.create_index("ix_usage_events_request_id", "usage_events", ["request_id"])
    op.create_index(
        "ix_usage_events_run_id",
        "usage_events",
        ["run_id", "admitted_at", "id"],
        sqlite_where=sa.text("run_id IS NOT NULL"),
        postgresql_where=sa.text("run_id IS NOT NULL"),
    )
    op.create_index(
        "ix_usage_events_kind",
        "usage_events",
        ["admitted_at"],
        sqlite_where=sa.text("kind != 'terminal'"),
        postgresql_where=sa.text("kind != 'terminal'"),
    )
    op.create_index("ix_usage_events_shard_seq", "usage_events", ["shard", "seq"])
    op.create_index(
        "ix_usage_events_status",
        "usage_events",
        ["status", "admitted_at", "id"],
        sqlite_where=sa.text("status != 'succeeded'"),
        postgresql_where=sa.text("status != 'succeeded'"),
    )
    op.create_index(
        "ix_usage_events_step",
        "usage_events",
        ["step", "admitted_at", "id"],
        sqlite_where=sa.text("step IS NOT NULL"),
        postgresql_where=sa.text("step IS NOT NULL"),
    )
    op.create_index(
        "ix_usage_events_user_id",
        "usage_events",
        ["user_id", "admitted_at", "id"],
        sqlite_where=sa.text("user_id IS NOT NULL"),
        postgresql_where=sa.text("user_id IS NOT NULL"),
    )
    op.create_table(
        "set_aside",
        sa.Column(
            "id", sa.Text(), nullable=False, comment="the event's id, or the stream entry's where it has none"
        ),
        sa.Column("reason", sa.Text(), nullable=False, comment="what the database, or the reader, said"),
        sa.Column(
            "document",
            sa.Text(),
            nullable=False,
            comment="JSON as text, since it is what could not be stored as such",
        ),
        sa.Column("set_aside_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_set_aside"),
    )


def the_counter_sums() -> None:
    op.create_table(
        "counter_sums",
        sa.Column("counter", sa.Text(), nullable=False, comment="the counter's whole name, as `charged` gives it"),
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column(
            "amount",
            sa.BigInteger(),
            nullable=False,
            comment="sum of `charged` over the rows that were inserted",
        ),
        sa.PrimaryKeyConstraint("counter", name="pk_counter_sums"),
    )
    op.create_index("ix_counter_sums_shard", "counter_sums", ["shard"])


def the_denials() -> None:
    op.create_table(
        "denials",
        sa.Column("minute", sa.BigInteger(), nullable=False, comment="minutes since 1970"),
        sa.Column("customer_id", sa.Text(), nullable=False, comment="empty where nobody was identified"),
        sa.Column("agent_id", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("sample_request_id", sa.Text(), nullable=False),
        sa.Column("sample_message", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("minute", "customer_id", "agent_id", "model", "reason", name="pk_denials"),
    )
    op.create_index("ix_denials_customer_id_minute", "denials", ["customer_id", "minute"])
    op.create_table(
        "denial_deltas",
        sa.Column("id", sa.Text(), nullable=False, comment="a delta that is delivered again must not count again"),
        sa.Column("applied_at", sa.BigInteger(), nullable=False, comment="forgotten after a day"),
        sa.PrimaryKeyConstraint("id", name="pk_denial_deltas"),
    )
    op.create_index("ix_denial_deltas_applied_at", "denial_deltas", ["applied_at"])
