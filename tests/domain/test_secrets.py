"""Agent secrets can be told from junk without a look-up, and cannot be guessed."""

from __future__ import annotations

import hashlib
import hmac
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain import secrets
from proxy.domain.secrets import SECRET_PATTERN, SECRET_RANDOM_BYTES, digest, make_secret, well_formed

randomness = st.binary(min_size=SECRET_RANDOM_BYTES, max_size=SECRET_RANDOM_BYTES)
BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def test_a_secret_is_made_as_documented() -> None:
    """The format is public: scanners and the checksum of other implementations depend on it."""
    assert make_secret(bytes(range(27))) == (
        "000JVb3WII",
        "fg_live_000JVb3WII_10CYaQgxRfeYwfPWCIZpNmoEg264WLoOX",
    )


@given(randomness)
def test_every_secret_is_well_formed_and_found_by_scanners(random_bytes: bytes) -> None:
    """A secret that its own gate refused, or that no scanner found, would be worthless or dangerous."""
    secret_id, text = make_secret(random_bytes)
    assert well_formed(text)
    assert text.startswith(f"fg_live_{secret_id}_")
    assert re.findall(SECRET_PATTERN, f'key="{text}"\n{text}') == [text, text]


@given(randomness, st.integers(0, 51), st.sampled_from(BASE62))
def test_one_wrong_character_is_noticed(random_bytes: bytes, at: int, character: str) -> None:
    """A mistyped secret is junk, and junk costs no look-up."""
    _, text = make_secret(random_bytes)
    changed = text[:at] + character + text[at + 1 :]
    assert well_formed(changed) == (changed == text)


@given(randomness, randomness)
def test_different_randomness_makes_different_secrets(one: bytes, other: bytes) -> None:
    """No bit of the 160 may be lost."""
    assert (make_secret(one)[1] == make_secret(other)[1]) == (one == other)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sk-proj-abc",
        "fg_live_",
        "fg_live_000JVb3WII_10CYaQgxRfeYwfPWCIZpNmoEg264WLoO",
        "fg_live_000JVb3WII_10CYaQgxRfeYwfPWCIZpNmoEg264WLoOX\n",
        " fg_live_000JVb3WII_10CYaQgxRfeYwfPWCIZpNmoEg264WLoOX",
        "fg_test_000JVb3WII_10CYaQgxRfeYwfPWCIZpNmoEg264WLoOX",
        "fg_live_000JVb3WII-10CYaQgxRfeYwfPWCIZpNmoEg264WLoOX",
        "fg_live_000JVb3WII_10CYaQgxRfeYwfPWCIZpNmoEg264WLzzz",
        "fg_live_000JVb3WII_10CYaQgxRfeYwfPWCIZpNmoEg264WL\ud800OX",
        "fg_live_٠00JVb3WII_10CYaQgxRfeYwfPWCIZpNmoEg264WLoOX",
        "x" * 1_000_000,
    ],
)
def test_junk_is_not_well_formed(text: str) -> None:
    """Whatever a header may hold, the answer is no and never an exception."""
    assert not well_formed(text)


def test_the_digest_is_keyed() -> None:
    """A stolen database does not say which secrets it holds, unless the pepper was stolen too."""
    _, text = make_secret(bytes(range(27)))
    assert digest(b"pepper", text) == hmac.new(b"pepper", text.encode(), hashlib.sha256).hexdigest()
    for pepper in (b"", b"p" * 64, b"p" * 65, b"p" * 200):
        assert digest(pepper, text) == hmac.new(pepper, text.encode(), hashlib.sha256).hexdigest()
    assert digest(b"pepper", text) != digest(b"salt", text)


def test_a_secret_is_not_made_of_less_randomness() -> None:
    """A caller that passes too little must hear of it."""
    with pytest.raises(ValueError, match="27 random bytes"):
        make_secret(b"short")


def test_an_admin_token_is_made_alike_and_is_no_agent_secret() -> None:
    """A scanner tells them apart, and neither opens the other's door."""
    id, text = secrets.make_secret(bytes(range(secrets.SECRET_RANDOM_BYTES)), secrets.ADMIN_PREFIX)

    assert text.startswith(f"fga_live_{id}_")
    assert re.fullmatch(secrets.ADMIN_TOKEN_PATTERN, text)
    assert secrets.well_formed_admin_token(text)
    assert not secrets.well_formed(text)
    assert not re.search(secrets.SECRET_PATTERN, text)
    assert not secrets.well_formed_admin_token(text[:-1] + ("0" if text[-1] != "0" else "1"))
    assert not secrets.well_formed_admin_token(secrets.make_secret(bytes(secrets.SECRET_RANDOM_BYTES))[1])
