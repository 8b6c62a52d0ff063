"""The admin plane's own: tokens with roles, the audit log that nobody rewrites, idempotency keys."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    the_tokens()
    the_audit_log()
    nobody_rewrites_it()
    the_idempotency_keys()


def the_tokens() -> None:
    op.create_table(
        "admin_tokens",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False, comment="owner, operator or read-only"),
        sa.Column("digest", sa.Text(), nullable=False, comment="keyed digest; the token itself is kept nowhere"),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False, comment="the id of the token that made it"),
        sa.Column("expires_at", sa.BigInteger()),
        sa.Column("revoked_at", sa.BigInteger()),
        sa.Column("last_used_at", sa.BigInteger(), comment="to within a minute or so"),
        sa.PrimaryKeyConstraint("id", name="pk_admin_tokens"),
        sa.UniqueConstraint("digest", name="uq_admin_tokens_digest"),
    )


def the_audit_log() -> None:
    op.create_table(
        "audit_log",
        sa.Column(
            "seq",
            sa.BigInteger(),
            autoincrement=False,
            nullable=False,
            comment="1, 2, 3 and so on, without a gap",
        ),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor_id", sa.Text(), nullable=False, comment="of a token, or `system`"),
        sa.Column("actor_name", sa.Text(), nullable=False),
        sa.Column("actor_role", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("resource_kind", sa.Text(), nullable=False),
        sa.Column("resource_id", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False, comment="done, or refused for want of a role"),
        sa.Column(
            "changes", sa.Text(), nullable=False, comment="JSON as text, since the hash is over its letters"
        ),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text()),
        sa.Column("network", sa.Text(), nullable=False, comment="the client's /24, or /64 of IPv6"),
        sa.Column("hash", sa.Text(), nullable=False, comment="SHA-256 over the hash before it and this entry"),
        sa.PrimaryKeyConstraint("seq", name="pk_audit_log"),
    )
    op.create_index(
        "ix_audit_log_resource_kind_resource_id_seq", "audit_log", ["resource_kind", "resource_id", "seq"]
    )
    op.create_index("ix_audit_log_actor_id_seq", "audit_log", ["actor_id", "seq"])


def nobody_rewrites_it() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for deed in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER audit_log_no_{deed.lower()} BEFORE {deed} ON audit_log"
                " BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
            )
        # REPLACE deletes without asking the trigger above.
        op.execute(
            "CREATE TRIGGER audit_log_no_replace BEFORE INSERT ON audit_log"
            " WHEN EXISTS (SELECT 1 FROM audit_log WHERE seq = NEW.seq)"
            " BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
        )
        return
    op.execute(
        "CREATE FUNCTION audit_log_is_append_only() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$"
    )
    op.execute(
        "CREATE TRIGGER audit_log_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log"
        " FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_append_only()"
    )


def the_idempotency_keys() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("token_id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False, comment="of method, path, query and body"),
        sa.Column("claim", sa.Text(), nullable=False, comment="who holds the key; changes when it is taken over"),
        sa.Column("claimed_at", sa.BigInteger(), nullable=False, comment="forgotten after a day"),
        sa.Column("done_at", sa.BigInteger(), comment="set by the write's own transaction"),
        sa.Column("resource_kind", sa.Text()),
        sa.Column("resource_id", sa.Text()),
        sa.Column("status", sa.Integer()),
        sa.Column("body", sa.Text(), comment="of the answer; null if it held a secret"),
        sa.Column("etag", sa.Text()),
        sa.PrimaryKeyConstraint("token_id", "key", name="pk_idempotency_keys"),
    )
    op.create_index("ix_idempotency_keys_claimed_at", "idempotency_keys", ["claimed_at"])
