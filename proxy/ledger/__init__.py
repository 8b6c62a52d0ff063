"""The ledger: the only room that knows SQL (SQLite and Postgres), and what *was* spent.

In: entries of the shard streams, changes to the directory, applied policies. Out: usage events recorded once,
the directory projected into Redis through an outbox, and answers read from the record. What may be spent *now*
is not its business; and the spool is files alone, for the time when Redis is away.
"""
