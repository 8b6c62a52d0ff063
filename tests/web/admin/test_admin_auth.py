"""The guard: the right token passes, guessing is slow, and memory stays bounded."""

from __future__ import annotations

import pytest

from proxy.web.admin import auth
from proxy.web.admin.auth import Guard, token_digest
from proxy.web.admin.errors import AdminError


class Watch:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def guard(watch: Watch) -> Guard:
    return Guard(token_digest("right"), watch)


def status(guard: Guard, header: str | None, address: str | None = "192.0.2.1") -> int:
    try:
        guard.check(header, address)
    except AdminError as fault:
        return fault.status
    return 200


@pytest.mark.parametrize("header", ["Bearer right", "bearer right", "BEARER  right "])
def test_the_right_token_passes(guard: Guard, header: str) -> None:
    """The scheme is matched without regard to case, as RFC 9110 has it."""
    assert status(guard, header) == 200


@pytest.mark.parametrize(
    "header", [None, "", "right", "Basic right", "Bearer", "Bearer ", "Bearer Right", "Bearer right x", "Bearer é"]
)
def test_anything_else_is_refused(guard: Guard, header: str | None) -> None:
    """There is one way in."""
    assert status(guard, header) == 401


def test_an_address_that_guessed_ten_times_is_locked_for_a_minute(guard: Guard, watch: Watch) -> None:
    """A weak token must not be found by trying; the lock holds even for the right one."""
    assert [status(guard, f"Bearer {n}") for n in range(11)] == [401] * 10 + [429]
    assert status(guard, "Bearer right") == 429
    watch.now += auth.LOCKOUT_S
    assert status(guard, "Bearer right") == 200


def test_the_lock_says_how_long(guard: Guard, watch: Watch) -> None:
    """Who mistyped needs to know when to try again."""
    for n in range(10):
        status(guard, f"Bearer {n}")
    watch.now += 20.5
    with pytest.raises(AdminError) as refused:
        guard.check("Bearer right", "192.0.2.1")
    assert refused.value.headers["Retry-After"] == "40"


def test_others_are_not_locked_out(guard: Guard) -> None:
    """A guesser must not close the plane to the admin; an IPv6 guesser has a whole /64 of addresses."""
    for n in range(20):
        status(guard, f"Bearer {n}", f"2001:db8::{n}")
    assert status(guard, "Bearer right", "2001:db8::ffff") == 429
    assert status(guard, "Bearer right", "2001:db8:0:1::1") == 200
    assert status(guard, "Bearer right", "192.0.2.1") == 200


def test_a_request_without_token_is_no_guess(guard: Guard) -> None:
    """A probe without a token would else lock its own machine's admin out."""
    assert {status(guard, None) for _ in range(50)} == {401}
    assert status(guard, "Bearer right") == 200


def test_the_right_token_forgives(guard: Guard) -> None:
    """Nine typing errors today and one tomorrow are no attack."""
    for n in range(9):
        status(guard, f"Bearer {n}")
    assert status(guard, "Bearer right") == 200
    assert [status(guard, f"Bearer {n}") for n in range(10)] == [401] * 10


def test_guessing_from_many_addresses_does_not_fill_memory(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every queue is bounded, this one too."""
    monkeypatch.setattr(auth, "ADDRESSES_MAX", 8)
    for n in range(100):
        status(guard, "Bearer wrong", f"192.0.2.{n}")
    assert len(guard._guesses) == 8
