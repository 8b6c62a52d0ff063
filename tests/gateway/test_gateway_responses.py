"""Responses that upstreams keep: nobody reaches another's, and what is continued is paid for."""

from __future__ import annotations

from typing import Any

import pytest
from gateway_doubles import SECRET, Doubles, FakeAnswer, FakeCall, model, policy

from proxy.domain.policy import Target
from proxy.domain.refusals import Refusal, Refused
from proxy.domain.usage import Usage
from proxy.gateway.journey import serve
from proxy.gateway.ports import KeptResponse, StoreAway, StoredResponse, UpstreamFailed
from proxy.gateway.responses import stored_response

AT = ("up", "small")


class KeptAnswer(FakeAnswer):
    kept = KeptResponse("resp_1", ("msg_1",), ("ws_1",))


def call(**body: Any) -> FakeCall:
    made = FakeCall({"model": "small", "input": "hello", "max_output_tokens": 50, **body})
    made.endpoint = "/v1/responses"
    return made


async def refusal(doubles: Doubles, asked: FakeCall) -> Refusal:
    with pytest.raises(Refused) as caught:
        await serve(asked, doubles.house)
    return caught.value.refusal


@pytest.fixture
def doubles() -> Doubles:
    return Doubles()


async def test_an_answer_is_remembered_with_what_it_weighs(doubles: Doubles) -> None:
    """A response weighs all that it was made from; an item only what the model made, where that is all of it."""
    doubles.provider.answers = [KeptAnswer([b"{}"], usage=Usage(7, 5))]
    asked = call()
    await serve(asked, doubles.house)
    assert asked.wrote == [("answer", b"{}")]
    assert doubles.stored_responses.responses == {("acme", "resp_1"): StoredResponse(*AT, 12)}
    assert doubles.stored_responses.items == {
        ("acme", "msg_1"): StoredResponse(*AT, 5),
        ("acme", "ws_1"): StoredResponse(*AT, 12),
    }


@pytest.mark.parametrize("usage", [Usage(7, 5, source="estimated"), Usage(7, 5, disputed=True)])
async def test_a_weight_that_nobody_vouches_for_is_none(doubles: Doubles, usage: Usage) -> None:
    """An estimate may be too small, and a bound must not be."""
    doubles.provider.answers = [KeptAnswer([b"{}"], usage=usage)]
    await serve(call(), doubles.house)
    assert doubles.stored_responses.responses == {("acme", "resp_1"): StoredResponse(*AT, None)}


async def test_what_is_not_stored_is_not_remembered(doubles: Doubles) -> None:
    """Neither by the client's wish, nor where the upstream keeps nothing."""
    doubles.provider.answers = [KeptAnswer([b"{}"]), FakeAnswer([b"{}"])]
    await serve(call(store=False), doubles.house)
    await serve(call(), doubles.house)
    assert doubles.stored_responses.responses == {}


async def test_a_stream_is_remembered_before_its_last_byte(doubles: Doubles) -> None:
    """A client continues as soon as it has seen the end."""
    doubles.provider.answers = [KeptAnswer([b"a", b"b"], streamed=True, tail=b"end")]
    asked = call(stream=True)
    seen: list[bool] = []
    end = asked.end

    async def ended(tail: bytes) -> None:
        seen.append(bool(doubles.stored_responses.responses) and bool(doubles.budgets.settled))
        await end(tail)

    asked.end = ended  # type: ignore[method-assign]
    await serve(asked, doubles.house)
    assert seen == [True]


async def test_an_answer_that_cannot_be_remembered_is_given_all_the_same(doubles: Doubles) -> None:
    """It is paid for; only coming back to it does not work, and the operator hears of that."""
    doubles.provider.answers = [KeptAnswer([b"{}"])]
    doubles.stored_responses.fails = StoreAway("away")
    asked = call()
    await serve(asked, doubles.house)
    assert asked.wrote == [("answer", b"{}")]
    assert doubles.meters.faults == ["response_not_remembered"]


async def held_tokens(doubles: Doubles, **body: Any) -> int:
    await serve(call(**body), doubles.house)
    return doubles.budgets.reserved[-1].holds[0].amount


