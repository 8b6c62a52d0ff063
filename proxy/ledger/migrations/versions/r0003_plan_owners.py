"""Plans have an owner, and their versions say who made them and why."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    by = sa.Column(
        "applied_by", sa.Text(), nullable=False, server_default="files", comment="an admin token's name, or files"
    )
    op.add_column("plan_versions", by)
    why = sa.Column("message", sa.Text(), nullable=False, server_default="", comment="why, as whoever did it says")
    op.add_column("plan_versions", why)
    op.create_table(
        "plan_owners",
        sa.Column("id", sa.Text(), nullable=False, comment="of a plan that is live"),
        sa.Column("owner", sa.Text(), nullable=False, comment="files or store: where it is edited"),
        sa.Column("file", sa.Text(), comment="below policies/, of a plan that files own"),
        sa.PrimaryKeyConstraint("id", name="pk_plan_owners"),
    )
