"""The guard: the right token passes, guessing is slow, and memory stays bounded."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from proxy.domain.deeds import Actor, AdminToken
from proxy.web.admin import auth
from proxy.web.admin.auth import FIRST_OWNER, Doorkeeper, Guard, network, token_digest
from proxy.web.admin.errors import AdminError
from proxy.web.admin.routes import Route
from tests.doubles.directory import NOW


def token(id: str, **fields: Any) -> AdminToken:
    ends = {"expires_at": None, "revoked_at": None, **fields}
    return AdminToken(id, f"{id}'s", "operator", "", NOW, "bootstrap", last_used_at=None, **ends)


KEPT = {
    "kept": token("kept"),
    "ends-later": token("ends-later", expires_at=NOW + timedelta(microseconds=1)),
    "ended": token("ended", expires_at=NOW),
    "revoked": token("revoked", revoked_at=NOW),
}


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
    async def find(text: str) -> AdminToken | None:
        return KEPT.get(text)

    return Guard(token_digest("right"), find, lambda: NOW, watch)


async def status(guard: Guard, header: str | None, address: str | None = "192.0.2.1") -> int:
    try:
        await guard.check(header, address)
    except AdminError as fault:
        return fault.status
    return 200


@pytest.mark.parametrize("header", ["Bearer right", "bearer right", "BEARER  right "])
async def test_the_right_token_passes(guard: Guard, header: str) -> None:
    """The scheme is matched without regard to case, as RFC 9110 has it."""
    assert await status(guard, header) == 200


@pytest.mark.parametrize(
    "header", [None, "", "right", "Basic right", "Bearer", "Bearer ", "Bearer Right", "Bearer right x", "Bearer é"]
)
async def test_anything_else_is_refused(guard: Guard, header: str | None) -> None:
    """There is one way in."""
    assert await status(guard, header) == 401


async def test_an_address_that_guessed_ten_times_is_locked_for_a_minute(guard: Guard, watch: Watch) -> None:
    """A weak token must not be found by trying; the lock holds even for the right one."""
    assert [await status(guard, f"Bearer {n}") for n in range(11)] == [401] * 10 + [429]
    assert await status(guard, "Bearer right") == 429
    watch.now += auth.LOCKOUT_S
    assert await status(guard, "Bearer right") == 200


async def test_the_lock_says_how_long(guard: Guard, watch: Watch) -> None:
    """Who mistyped needs to know when to try again."""
    for n in range(10):
        await status(guard, f"Bearer {n}")
    watch.now += 20.5
    with pytest.raises(AdminError) as refused:
        await guard.check("Bearer right", "192.0.2.1")
    assert refused.value.headers["Retry-After"] == "40"


async def test_others_are_not_locked_out(guard: Guard) -> None:
    """A guesser must not close the plane to the admin; an IPv6 guesser has a whole /64 of addresses."""
    for n in range(20):
        await status(guard, f"Bearer {n}", f"2001:db8::{n}")
    assert await status(guard, "Bearer right", "2001:db8::ffff") == 429
    assert await status(guard, "Bearer right", "2001:db8:0:1::1") == 200
    assert await status(guard, "Bearer right", "192.0.2.1") == 200


async def test_a_request_without_token_is_no_guess(guard: Guard) -> None:
    """A probe without a token would else lock its own machine's admin out."""
    assert {await status(guard, None) for _ in range(50)} == {401}
    assert await status(guard, "Bearer right") == 200


async def test_the_right_token_forgives(guard: Guard) -> None:
    """Nine typing errors today and one tomorrow are no attack."""
    for n in range(9):
        await status(guard, f"Bearer {n}")
    assert await status(guard, "Bearer right") == 200
    assert [await status(guard, f"Bearer {n}") for n in range(10)] == [401] * 10


async def test_guessing_from_many_addresses_does_not_fill_memory(
    guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every queue is bounded, this one too."""
    monkeypatch.setattr(auth, "ADDRESSES_MAX", 8)
    for n in range(100):
        await status(guard, "Bearer wrong", f"192.0.2.{n}")
    assert len(guard._guesses) == 8


async def test_a_token_that_is_kept_tells_who_comes(guard: Guard) -> None:
    """What is written down later, and what is allowed, depends on it."""
    assert await guard.check("Bearer kept", "192.0.2.1") == Actor("kept", "kept's", "operator")
    assert await guard.check("Bearer ends-later", "192.0.2.1") == Actor("ends-later", "ends-later's", "operator")
    assert await guard.check("Bearer right", "192.0.2.1") == FIRST_OWNER


@pytest.mark.parametrize("text", ["ended", "revoked"])
async def test_a_token_that_has_ended_is_refused_but_is_no_guess(guard: Guard, text: str) -> None:
    """A job that still uses last year's token must not lock its whole machine out."""
    assert {await status(guard, f"Bearer {text}") for _ in range(50)} == {401}
    assert await status(guard, "Bearer right") == 200


@pytest.mark.parametrize(
    ("address", "shown"),
    [("192.0.2.77", "192.0.2.0/24"), ("2001:db8::1:2", "2001:db8::/64"), ("", ""), (None, ""), ("nonsense", "")],
)
async def test_of_an_address_the_network_is_kept(address: str | None, shown: str) -> None:
    """The audit log says from where, and not exactly who."""
    assert network(address, 24) == shown


async def nothing(asked: Any) -> None: ...


async def test_a_role_may_what_lesser_roles_may_and_nothing_more() -> None:
    """The whole table of who may what."""
    routes = {
        "owner": Route("GET", "/a", nothing, "", least="owner"),
        "operator": Route("POST", "/b", nothing, ""),
        "read-only": Route("GET", "/c", nothing, ""),
    }
    allowed = {
        (role, least)
        for role in ("owner", "operator", "read-only")
        for least, route in routes.items()
        if Doorkeeper().refuse(Actor("id", "name", role), route) is None
    }
    assert allowed == {
        *(("owner", least) for least in routes),
        ("operator", "operator"),
        ("operator", "read-only"),
        ("read-only", "read-only"),
    }


async def test_nobody_comes_in_as_the_gate_itself() -> None:
    """The role of what the gate does by itself must open no door."""
    assert Doorkeeper().refuse(Actor("", "", "system"), Route("GET", "/c", nothing, "")) is not None


async def test_a_refusal_is_written_down_once_a_minute(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who may read only must not be able to fill the audit log, nor the memory."""
    monkeypatch.setattr(auth, "REFUSALS_MAX", 2)
    doorkeeper, route = Doorkeeper(watch), Route("POST", "/b", nothing, "")
    actors = [Actor(str(n), "", "read-only") for n in range(3)]

    assert [doorkeeper.worth_writing_down(actors[0], route) for _ in range(3)] == [True, False, False]
    watch.now += auth.REFUSED_AGAIN_S
    assert [doorkeeper.worth_writing_down(actor, route) for actor in actors] == [True, True, True]
    assert len(doorkeeper._told) == 2