async def test_what_is_continued_is_held_for(doubles: Doubles) -> None:
    """The provider reads it again, and bills it again."""
    plain = await held_tokens(doubles)
    doubles.stored_responses.responses[("acme", "resp_1")] = StoredResponse(*AT, 3_000)
    doubles.stored_responses.items[("acme", "msg_1")] = StoredResponse(*AT, 500)
    assert 3_000 <= await held_tokens(doubles, previous_response_id="resp_1") - plain < 3_100
    item = {"type": "item_reference", "id": "msg_1"}
    assert 500 <= await held_tokens(doubles, input=[item]) - plain < 600
    doubles.stored_responses.responses[("acme", "resp_2")] = StoredResponse(*AT, None)
    doubles.directory.now = policy(2, models=[model("small", context_tokens=9_000)])
    doubles.house.knowledge.forget()
    assert await held_tokens(doubles, previous_response_id="resp_2") == 9_000 + 50
    thoughts = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "x"}]}
    assert await held_tokens(doubles, input=[thoughts]) == 9_000 + 50


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_not_found", "previous_response_id"),
        ({"input": [{"type": "item_reference", "id": "resp_1"}]}, "not_found", "input"),
        ({"input": [{"type": "reasoning", "id": "resp_1", "summary": []}]}, "not_found", "input"),
    ],
)
async def test_anothers_and_nobodys_are_the_same_404(
    doubles: Doubles, body: dict[str, Any], code: str, param: str
) -> None:
    """Whoever guesses ids learns nothing, and nothing is sent."""
    nobodys = await refusal(doubles, call(**body))
    doubles.stored_responses.responses[("rival", "resp_1")] = StoredResponse(*AT, 5)
    doubles.stored_responses.items[("rival", "resp_1")] = StoredResponse(*AT, 5)
    assert await refusal(doubles, call(**body)) == nobodys
    assert (nobodys.status, nobodys.code, nobodys.param) == (404, code, param)
    assert doubles.provider.sent == []


async def test_without_redis_nobody_can_say_whose_it_is(doubles: Doubles) -> None:
    doubles.stored_responses.fails = StoreAway("away")
    told = await refusal(doubles, call(previous_response_id="resp_1"))
    assert (told.reason, told.status) == ("gate_unavailable", 503)


async def test_a_continued_response_goes_where_it_is_kept(doubles: Doubles) -> None:
    """Another account has never heard of it: neither the first target nor a fallback will do."""
    targets = (Target("first", "small"), Target("up", "small"))
    doubles.directory.now = policy(models=[model("small", targets=targets, fallbacks=("big",)), model("big")])
    doubles.house.providers = {"first": doubles.provider, "up": doubles.provider}  # type: ignore[dict-item]
    doubles.stored_responses.responses[("acme", "resp_1")] = StoredResponse(*AT, 5)
    await serve(call(previous_response_id="resp_1"), doubles.house)
    assert doubles.budgets.events()[-1]["upstream"] == "up"
    doubles.stored_responses.responses[("acme", "resp_2")] = StoredResponse("gone", "small", 5)
    told = await refusal(doubles, call(previous_response_id="resp_2"))
    assert (told.status, told.param) == (400, "previous_response_id")
    mixed = [{"type": "item_reference", "id": "msg_1"}]
    doubles.stored_responses.items[("acme", "msg_1")] = StoredResponse("first", "small", 5)
    told = await refusal(doubles, call(previous_response_id="resp_1", input=mixed))
    assert told.status == 400


class Archive:
    """A provider that keeps responses."""

    configured = True

    def __init__(self, answer: bytes | UpstreamFailed = b'{"id":"resp_1"}') -> None:
        self.answer = answer
        self.asked: list[tuple[str, str, str]] = []

    async def fetch(self, method: str, path: str, query: str) -> bytes:
        self.asked.append((method, path, query))
        if isinstance(self.answer, UpstreamFailed):
            raise self.answer
        return self.answer


