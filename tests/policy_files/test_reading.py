"""Admins edit a running gate: what is right is read exactly, and every fault is told with its place."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.domain.policy import Budget, DenialTexts, RateLimits
from proxy.policy_files import PolicyFaults, policies_dir, read_document, read_plan_files, read_policies
from proxy.settings import Settings, load_settings

BAD = Path(__file__).parent.parent / "fixtures" / "policies" / "bad"
FIXTURES = sorted(path.name for path in BAD.glob("*.toml"))
Policies = Callable[..., Path]


def faults(directory: Path, settings: Settings | None = None) -> list[str]:
    with pytest.raises(PolicyFaults) as refused:
        read_policies(directory, settings or Settings())
    told = refused.value.faults
    return [f"{Path(fault.file).relative_to(directory)}:{fault.line}: {fault.message}" for fault in told]


@pytest.mark.parametrize("name", FIXTURES)
def test_each_fault_is_told_with_its_line_and_what_would_be_right(name: str, policies: Policies) -> None:
    """Each fixture ends with the faults that it must be told, after `#!`: all of them, and no other."""
    text = (BAD / name).read_text()
    models = name.startswith("models_")
    file = "models.toml" if models else "plans/x.toml"
    directory = policies(models=text, x='id = "x"\n') if models else policies(x=text)
    expected = [f"{file}:{said}" for said in re.findall(r"^#! (.*)$", text, re.MULTILINE)]
    assert faults(directory) == expected


def test_there_are_enough_fixtures() -> None:
    """A glob that finds nothing would let everything pass."""
    assert len(FIXTURES) >= 40


def test_faults_of_all_files_are_told_at_once(policies: Policies) -> None:
    """One fault never hides another, be it in the same file or in the next."""
    directory = policies(
        models="[models.m]\nupstream = 1\nx = 2\n", a="id = 3", b='id = "b"\nmodels = ["n"]\ny = 1\n'
    )
    assert [said.split(":")[:2] for said in faults(directory)] == [
        ["models.toml", "1"],
        ["models.toml", "1"],
        ["models.toml", "2"],
        ["models.toml", "3"],
        ["plans/a.toml", "1"],
        ["plans/b.toml", "2"],
        ["plans/b.toml", "3"],
    ]


def test_a_broken_catalogue_does_not_make_every_plan_faulty(policies: Policies) -> None:
    """A missing quote in models.toml must not be followed by a page of unknown models."""
    (said,) = faults(policies(models='[models."gpt'))
    assert said.startswith("models.toml:1: is no TOML")


def test_two_plans_of_one_id_are_refused(policies: Policies) -> None:
    """Which of them a customer gets would be chance."""
    directory = policies(a='id = "x"\n', b='# copied\nid = "x"\n')
    (said,) = faults(directory)
    assert said.startswith('plans/b.toml:2: the plan "x" is already written in ')
    assert "a.toml" in said


def test_an_absent_directory_is_told(tmp_path: Path) -> None:
    """Both what is missing and where."""
    assert len(faults(tmp_path)) == 2


def test_a_default_plan_that_was_written_must_exist(policies: Policies, tmp_path: Path) -> None:
    """Otherwise the first customer created without a plan would find out."""
    directory = policies()
    config = tmp_path / "config.toml"
    config.write_text('[policies]\n\ndefault_plan = "y"\n')
    with pytest.raises(PolicyFaults) as refused:
        read_policies(directory, load_settings(config))
    assert str(refused.value) == f'{config}:3: policies.default_plan names no plan: "y"; there is "x"'
    assert read_policies(directory, Settings()).plans.keys() == {"x"}


FULL = """id = "full"
name = "Full plan"
models = ["gpt-4o-mini"]
features = { priority = false }
default_max_output_tokens = 4096
min_output_tokens = 8
on_exceed = "clamp"
hold = "rolling"
on_store_failure = "closed"
mode = "enforce"
require_user = false
[[budgets]]
id = "monthly-tokens"
meter = "tokens"
limit = 1_000_000
window = "P1M"
anchor = "subscription"
per = "agent"
models = ["*"]
hard = true
overage_limit = 0
rollover_max = 0
alert_at = [0.8, 0.95, 1.0]
[[budgets]]
meter = "cost_usd"
limit = "12.50"
window = "lifetime"
models = ["gpt-4o-mini"]
[[budgets]]
meter = "cost_usd"
limit = 3
[rate_limits]
requests_per_minute = 60
tokens_per_minute = 100_000
concurrent_requests = 10
[denial]
status = 429
message_exhausted = "{used}"
message_too_large = "{asked}"
message_lifetime = "{limit}"
upgrade_url = "https://example.com"
"""


def test_every_key_of_a_plan_is_read(policies: Policies) -> None:
    """What is ignored in silence is the worst fault of all."""
    plan = read_policies(policies(full=FULL), Settings()).plans["full"]
    assert (plan.name, plan.version, plan.models) == ("Full plan", 0, frozenset({"gpt-4o-mini"}))
    assert (plan.default_max_output_tokens, plan.min_output_tokens, plan.on_exceed) == (4096, 8, "clamp")
    assert plan.hold == "rolling"
    assert plan.budgets == (
        Budget("monthly-tokens", "tokens", 1_000_000, "P1M", "agent", None),
        Budget(
            "cost_usd-customer-lifetime",
            "cost_usd",
            12_500_000,
            "lifetime",
            "customer",
            frozenset({"gpt-4o-mini"}),
        ),
        Budget("cost_usd-customer-P1M", "cost_usd", 3_000_000, "P1M", "customer", None),
    )
    assert plan.rate_limits == RateLimits(60, 100_000, 10)
    assert plan.denial == DenialTexts(429, "{used}", "{asked}", "{limit}", "https://example.com")


def test_a_plan_of_nothing_grants_nothing(policies: Policies) -> None:
    """Absent: no models, no budgets, no rate limits, the model's own maximum as output default."""
    plan = read_policies(policies(x='id = "team-one"\n'), Settings()).plans["team-one"]
    assert (plan.name, plan.models, plan.budgets) == ("Team One", frozenset(), ())
    assert (plan.rate_limits, plan.denial) == (RateLimits(), DenialTexts())
    assert (plan.default_max_output_tokens, plan.min_output_tokens, plan.on_exceed) == (None, 16, "refuse")
    assert plan.hold == "strict"


