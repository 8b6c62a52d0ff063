"""Every way in which the data plane refuses (DESIGN 5.4), as one table: what is sent, and what must come back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from proxy.demo.scripts import Script

CHAT = "/v1/chat/completions"
IDENTIFIED = (("POST", CHAT), ("GET", "/v1/models"), ("GET", "/v1/models/small"), ("GET", "/v1/entitlements"))
"""The routes that ask who calls."""

GOOD: dict[str, Any] = {
    "model": "small",
    "messages": [{"role": "user", "content": "hello there"}],
    "max_tokens": 20,
}

MODELS = """
[models."unkeyed"]
upstream = "unkeyed"
upstream_model = "x"
max_output_tokens = 4096
context_tokens = 128000
price = { input = "1", output = "1" }

[models."unpriced"]
upstream = "openai"
upstream_model = "a-model-that-no-price-table-knows"
max_output_tokens = 4096
context_tokens = 128000

[models."unreachable"]
upstream = "nobody"
upstream_model = "x"
max_output_tokens = 4096
context_tokens = 128000
price = { input = "1", output = "1" }
"""
UPSTREAMS = """
[upstreams.unkeyed]
wire = "openai"
base_url = "http://127.0.0.1:9/v1"
api_key_env = "NO_SUCH_KEY"
[upstreams.nobody]
wire = "openai"
base_url = "http://127.0.0.1:1/v1"
"""


def _budget(meter: str, limit: str, window: str = "P1M", more: str = "") -> str:
    return f'[[budgets]]\nmeter = "{meter}"\nlimit = {limit}\nwindow = "{window}"\n{more}'


PLANS = {
    "small-only": 'models = ["small"]',
    "tokens": _budget("tokens", "100"),
    "spent": _budget("requests", "1", "lifetime"),
    "cost": _budget("cost_usd", '"0.0001"'),
    "rich": _budget("cost_usd", '"100"'),
    "status-429": _budget("tokens", "100", more="[denial]\nstatus = 429"),
    "status-400": _budget("tokens", "100", more="[denial]\nstatus = 400"),
    "rpm": "[rate_limits]\nrequests_per_minute = 1",
    "tpm": "[rate_limits]\ntokens_per_minute = 1000",
    "at-once": "[rate_limits]\nconcurrent_requests = 1",
    "spent-and-limited": _budget("requests", "1", more="[rate_limits]\nrequests_per_minute = 1"),
}


def plan_text(name: str) -> str:
    rest = PLANS[name]
    models = "" if rest.startswith("models") else 'models = ["*"]\n'
    return f'id = "{name}"\nname = "{name.capitalize()}"\n{models}{rest}\n'


@dataclass(frozen=True)
class Row:
    """One request and its refusal.

    `who`: good, missing, malformed, unknown, revoked, expired, two, query, suspended. `body`: an object, or the
    very bytes. `first`: a call of the same customer that was `answered` before, or is `held` at the upstream.
    `reaches`: how many calls the upstream may see.
    """

    cause: str
    status: int
    type: str
    code: str
    param: str | None = None
    method: str = "POST"
    path: str = CHAT
    who: str = "good"
    plan: str = "starter"
    body: Mapping[str, Any] | bytes | None = field(default_factory=lambda: GOOD)
    headers: Mapping[str, str] = field(default_factory=dict)
    first: str | None = None
    script: Script | None = None
    reaches: int = 0
    told_not_to_retry: bool = False
    told_to_wait: bool = False
    says: str = ""

    def __str__(self) -> str:
        return f"{self.cause} {self.method} {self.path}"


INVALID = "invalid_request_error"


def _everywhere(cause: str, status: int, type: str, code: str, **more: Any) -> list[Row]:
    return [
        Row(cause, status, type, code, method=m, path=p, body=GOOD if m == "POST" else None, **more)
        for m, p in IDENTIFIED
    ]


def _unauthenticated() -> list[Row]:
    whos = ("missing", "malformed", "unknown", "revoked", "expired", "two", "query")
    return [row for who in whos for row in _everywhere(who, 401, INVALID, "invalid_api_key", who=who)]


def _bad(code: str, param: str | None = None, cause: str = "", status: int = 400, **fields: Any) -> Row:
    body = {name: value for name, value in {**GOOD, **fields}.items() if value is not ...}
    shown = cause or ", ".join(f"{name}={json.dumps(v)[:40]}" for name, v in fields.items() if v is not ...)
    return Row(shown or f"no {param}", status, INVALID, code, param, body=body)


def _raw(code: str, cause: str, body: bytes | None, status: int = 400, **headers: str) -> Row:
    return Row(cause, status, INVALID, code, body=body, headers=headers)


def _nested(depth: int) -> bytes:
    return b'{"model":"small","messages":[],"x":' + b"[" * depth + b"]" * depth + b"}"


def body_faults() -> list[Row]:
    user = {"role": "user", "content": "x"}
    image = {"type": "image_url", "image_url": {"url": "ftp://example.com/a.png"}}
    return [
        _raw("empty_body", "no body", None),
        _raw("invalid_json", "not JSON", b"hello"),
        _raw("invalid_json", "half a JSON", b'{"model":"small"'),
        _raw("invalid_json", "NaN", b'{"model":"small","messages":[],"temperature":NaN}'),
        _raw("invalid_json", "Infinity", b'{"model":"small","messages":[],"temperature":-Infinity}'),
        _raw("invalid_number", "1e999", b'{"model":"small","messages":[],"temperature":1e999}'),
        _raw("invalid_json", "trailing garbage", b'{"model":"small"} x'),
        _raw("invalid_json", "a byte order mark", b'\xef\xbb\xbf{"model":"small"}'),
        _raw("invalid_json", "UTF-16", '{"model":"small"}'.encode("utf-16")),
        _raw("not_an_object", "a list", b"[]"),
        _raw("duplicate_key", "duplicate keys", b'{"model":"small","model":"large","messages":[]}'),
        _raw(
            "duplicate_key", "nested duplicate keys", b'{"model":"small","messages":[{"role":"user","role":"a"}]}'
        ),
        _raw("too_deep", "depth 200", _nested(200)),
        _raw("too_many_values", "too many values", b'{"model":"small","x":[' + b"1," * 300_001 + b"1]}"),
        _raw("body_too_large", "30 MB", b'{"x":"' + b"a" * 30_000_000 + b'"}', 413),
        _raw("unsupported_content_encoding", "gzip", b"\x1f\x8b", 415, **{"content-encoding": "gzip"}),
        _raw("unsupported_content_type", "a form", b"model=small", 415, **{"content-type": "text/plain"}),
        _bad("missing_required_parameter", "model", model=...),
        _bad("invalid_type", "model", model=7),
        _bad("invalid_value", "model", model=""),
        _bad("missing_required_parameter", "messages", messages=...),
        _bad("invalid_type", "messages", messages="hi"),
        _bad("invalid_value", "messages", messages=[]),
        _bad("invalid_value", "messages", "2,001 messages", messages=[user] * 2_001),
        _bad("too_many_values", None, "100,000 messages", messages=[user] * 100_000),
        _bad("invalid_type", "messages.0", messages=["hi"]),
        _bad("missing_required_parameter", "messages.0.role", messages=[{"content": "x"}]),
        _bad("invalid_type", "messages.0.content", messages=[{"role": "user", "content": 7}]),
        _bad("invalid_image_url", "messages.0.content.0.image_url.url", messages=[{**user, "content": [image]}]),
        _bad("integer_below_min_value", "max_tokens", max_tokens=0),
        _bad("integer_below_min_value", "max_tokens", max_tokens=-1),
        _bad("integer_above_max_value", "max_tokens", max_tokens=10**16),
        _bad("invalid_type", "max_tokens", max_tokens=True),
        _bad("invalid_type", "max_tokens", max_tokens=1.5),
        _bad("invalid_type", "max_tokens", max_tokens="100"),
        _bad("invalid_value", "max_completion_tokens", max_completion_tokens=20),
        _bad("integer_above_max_value", "n", n=1_000_000),
        _bad("invalid_type", "stream", stream="yes"),
        _bad("invalid_value", "stream_options", stream_options={"include_usage": True}),
        _bad("invalid_type", "tools", tools={}),
        _bad("unsupported_value", "tools.0.type", tools=[{"type": "web_search"}]),
        _bad("unsupported_parameter", "prediction", prediction={"type": "content", "content": "x"}),
        _bad("unsupported_parameter", "store", store=True),
    ]


def _models() -> list[Row]:
    not_found = Row("model_not_found", 404, INVALID, "model_not_found", "model")
    rows = [
        replace(not_found, cause=f"model {name!r}", body={**GOOD, "model": name})
        for name in ("nope", "SMALL", " small", "small.", "openai/small", "small\u200b", "ｓmall")
    ]
    return [
        *rows,
        replace(not_found, method="GET", path="/v1/models/nope", body=None),
        replace(not_found, method="GET", path="/v1/models/large", body=None, plan="small-only"),
        Row("model_not_allowed", 403, "permission_error", "model_not_allowed", "model", plan="small-only",
            body={**GOOD, "model": "large"}, says="Starter"),
        Row("model_unpriced", 403, "permission_error", "model_unpriced", "model", plan="rich",
            body={**GOOD, "model": "unpriced"}),
        Row("unknown_parameter", 400, INVALID, "unknown_parameter", "surprise", plan="rich",
            body={**GOOD, "surprise": 1}),
        Row("upstream_not_configured", 503, "server_error", "upstream_not_configured",
            body={**GOOD, "model": "unkeyed"}, told_not_to_retry=True),
    ]  # fmt: skip


def _limits() -> list[Row]:
    quota = Row("", 402, "insufficient_quota", "insufficient_quota", told_not_to_retry=True)
    large = {**GOOD, "max_tokens": 4000}
    wait = Row("", 429, "", "rate_limit_exceeded", told_to_wait=True)
    return [
        replace(quota, cause="budget of tokens", plan="tokens", body=large),
        replace(quota, cause="budget of tokens, streamed", plan="tokens", body={**large, "stream": True}),
        replace(quota, cause="budget of requests", plan="spent", first="answered"),
        replace(quota, cause="budget of cost", plan="cost", body=large),
        replace(quota, cause="budget as 429", plan="status-429", status=429, body=large),
        replace(quota, cause="budget as 400", plan="status-400", status=400, body=large),
        replace(wait, cause="requests per minute", plan="rpm", type="requests", first="answered"),
        replace(wait, cause="tokens per minute", plan="tpm", type="tokens", first="held",
                body={**GOOD, "max_tokens": 800}),
        replace(wait, cause="requests at once", plan="at-once", type="concurrent_requests", first="held"),
        Row("request_too_large", 400, INVALID, "request_too_large", plan="tpm", body=large),
    ]  # fmt: skip


def _upstream() -> list[Row]:
    def failing(
        status: int, code: str, type: str = "upstream_error", given: int | None = None, **more: Any
    ) -> Row:
        script = Script(status=given or status, **more.pop("script", {}))
        return Row(f"upstream says {given or status}", status, type, code, script=script, reaches=1, **more)

    quota = {"body": '{"error":{"message":"x","type":"insufficient_quota","code":"insufficient_quota"}}'}
    named = {"body": '{"error":{"message":"Bad top_p.","type":"t","param":"top_p","code":"bad_top_p"}}'}
    soon = {"headers": {"retry-after": "7"}}
    return [
        failing(400, "bad_top_p", INVALID, param="top_p", script=named, says="Bad top_p."),
        failing(422, "upstream_rejected", INVALID),
        failing(404, "model_not_found", INVALID),
        failing(408, "upstream_timeout"),
        failing(409, "upstream_conflict"),
        failing(429, "upstream_rate_limited", script=soon, told_to_wait=True),
        failing(429, "upstream_rate_limited"),
        failing(500, "upstream_server_error"),
        failing(503, "upstream_server_error", script=soon, told_to_wait=True),
        failing(502, "upstream_rejected_key", given=401),
        failing(502, "upstream_rejected_key", given=403),
        failing(502, "upstream_quota", given=402),
        replace(failing(502, "upstream_quota", given=429, script=quota), cause="upstream's own quota is used up"),
        Row("upstream is not there", 502, "upstream_error", "upstream_unreachable",
            body={**GOOD, "model": "unreachable"}),
        Row("upstream breaks off", 502, "upstream_error", "upstream_reset",
            script=Script(breaks_after_bytes=0), reaches=1),
        Row("upstream keeps silent", 504, "upstream_error", "upstream_timeout",
            script=Script(head_delay_s=8), reaches=1),
    ]  # fmt: skip


def _routes() -> list[Row]:
    unknown = Row("unknown_url", 404, INVALID, "unknown_url")
    wrong = Row("method_not_allowed", 405, INVALID, "method_not_allowed")
    paths = (
        "/", "/v1", "/v1/", "/v1/models/", "/v1/images/generations", "/v1/moderations", "/v1/rerank", "/v1/Models",
        "/v1/chat/completions/", "//v1/models", "/v1/../admin/v1/customers", "/admin/v1/customers", "/metrics",
        "/v1/chat%2fcompletions", "/v1/chat/completions;x",
    )  # fmt: skip
    return [
        *(replace(unknown, path=path, method=m) for path in paths for m in ("GET", "POST")),
        replace(wrong, method="GET", body=None),
        replace(wrong, method="DELETE", body=None),
        *(replace(wrong, path=path) for path in ("/v1/models", "/v1/models/small", "/v1/entitlements")),
        *(replace(wrong, path=path) for path in ("/healthz", "/readyz")),
    ]


def _order() -> list[Row]:
    """Several reasons at once: 401, 403, body, model, 402, 429."""
    bad_body = {**GOOD, "messages": [], "model": "nope"}
    return [
        Row("401 before the body", 401, INVALID, "invalid_api_key", who="unknown", body=b"{"),
        Row("403 before the body", 403, "permission_error", "account_suspended", who="suspended", body=b"{"),
        Row("the body before the model", 400, INVALID, "invalid_value", "messages", body=bad_body),
        Row("the model before the budget", 404, INVALID, "model_not_found", "model", plan="spent",
            first="answered", body={**GOOD, "model": "nope"}),
        Row("the budget before the rate", 402, "insufficient_quota", "insufficient_quota",
            plan="spent-and-limited", first="answered", told_not_to_retry=True),
    ]  # fmt: skip


ROWS = [
    *_unauthenticated(),
    *_everywhere("suspended", 403, "permission_error", "account_suspended", who="suspended"),
    *body_faults(),
    *_models(),
    *_limits(),
    *_upstream(),
    *_routes(),
    *_order(),
]

WITHOUT_STORE = _everywhere("gate_unavailable", 503, "server_error", "gate_unavailable", told_not_to_retry=True)