async def show(doubles: Doubles, method: Any = "GET", id: str = "resp_1", query: str = "", **how: Any) -> FakeCall:
    asked = FakeCall({}, **how)
    asked.query = query
    await stored_response(asked, method, id, doubles.house)
    return asked


async def test_a_kept_response_is_shown_and_deleted_but_never_metered(doubles: Doubles) -> None:
    archive = Archive()
    doubles.house.providers = {"up": archive}  # type: ignore[dict-item]
    doubles.stored_responses.responses[("acme", "resp_1")] = StoredResponse(*AT, 5)
    shown = await show(doubles, query="include=a.b&include[]=c_d&stream=false")
    assert shown.wrote == [("answer", b'{"id":"resp_1"}')]
    await show(doubles, "DELETE")
    assert archive.asked == [
        ("GET", "/responses/resp_1", "include=a.b&include%5B%5D=c_d"),
        ("DELETE", "/responses/resp_1", ""),
    ]
    assert doubles.stored_responses.responses == {}
    assert doubles.budgets.reserved == doubles.budgets.settled == []


@pytest.mark.parametrize(
    ("how", "status", "code"),
    [
        ({"id": "resp_2"}, 404, "not_found"),
        ({"id": "..%2Fmodels"}, 404, "not_found"),
        ({"secret": None}, 401, "invalid_api_key"),
        ({"query": "stream=true"}, 400, "unsupported_parameter"),
        ({"query": "starting_after=5"}, 400, "unsupported_parameter"),
        ({"query": "include=a&api-version=1"}, 400, "unsupported_parameter"),
        ({"query": "include=a b"}, 400, "unsupported_parameter"),
        ({"query": "&".join(["include=a"] * 50)}, 400, "invalid_value"),
        ({"method": "DELETE", "query": "include=a"}, 400, "unsupported_parameter"),
    ],
)
async def test_what_is_not_shown(doubles: Doubles, how: dict[str, Any], status: int, code: str) -> None:
    """Only what is one's own, and only in ways that the gate knows."""
    archive = Archive()
    doubles.house.providers = {"up": archive}  # type: ignore[dict-item]
    doubles.stored_responses.responses[("acme", "resp_1")] = StoredResponse(*AT, 5)
    doubles.stored_responses.responses[("rival", "resp_2")] = StoredResponse(*AT, 5)
    with pytest.raises(Refused) as caught:
        await show(doubles, **how)
    assert (caught.value.refusal.status, caught.value.refusal.code) == (status, code)
    assert archive.asked == []


async def test_a_revoked_secret_is_noticed_at_once(doubles: Doubles) -> None:
    """No admission script looks at these calls, so the identity is confirmed each time."""
    doubles.house.providers = {"up": Archive()}  # type: ignore[dict-item]
    doubles.stored_responses.responses[("acme", "resp_1")] = StoredResponse(*AT, 5)
    await show(doubles, secret=SECRET)
    doubles.directory.who = None
    with pytest.raises(Refused) as caught:
        await show(doubles, secret=SECRET)
    assert caught.value.refusal.reason == "unauthenticated"


async def test_an_upstreams_trouble_is_told_as_everywhere(doubles: Doubles) -> None:
    """And a response that the upstream has not any more is forgotten."""
    doubles.stored_responses.responses[("acme", "resp_1")] = StoredResponse(*AT, 5)
    for failed, status in (
        (UpstreamFailed("refused", "upstream_rejected_key", "Our key.", status=401, blame="operator"), 502),
        (UpstreamFailed("unknown", "upstream_timeout", "Too late."), 504),
        (UpstreamFailed("refused", "upstream_rejected", "No.", status=404, blame="request"), 404),
    ):
        doubles.house.providers = {"up": Archive(failed)}  # type: ignore[dict-item]
        with pytest.raises(Refused) as caught:
            await show(doubles)
        assert caught.value.refusal.status == status
    assert doubles.stored_responses.responses == {}


async def test_without_redis_nothing_is_shown(doubles: Doubles) -> None:
    doubles.stored_responses.fails = StoreAway("away")
    with pytest.raises(Refused) as caught:
        await show(doubles)
    assert caught.value.refusal.reason == "gate_unavailable"
