"""Responses that an upstream keeps: whose they are, where they are, and what they weigh when they are continued.

All customers share the gate's accounts at its upstreams, so an upstream would hand anybody's response to anybody
who names it. A record is therefore written beside each settle, before the last byte goes out, and nothing kept is
touched without one: an id that is somebody else's gets the same answer as one that nobody has.
"""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import parse_qsl, urlencode

from proxy.domain.asks import Ask
from proxy.domain.faults import fault
from proxy.domain.refusals import Refusal, Refused
from proxy.domain.request_parts import TOKENS_PER_MESSAGE, UNBOUNDED
from proxy.domain.usage import Usage
from proxy.gateway import refuse
from proxy.gateway.admission import Admission
from proxy.gateway.house import House
from proxy.gateway.identify import UNAVAILABLE, freshly_identify
from proxy.gateway.ports import Answer, Call, Keeping, StoreAway, StoredResponse, UpstreamFailed
from proxy.gateway.standing import Standing

RESPONSES = "/v1/responses"
ID = re.compile(r"[A-Za-z0-9_\-]{1,256}")
QUERY_PAIRS_MAX = 16
_INCLUDED = re.compile(r"[a-z_.]{1,64}")


async def continue_from(ask: Ask, standing: Standing, house: House) -> str | None:
    """The upstream that has kept what `ask` continues from, whose size is added to its bound; None: nothing is.

    Raises `Refused`: 404 for what this customer has not made, 503 where nobody can tell.
    """
    if ask.previous_response_id is None and not ask.stored_items:
        return None
    who, records = standing.identity, house.stored_responses
    found: list[StoredResponse] = []
    try:
        if ask.previous_response_id is not None:
            previous = await records.find_response(who.shard, who.customer_id, ask.previous_response_id)
            if previous is None:
                raise Refused(_no_previous(ask.previous_response_id))
            found.append(previous)
        ids = list(ask.stored_items)
        for id, item in zip(ids, await records.find_items(who.shard, who.customer_id, ids), strict=True):
            if item is not None:
                found.append(item)
            elif ask.stored_items[id]:
                raise Refused(_no_item(id))
            else:
                ask.input_bound = UNBOUNDED
    except StoreAway:
        raise Refused(UNAVAILABLE) from None
    _weigh(ask, found)
    if len({each.upstream for each in found}) > 1:
        raise Refused(refuse.kept_elsewhere())
    return found[0].upstream if found else None


def _weigh(ask: Ask, found: list[StoredResponse]) -> None:
    """Adds what is continued to the ask's input. Every bound is cut to the model's context later."""
    for each in found:
        if each.tokens is None:
            ask.input_bound = UNBOUNDED
        else:
            ask.input_bound += each.tokens + TOKENS_PER_MESSAGE
            ask.input_estimate += each.tokens


async def remember(answer: Answer, admission: Admission, house: House) -> None:
    """Write down whose the answer is, if its upstream keeps it. Without Redis it cannot be asked for later."""
    ask = admission.trail.ask
    if ask.endpoint != RESPONSES or ask.body.get("store") is False or not isinstance(answer, Keeping):
        return
    kept, target, who = answer.kept, admission.target, admission.standing.identity
    if kept is None:
        return
    made, whole = _tokens(answer.usage)
    at = (target.upstream, target.upstream_model)
    items = {id: StoredResponse(*at, made) for id in kept.made} | {
        id: StoredResponse(*at, whole) for id in kept.gathered
    }
    try:
        await house.stored_responses.keep(who.shard, who.customer_id, {kept.id: StoredResponse(*at, whole)}, items)
    except StoreAway:
        house.meters.fault("response_not_remembered")


def _tokens(usage: Usage | None) -> tuple[int | None, int | None]:
    """What of an answer its output makes, and its output with all that it was made from; None: nobody knows."""
    if usage is None or usage.source != "provider" or usage.disputed:
        return None, None
    return usage.output_tokens, usage.input_tokens + usage.output_tokens


async def stored_response(call: Call, method: Literal["GET", "DELETE"], id: str, house: House) -> None:
    """Show or delete a response of the caller's customer, at the upstream that keeps it. Never metered.

    Raises `Refused`.
    """
    standing = await freshly_identify(call.secret, house)
    query = _query(call.query, method)
    who, records = standing.identity, house.stored_responses
    try:
        stored = await records.find_response(who.shard, who.customer_id, id) if ID.fullmatch(id) else None
        if stored is None:
            raise Refused(_unknown(id))
        provider = house.providers.get(stored.upstream)
        if provider is None or not provider.configured:
            raise Refused(refuse.upstream_not_configured(stored.upstream))
        try:
            body = await provider.fetch(method, f"/responses/{id}", query)
        except UpstreamFailed as failed:
            if failed.status != 404 or failed.blame != "request":
                raise Refused(refuse.upstream(failed, None, None)) from None
            await records.forget(who.shard, who.customer_id, id)
            raise Refused(_unknown(id)) from None
        if method == "DELETE":
            await records.forget(who.shard, who.customer_id, id)
    except StoreAway:
        raise Refused(UNAVAILABLE) from None
    await call.answer(200, {"content-type": "application/json"}, body)


def _query(query: str, method: str) -> str:
    """What of the client's query goes upstream: what to include, and nothing else."""
    included: list[tuple[str, str]] = []
    if query.count("&") >= QUERY_PAIRS_MAX:
        raise fault("invalid_value", f"The query may have at most {QUERY_PAIRS_MAX} parameters.")
    for name, value in parse_qsl(query, keep_blank_values=True):
        if method == "GET" and name in ("include", "include[]") and _INCLUDED.fullmatch(value):
            included.append((name, value))
        elif method == "GET" and name == "stream" and value == "false":
            continue
        elif name == "stream":
            message = "A stored response is answered whole: leave 'stream' out of the query."
            raise fault("unsupported_parameter", message, "stream")
        else:
            message = (
                "The query of this path may only have 'include', with words such as 'reasoning.encrypted_content'."
            )
            raise fault("unsupported_parameter", message)
    return urlencode(included)


def _unknown(id: str) -> Refusal:
    return _not_found(f"Response with id '{_shown(id)}' not found.", None, code="not_found")


def _no_previous(id: str) -> Refusal:
    message = f"Previous response with id '{_shown(id)}' not found."
    return _not_found(message, "previous_response_id", code="previous_response_not_found")


def _no_item(id: str) -> Refusal:
    message = (
        f"Item with id '{_shown(id)}' not found. Items are kept only of responses that were stored;"
        " send the item itself instead."
    )
    return _not_found(message, "input", code="not_found")


def _not_found(message: str, param: str | None, *, code: str) -> Refusal:
    return Refusal("bad_request", message, 404, code=code, type="invalid_request_error", param=param)


def _shown(id: str) -> str:
    return id[:80] if ID.fullmatch(id) else "…"
