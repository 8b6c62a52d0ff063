"""The tables of the ledger. Times are whole microseconds since 1970 (UTC), exact and equal on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Numeric,
    Table,
    Text,
    TypeDecorator,
    false,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeEngine

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def micros(moment: datetime) -> int:
    """Microseconds since 1970 of an aware datetime, exactly; ValueError for a naive one."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no timezone, so it is no moment")
    return (moment - EPOCH) // MICROSECOND


def moment(us: int) -> datetime:
    return EPOCH + timedelta(microseconds=us)


def utc_text(us: int) -> str:
    """RFC 3339 as JSON shows it: "2026-11-20T19:20:19.123456Z"."""
    return moment(us).isoformat(timespec="microseconds").replace("+00:00", "Z")


class Moment(TypeDecorator[datetime]):
    """A datetime in the code, microseconds since 1970 in the table."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else micros(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        return None if value is None else moment(value)


class ExactUsd(TypeDecorator[str]):
    """A decimal string: NUMERIC where the database counts exactly, text on SQLite, which would make it a float."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(Numeric(38, 18))
        return dialect.type_descriptor(Text())

    def process_bind_param(self, value: str | None, dialect: Dialect) -> Any:
        return Decimal(value) if value is not None and dialect.name == "postgresql" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else str(value)


Json = JSON().with_variant(JSONB(), "postgresql")
# SQLite numbers rows by itself only in a column that is spelled INTEGER.
RowNumber = BigInteger().with_variant(Integer(), "sqlite")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

customers = Table(
    "customers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("email", Text),
    Column("phone", Text),
    Column("address", Text),
    Column("description", Text),
    Column("timezone", Text, nullable=False, comment="IANA name; windows of budgets run in it"),
    Column("status", Text, nullable=False, comment="active or suspended"),
    Column("plan", Text, nullable=False, comment="no foreign key: plans come from files and may return"),
    Column("anchor", Moment, nullable=False, comment="where the subscription's windows are counted from"),
    Column("created_at", Moment, nullable=False),
    Column(
        "revision",
        BigInteger,
        nullable=False,
        comment="advances with every change of the customer, its agents or secrets; checked at each admission",
    ),
    Column(
        "subscribed",
        Boolean,
        nullable=False,
        server_default=true(),
        comment="false: its plan is the default plan of the settings, whichever that is",
    ),
    Column("scheduled_plan", Text, comment="which its plan will be"),
    Column("scheduled_at", Moment, comment="from when on"),
    Column(
        "scheduled_cancel",
        Boolean,
        nullable=False,
        server_default=false(),
        comment="true: the subscription ends then",
    ),
    Column(
        "overrides", Json, nullable=False, server_default="{}", comment="what wins over its plan, in counted units"
    ),
    Column(
        "overridden",
        Boolean,
        nullable=False,
        server_default=false(),
        comment="true: it had overrides once, so that no plan tells what its budgets were",
    ),
    Index(None, "created_at", "id"),
)
Index(
    "ix_customers_scheduled_at",
    customers.c.scheduled_at,
    sqlite_where=customers.c.scheduled_at.is_not(None),
    postgresql_where=customers.c.scheduled_at.is_not(None),
)

subscription_changes = Table(
    "subscription_changes",
    metadata,
    Column("id", RowNumber, primary_key=True),
    Column("customer_id", Text, ForeignKey("customers.id"), nullable=False),
    Column("changed_at", Moment, nullable=False),
    Column("what", Text, nullable=False, comment="started, changed, canceled, scheduled and so on"),
    Column("from_plan", Text, comment="null at the start"),
    Column("plan", Text, nullable=False),
    Column("anchor", Moment, nullable=False),
    Column("effective_at", Moment, nullable=False),
    Index(None, "customer_id", "id"),
)

grants = Table(
    "grants",
    metadata,
    Column("id", Text, primary_key=True),
    Column("customer_id", Text, ForeignKey("customers.id"), nullable=False),
    Column("meter", Text, nullable=False),
    Column("amount", BigInteger, nullable=False, comment="in the meter's unit; cost_usd: microdollars"),
    Column("per", Text, nullable=False),
    Column("budget_id", Text, comment="null: every budget of this meter and per"),
    Column("priority", Integer, nullable=False, comment="1 to 255; lower burns first"),
    Column("effective_at", Moment, nullable=False),
    Column("expires_at", Moment),
    Column("reason", Text),
    Column("created_at", Moment, nullable=False),
    Column("voided_at", Moment, comment="what was used by then stays used"),
    Index(None, "customer_id", "created_at", "id"),
)

contacts = Table(
    "contacts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("customer_id", Text, ForeignKey("customers.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("email", Text),
    Column("phone", Text),
    Column("description", Text),
    Column("created_at", Moment, nullable=False),
    Index(None, "customer_id", "created_at", "id"),
)

