"""Who and what a call was for is read alike on every endpoint: no report by user may leave half of them out."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.domain.asks import Attribution
from proxy.domain.refusals import Refused
from proxy.domain.requests import READERS, read_request

HELLO = [{"role": "user", "content": "hello"}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HELLO},
    "/v1/responses": {"input": "hello"},
    "/v1/messages": {"messages": HELLO, "max_tokens": 9},
    "/v1/messages/count_tokens": {"messages": HELLO},
    "/v1/completions": {"prompt": "hello"},
    "/v1/embeddings": {"input": "hello"},
}
HEADERS = {
    "faregate-user-id": "u-head",
    "faregate-anonymous-id": "a-head",
    "faregate-run-id": "r-head",
    "faregate-step": "s-head",
}


def read(endpoint: str, headers: dict[str, str], **fields: Any) -> Attribution:
    body = {"model": "m", **BODIES[endpoint], **fields}
    return read_request(endpoint, "", body, headers, lambda user: f"digest-{len(user)}").attribution


def said(endpoint: str, user: Any = None, **metadata: Any) -> dict[str, Any]:
    """The fields that say it in a body of that endpoint."""
    if endpoint.startswith("/v1/messages"):
        return {"metadata": {**metadata, **({} if user is None else {"user_id": user})}}
    return {"user": user, "metadata": metadata}


def test_every_endpoint_is_in_this_table() -> None:
    assert BODIES.keys() == READERS.keys()


@pytest.mark.parametrize("endpoint", READERS)
def test_it_stands_in_headers_or_in_the_body_and_headers_go_first(endpoint: str) -> None:
    fields = said(endpoint, "u", anonymous_id="a", run_id="r", step="s")
    assert read(endpoint, {}, **fields) == Attribution("u", "a", "r", "s")
    assert read(endpoint, HEADERS) == Attribution("u-head", "a-head", "r-head", "s-head")
    assert read(endpoint, HEADERS, **fields) == Attribution("u-head", "a-head", "r-head", "s-head")
    assert read(endpoint, {"faregate-step": "s-head"}, **fields) == Attribution("u", "a", "r", "s-head")
    assert read(endpoint, {}) == read(endpoint, {}, metadata=None) == Attribution()


@pytest.mark.parametrize("endpoint", READERS)
@pytest.mark.parametrize("who", ["anna@example.com", "+49 170 1234567"])
def test_whoever_can_be_recognised_is_kept_as_a_digest(endpoint: str, who: str) -> None:
    """Of the user and of the anonymous one, wherever they are named."""
    kept = f"digest-{len(who)}"
    assert read(endpoint, {}, **said(endpoint, who, anonymous_id=who)) == Attribution(kept, kept)
    named = {"faregate-user-id": who, "faregate-anonymous-id": who}
    assert read(endpoint, named) == Attribution(kept, kept)


FAULTS = [
    # where, a value, in whose words it is refused
    ("run_id", 7, "a string"),
    ("step", ["x"], "a string"),
    ("anonymous_id", {"x": 1}, "a string"),
    ("run_id", "r" * 257, "256"),
    ("step", "a\x00b", "control"),
    ("anonymous_id", "a\nb", "control"),
]


@pytest.mark.parametrize("endpoint", READERS)
@pytest.mark.parametrize(("name", "value", "says"), FAULTS)
def test_what_cannot_be_kept_is_refused_by_its_name(endpoint: str, name: str, value: Any, says: str) -> None:
    """Cut off or left out in silence, it would be found missing in a report."""
    with pytest.raises(Refused) as caught:
        read(endpoint, {}, **said(endpoint, **{name: value}))
    assert (caught.value.refusal.status, caught.value.refusal.param) == (400, f"metadata.{name}")
    assert says in caught.value.refusal.message


@pytest.mark.parametrize("endpoint", READERS)
@pytest.mark.parametrize("name", HEADERS)
def test_headers_are_as_bounded_as_the_body(endpoint: str, name: str) -> None:
    assert read(endpoint, {name: "x" * 256}) != Attribution()
    for value in ("x" * 257, "a\tb", "a\x7fb"):
        with pytest.raises(Refused) as caught:
            read(endpoint, {name: value})
        assert (caught.value.refusal.status, caught.value.refusal.param) == (400, name)
        assert value not in caught.value.refusal.message


@pytest.mark.parametrize("endpoint", READERS)
def test_a_user_of_a_wrong_kind_is_refused(endpoint: str) -> None:
    with pytest.raises(Refused) as caught:
        read(endpoint, {}, **said(endpoint, 7))
    assert caught.value.refusal.param in ("user", "metadata.user_id")
    with pytest.raises(Refused):
        read(endpoint, {}, metadata="x")