def test_a_plan_that_the_store_owns_is_read_from_no_file(policies: Policies, tmp_path: Path) -> None:
    """A file left on some replica is no second truth, and its faults are nobody's trouble."""
    directory = policies(x='id = "x"\n', pro='id = "pro"\nnam = "P"\n')
    files = read_policies(directory, Settings(), {"pro"})
    assert (files.plans.keys(), files.ignored) == ({"x"}, {"pro": directory / "plans" / "pro.toml"})
    assert files.written_in == {"x": directory / "plans" / "x.toml"}
    config = tmp_path / "config.toml"
    config.write_text('[policies]\ndefault_plan = "pro"\n')
    assert read_policies(directory, load_settings(config), {"pro"}).plans.keys() == {"x"}
    for path in (directory / "plans").iterdir():
        path.unlink()
    assert read_policies(directory, Settings(), {"pro"}).plans == {}


def test_plan_files_alone_need_no_settings(policies: Policies) -> None:
    """An admin elsewhere has the plans and the catalogue, but not the gate's upstreams."""
    directory = policies(models='[models."m"]\nupstream = "nowhere"\n', x='id = "x"\nmodels = ["m"]\n')
    assert read_plan_files(directory).plans["x"].models == {"m"}
    (directory / "plans" / "x.toml").write_text('id = "x"\nmodels = ["n"]\n')
    with pytest.raises(PolicyFaults, match="unknown model"):
        read_plan_files(directory)
    (directory / "models.toml").unlink()
    assert read_plan_files(directory).plans["x"].models == {"n"}


@pytest.mark.parametrize("name", [name for name in FIXTURES if name.startswith("plan_")])
def test_a_document_has_the_faults_that_the_file_would_have(name: str, policies: Policies) -> None:
    """One reader, so that a plan which the console takes is one that an export can be read from."""
    try:
        document = tomllib.loads((BAD / name).read_text())
    except tomllib.TOMLDecodeError:
        return
    _, found = read_document(document, ["gpt-4o-mini"])
    told = re.findall(r"^#! \d+: (.*)$", (BAD / name).read_text(), re.MULTILINE)
    assert sorted(message for _, message in found) == sorted(told)


def test_faults_of_a_document_say_where() -> None:
    """By its path, since JSON has no lines that anybody sees."""
    document = {
        "id": "x",
        "name": None,
        "budgets": [{"limit": 1}, {"id": "b", "limit": -1, "windo": "P1M", "window": None}],
        "features": {"f": None},
    }
    _, found = read_document(document, [])
    places = [place for place, _ in found]
    assert places == [("features", "f"), ("budgets", 1, "limit"), ("budgets", 1, "windo")]
    assert "null" in found[0][1]
    assert read_document({"id": "x", "rate_limits": {"tokens_per_minute": None}}, [])[1] == []


def test_hidden_files_are_no_plans(policies: Policies) -> None:
    """Editors leave locks and drafts beside what they edit."""
    directory = policies()
    (directory / "plans" / ".#x.toml").symlink_to("nobody@nowhere")
    (directory / "plans" / "README.md").write_text("= no TOML")
    assert read_policies(directory, Settings()).plans.keys() == {"x"}


def test_the_shipped_policies_are_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From an empty folder a gate starts with them: three plans, and models that all have a price."""
    monkeypatch.chdir(tmp_path)
    settings = load_settings(None)
    policy = read_policies(policies_dir(settings), settings)
    assert policy.plans.keys() == {"free", "starter", "pro"}
    assert len(policy.models) >= 12
    assert {model.targets[0].upstream for model in policy.models.values()} == {"openai", "anthropic", "gemini"}
    assert all(model.price and model.price.input and model.price.output for model in policy.models.values())
    assert settings.policies.default_plan in policy.plans


def test_a_directory_of_ones_own_goes_first(policies: Policies, tmp_path: Path) -> None:
    """And one that was named is never replaced by another in silence."""
    directory = policies()
    config = tmp_path / "config.toml"
    config.write_text("")
    assert policies_dir(load_settings(config)) == directory
    config.write_text('[policies]\ndir = "elsewhere"\n')
    assert policies_dir(load_settings(config)) == tmp_path / "elsewhere"
