"""Alembic's steps from an empty ledger to the present one. They are run by `proxy.ledger.migrate`."""
