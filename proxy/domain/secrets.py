"""Agent secrets `fg_live_<id>_<secret><crc>` and admin tokens `fga_live_<id>_<secret><crc>`, all of it base62.

The prefix and the checksum let secret scanners find one in a repository without false alarms, and let the gate
shed junk without a look-up. The checksum is no protection: what lets an agent in is the digest, which only
someone who holds the whole secret can have made.

There is nothing to compare in constant time here. `well_formed` looks at nothing that is secret: anyone can make
a text that passes it. The digest is a *key to look up*, not a value to compare: what leaks from the time of a
look-up is about the digest, from which nobody without the pepper gets to a secret. A plain, fast digest is right
because the secret has 160 random bits; slow ones are for passwords.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from functools import lru_cache

PREFIX = "fg_live_"
ADMIN_PREFIX = "fga_live_"
# 7 bytes name the secret, 20 bytes (160 bits) are the secret itself.
SECRET_RANDOM_BYTES = 27
SECRET_PATTERN = r"\bfg_live_[0-9A-Za-z]{10}_[0-9A-Za-z]{33}\b"
"""For secret scanners: `id` of 10, then 27 of secret and 6 of checksum."""
ADMIN_TOKEN_PATTERN = r"\bfga_live_[0-9A-Za-z]{10}_[0-9A-Za-z]{33}\b"
"""The same of admin tokens."""

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_PAIRS = [a + b for a in _DIGITS for b in _DIGITS]
_SHAPE = re.compile(r"fg_live_[0-9A-Za-z]{10}_[0-9A-Za-z]{33}").fullmatch
_ADMIN_SHAPE = re.compile(r"fga_live_[0-9A-Za-z]{10}_[0-9A-Za-z]{33}").fullmatch
_CRC_DIGITS = 6
_BLOCK_BYTES = 64


def make_secret(random_bytes: bytes, prefix: str = PREFIX) -> tuple[str, str]:
    """(secret id, whole text) out of `SECRET_RANDOM_BYTES` bytes of a cryptographic random source."""
    if len(random_bytes) != SECRET_RANDOM_BYTES:
        raise ValueError(f"a secret is made of {SECRET_RANDOM_BYTES} random bytes, not of {len(random_bytes)}")
    secret_id = _base62(random_bytes[:7], 10)
    body = f"{prefix}{secret_id}_{_base62(random_bytes[7:], 27)}"
    return secret_id, body + _checksum(body)


def well_formed(text: str) -> bool:
    """Whether `text` is shaped like an agent secret and its checksum is right. Cheap; proves nothing else."""
    return _SHAPE(text) is not None and text[-_CRC_DIGITS:] == _checksum(text[:-_CRC_DIGITS])


def well_formed_admin_token(text: str) -> bool:
    """As `well_formed`, of an admin token."""
    return _ADMIN_SHAPE(text) is not None and text[-_CRC_DIGITS:] == _checksum(text[:-_CRC_DIGITS])


def digest(pepper: bytes, text: str) -> str:
    """What is kept of a secret: HMAC-SHA256 under the installation's pepper, in hex."""
    inner, outer = _keyed(pepper)
    hashed = inner.copy()
    hashed.update(text.encode("utf-8", "surrogateescape"))
    digested = outer.copy()
    digested.update(hashed.digest())
    return digested.hexdigest()


@lru_cache(maxsize=4)
def _keyed(pepper: bytes) -> tuple[hashlib._Hash, hashlib._Hash]:
    """The two hashes of an HMAC (RFC 2104) as the key has left them: half of its work, done once."""
    key = (pepper if len(pepper) <= _BLOCK_BYTES else hashlib.sha256(pepper).digest()).ljust(_BLOCK_BYTES, b"\0")
    return hashlib.sha256(bytes(x ^ 0x36 for x in key)), hashlib.sha256(bytes(x ^ 0x5C for x in key))


def _checksum(body: str) -> str:
    high, low = divmod(zlib.crc32(body.encode()), 3844)
    high, middle = divmod(high, 3844)
    return _PAIRS[high] + _PAIRS[middle] + _PAIRS[low]


def _base62(data: bytes, width: int) -> str:
    number, digits = int.from_bytes(data), ""
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits = _DIGITS[digit] + digits
    return digits
