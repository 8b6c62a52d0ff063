"""What is exported must be, read again, the identical plan: an export is how a plan is moved and rolled back."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from proxy.domain.policy import Plan
from proxy.domain.written_plans import written_plan
from proxy.policy_files import plan_toml, put_aside, read_document, read_plan_files, write_plan

MODELS = ["gpt-4o-mini", "claude-haiku-4-5", 'odd "name" \\'.replace(" ", "-")]

slugs = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
# Whatever a person may type; control characters are refused by the reader.
texts = st.text(st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from("\t\n\"'\\#{}[]="), max_size=40)
said = texts.filter(str.strip)
templates = said.map(lambda text: text.replace("{", "").replace("}", "")).filter(str.strip)
exact = st.integers(-(2**53 - 1), 2**53 - 1)
own = st.recursive(
    st.booleans() | exact | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
features = st.dictionaries(st.from_regex(r"own\.[a-z0-9._-]{1,8}", fullmatch=True), own, max_size=3)
models = st.just(["*"]) | st.lists(st.sampled_from(MODELS), unique=True)
counts = st.none() | st.integers(1, 10**12)
cents = st.integers(0, 10**10).map(lambda micro: f"{micro // 10**6}.{micro % 10**6:06d}")
percents = st.sampled_from([0.8, 1.0, 0.015, "80%", "99.5%"])
terms = {
    "id": slugs,
    "models": models,
    "window": st.sampled_from(["P1D", "PT5H", "P1M", "P1Y"]),
    "anchor": st.sampled_from(["subscription", "calendar"]),
}
budgets = st.one_of(
    st.fixed_dictionaries(
        {"meter": st.just("cost_usd"), "limit": st.integers(0, 10**6) | cents, "per": st.just("user")},
        optional=terms
        | {"overage_limit": cents, "rollover_max": cents, "users_max": st.integers(1, 10**6)}
        | {"alert_at": st.lists(percents | st.just("12.50"), max_size=3, unique_by=str)},
    ),
    st.fixed_dictionaries(
        {"meter": st.just("tokens"), "limit": st.integers(0, 10**12), "hard": st.just(False)}
        | {"rollover_max": st.just(10**9)},
        optional=terms
        | {"rollover_min": st.integers(0, 10**9)}
        | {"alert_at": st.lists(percents | st.integers(2, 10**9), max_size=3, unique_by=str)},
    ),
    st.fixed_dictionaries(
        {"meter": st.sampled_from(["tokens", "input_tokens", "output_tokens", "requests"])}
        | {"limit": st.integers(0, 10**12)},
        optional={"id": slugs, "window": st.sampled_from(["P1D", "PT5H", "lifetime", "P1M"]), "models": models}
        | {"per": st.sampled_from(["customer", "agent"])},
    ),
)
documents = st.fixed_dictionaries(
    {"id": slugs, "models": models},
    optional={
        "name": said,
        "features": features,
        "default_max_output_tokens": counts,
        "min_output_tokens": st.integers(1, 1000),
        "on_exceed": st.sampled_from(["refuse", "clamp"]),
        "hold": st.sampled_from(["strict", "rolling"]),
        "mode": st.sampled_from(["enforce", "shadow"]),
        "require_user": st.booleans(),
        "budgets": st.lists(budgets, max_size=4, unique_by=lambda one: (one.get("id"), *_made_of(one))),
        "rate_limits": st.fixed_dictionaries({}, optional=dict.fromkeys(
            ("requests_per_minute", "tokens_per_minute", "concurrent_requests"), counts)),
        "denial": st.fixed_dictionaries({}, optional={
            "status": st.sampled_from([402, 429, 400]), "message_exhausted": templates,
            "upgrade_url": st.just("https://example.com/?a=\u00e9")}),
    },
)  # fmt: skip


def _made_of(budget: dict[str, Any]) -> tuple[Any, ...]:
    return budget["meter"], budget.get("per"), budget.get("window")


def read(document: dict[str, Any]) -> Plan | None:
    plan, faults = read_document(document, MODELS)
    return None if faults else plan


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
@given(documents)
def test_a_written_plan_reads_back_as_the_same_plan(document: dict[str, Any]) -> None:
    """As a file and as the admin API's document, whatever names, texts and amounts are in it."""
    plan, faults = read_document(document, MODELS)
    # Two budgets whose made-up ids are equal, or thresholds that say the same: nothing else here can be wrong.
    assert [
        message for _, message in faults if "second budget" not in message and "the same as" not in message
    ] == []
    assume(plan is not None and not faults)
    assert read(tomllib.loads(plan_toml(plan))) == plan
    assert read(written_plan(plan)) == plan


def test_a_file_looks_as_if_a_person_had_written_it() -> None:
    """Plans are reviewed as files: defaults and quotes that nobody needs are noise."""
    plan = read(
        {
            "id": "pro",
            "name": 'Pro "X"',
            "models": ["*"],
            "features": {"max.agents": 5, "tiers": [{"id": "a"}]},
            "budgets": [{"id": "monthly", "limit": 1_000_000}, {"meter": "cost_usd", "limit": "12.50"}],
            "rate_limits": {"requests_per_minute": 60},
        }
    )
    assert plan is not None
    assert (
        plan_toml(plan)
        == """id = "pro"
name = "Pro \\"X\\""
models = ["*"]

[rate_limits]
requests_per_minute = 60

[features]
"max.agents" = 5
priority = false
tiers = [{ id = "a" }]

[[budgets]]
id = "monthly"
meter = "tokens"
limit = 1_000_000

[[budgets]]
id = "cost_usd-customer-P1M"
meter = "cost_usd"
limit = "12.5"
"""
    )


def test_a_file_is_put_in_place_whole(tmp_path: Path) -> None:
    """The watcher must never read half of it, nor a draft."""
    plan = read({"id": "pro"})
    assert plan is not None
    path = tmp_path / "plans" / "pro.toml"
    write_plan(path, plan)
    assert read_plan_files(tmp_path).plans == {"pro": plan}
    assert [left.name for left in path.parent.iterdir()] == ["pro.toml"]
    (path.parent / "x.toml").mkdir()
    with pytest.raises(OSError, match=r"x\.toml"):
        write_plan(path.parent / "x.toml", plan)
    assert sorted(left.name for left in path.parent.iterdir()) == ["pro.toml", "x.toml"]


def test_a_file_put_aside_is_read_no_more_and_not_lost(tmp_path: Path) -> None:
    """Two truths must never exist, and an admin's comments must not go."""
    path = tmp_path / "plans" / "pro.toml"
    path.parent.mkdir()
    path.write_text('id = "pro"  # ours\n')
    assert put_aside(path).read_text() == 'id = "pro"  # ours\n'
    assert not path.exists()
