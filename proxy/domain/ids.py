"""Ids that sort by the time of their making, and the hash that gives a customer its shard."""

from __future__ import annotations

import binascii


def new_id(prefix: str, now_ms: int, randomness: bytes) -> str:
    """`req_0193…`: prefix, milliseconds, randomness, all in hex so that text order is time order."""
    return f"{prefix}_{now_ms:012x}{randomness.hex()}"


def shard_of(customer_id: str, shards: int) -> int:
    """The shard of a customer: CRC16 (XMODEM, as Redis Cluster hashes its slots) modulo `shards`."""
    return binascii.crc_hqx(customer_id.encode(), 0) % shards