agent_types = Table(
    "agent_types",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("kind", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
    Index(None, "created_at", "id"),
)

agents = Table(
    "agents",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("customer_id", Text, ForeignKey("customers.id"), nullable=False),
    Column("agent_type_id", Text, ForeignKey("agent_types.id"), nullable=False, index=True),
    Column("contact_id", Text, ForeignKey("contacts.id")),
    Column("created_at", Moment, nullable=False),
    Index(None, "customer_id", "created_at", "id"),
    Index(None, "created_at", "id"),
)

agent_secrets = Table(
    "agent_secrets",
    metadata,
    Column("id", Text, primary_key=True),
    Column("agent_id", Text, ForeignKey("agents.id"), nullable=False, index=True),
    Column("digest", Text, nullable=False, unique=True, comment="keyed digest in hex; the secret is never kept"),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment),
    Column("revoked_at", Moment, comment="kept after revocation, so that its digest is taken out of Redis again"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", RowNumber, primary_key=True, comment="never reused: whoever waits for a row waits for its end"),
    Column("customer_id", Text, nullable=False, comment="whose part of the directory must be projected"),
    Column("created_at", Moment, nullable=False),
    sqlite_autoincrement=True,
)

plan_versions = Table(
    "plan_versions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("applied_at", Moment, nullable=False),
    Column("document", Json, nullable=False, comment="the plan's content; immutable"),
    Column("applied_by", Text, nullable=False, server_default="files", comment="an admin token's name, or files"),
    Column("message", Text, nullable=False, server_default="", comment="why, as whoever did it says"),
)

plan_owners = Table(
    "plan_owners",
    metadata,
    Column("id", Text, primary_key=True, comment="of a plan that is live"),
    Column("owner", Text, nullable=False, comment="files or store: where it is edited"),
    Column("file", Text, comment="below policies/, of a plan that files own"),
)

policy_revisions = Table(
    "policy_revisions",
    metadata,
    Column("revision", RowNumber, primary_key=True, comment="a higher revision replaces a lower one whole"),
    Column("applied_at", Moment, nullable=False),
    Column("document", Json, nullable=False, comment="models and plans, with the plans' versions"),
    sqlite_autoincrement=True,
)

usage_events = Table(
    "usage_events",
    metadata,
    Column(
        "id", Text, primary_key=True, comment="{request_id}:{attempt}[:c{seq}]: delivered twice, recorded once"
    ),
    Column("request_id", Text, nullable=False, index=True),
    Column("attempt", Integer, nullable=False),
    Column("customer_id", Text, nullable=False, comment="no foreign key: the record outlives the directory"),
    Column("agent_id", Text, nullable=False),
    Column("agent_type_id", Text, nullable=False),
    Column("plan_id", Text, nullable=False),
    Column("plan_version", Integer, nullable=False),
    Column("user_id", Text),
    Column("anonymous_id", Text),
    Column("run_id", Text),
    Column("step", Text),
    Column("endpoint", Text, nullable=False),
    Column("streamed", Boolean, nullable=False),
    Column("model", Text, nullable=False, comment="as asked for"),
    Column("model_served", Text, comment="as called and priced in this attempt"),
    Column("upstream", Text),
    Column("provider_request_id", Text),
    Column("fallback_from", Text),
    Column("fallback_reason", Text),
    Column("kind", Text, nullable=False, comment="terminal (one per attempt) or correction (signed differences)"),
    Column("seq", BigInteger, nullable=False, comment="the shard's running number, by which a loss is noticed"),
    Column("late", Boolean, nullable=False),
    Column("disputed", Boolean, nullable=False),
    Column("status", Text, nullable=False),
    Column("http_status", Integer),
    Column("error_type", Text),
    Column("usage_source", Text, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("uncached_input_tokens", BigInteger, nullable=False),
    Column("cache_read_tokens", BigInteger, nullable=False),
    Column("cache_write_tokens", BigInteger, nullable=False),
    Column("audio_input_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("audio_output_tokens", BigInteger, nullable=False),
    Column("raw_usage", Json, comment="the provider's own object, numbers only"),
    Column("cost_usd", ExactUsd, comment="exact, for people and for SQL by hand; null where no price is known"),
    Column("price_version", Text),
    Column("held", Json, nullable=False),
    Column("charged", Json, nullable=False, comment="what Redis applied; sum this, never recompute it"),
    Column("admitted_at", BigInteger, nullable=False),
    Column("first_byte_at", BigInteger),
    Column("finished_at", BigInteger),
    Column("latency_ms", BigInteger),
    Column("ttft_ms", BigInteger),
    Column("queued_ms", BigInteger),
    Column("billable", Boolean, nullable=False),
    Column("shard", Integer, nullable=False),
    Column("cost_pico", BigInteger, comment="cost_usd in picodollars: sums exactly on both"),
    Index(None, "admitted_at", "id"),
    Index(None, "customer_id", "admitted_at", "id"),
    Index(None, "agent_id", "admitted_at", "id"),
    Index(None, "model", "admitted_at", "id"),
    Index(None, "shard", "seq"),
)
# Most calls name no user, run or step, and most succeed: these indexes hold only the others.
for _name in ("user_id", "run_id", "step"):
    _given = usage_events.c[_name].is_not(None)
    Index(
        f"ix_usage_events_{_name}",
        usage_events.c[_name],
        usage_events.c.admitted_at,
        usage_events.c.id,
        sqlite_where=_given,
        postgresql_where=_given,
    )
Index(
    "ix_usage_events_kind",
    usage_events.c.admitted_at,
    sqlite_where=usage_events.c.kind != "terminal",
    postgresql_where=usage_events.c.kind != "terminal",
)
Index(
    "ix_usage_events_status",
    usage_events.c.status,
    usage_events.c.admitted_at,
    usage_events.c.id,
    sqlite_where=usage_events.c.status != "succeeded",
    postgresql_where=usage_events.c.status != "succeeded",
)

set_aside = Table(
    "set_aside",
    metadata,
    Column("id", Text, primary_key=True, comment="the event's id, or the stream entry's where it has none"),
    Column("reason", Text, nullable=False, comment="what the database, or the reader, said"),
    Column("document", Text, nullable=False, comment="JSON as text, since it is what could not be stored as such"),
    Column("set_aside_at", Moment, nullable=False),
)

counter_sums = Table(
    "counter_sums",
    metadata,
    Column("counter", Text, primary_key=True, comment="the counter's whole name, as `charged` gives it"),
    Column("shard", Integer, nullable=False, index=True),
    Column("amount", BigInteger, nullable=False, comment="sum of `charged` over the rows that were inserted"),
    Column("watched", BigInteger, nullable=False, server_default="0", comment="the amount that alerts have seen"),
)
Index(
    "ix_counter_sums_unwatched",
    counter_sums.c.counter,
    sqlite_where=counter_sums.c.amount != counter_sums.c.watched,
    postgresql_where=counter_sums.c.amount != counter_sums.c.watched,
)

denials = Table(
    "denials",
    metadata,
    Column("minute", BigInteger, primary_key=True, comment="minutes since 1970"),
    Column("customer_id", Text, primary_key=True, comment="empty where nobody was identified"),
    Column("agent_id", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("reason", Text, primary_key=True),
    Column(
        "shadow",
        Boolean,
        primary_key=True,
        server_default=false(),
        comment="true: would have been refused, and was let through",
    ),
    Column("count", BigInteger, nullable=False),
    Column("sample_request_id", Text, nullable=False),
    Column("sample_message", Text, nullable=False),
    Index(None, "customer_id", "minute"),
)

denial_deltas = Table(
    "denial_deltas",
    metadata,
    Column("id", Text, primary_key=True, comment="a delta that is delivered again must not count again"),
    Column("applied_at", Moment, nullable=False, index=True, comment="forgotten after a day"),
)

admin_tokens = Table(
    "admin_tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False, comment="owner, operator or read-only"),
    Column("digest", Text, nullable=False, unique=True, comment="keyed digest; the token itself is kept nowhere"),
    Column("created_at", Moment, nullable=False),
    Column("created_by", Text, nullable=False, comment="the id of the token that made it"),
    Column("expires_at", Moment),
    Column("revoked_at", Moment),
    Column("last_used_at", Moment, comment="to within a minute or so"),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False, comment="1, 2, 3 and so on, without a gap"),
    Column("at", Moment, nullable=False),
    Column("actor_id", Text, nullable=False, comment="of a token, or `system`"),
    Column("actor_name", Text, nullable=False),
    Column("actor_role", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("route", Text, nullable=False),
    Column("resource_kind", Text, nullable=False),
    Column("resource_id", Text, nullable=False),
    Column("outcome", Text, nullable=False, comment="done, or refused for want of a role"),
    Column("changes", Text, nullable=False, comment="JSON as text, since the hash is over its letters"),
    Column("request_id", Text, nullable=False),
    Column("idempotency_key", Text),
    Column("network", Text, nullable=False, comment="the client's /24, or /64 of IPv6"),
    Column("hash", Text, nullable=False, comment="SHA-256 over the hash before it and this entry"),
    Index(None, "resource_kind", "resource_id", "seq"),
    Index(None, "actor_id", "seq"),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("token_id", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("fingerprint", Text, nullable=False, comment="of method, path, query and body"),
    Column("claim", Text, nullable=False, comment="who holds the key; changes when it is taken over"),
    Column("claimed_at", Moment, nullable=False, index=True, comment="forgotten after a day"),
    Column("done_at", Moment, comment="set by the write's own transaction"),
    Column("resource_kind", Text),
    Column("resource_id", Text),
    Column("status", Integer),
    Column("body", Text, comment="of the answer; null if it held a secret"),
    Column("etag", Text),
)
