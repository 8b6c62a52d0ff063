"""`faregate check` says everything that keeps a gate from starting, and what an operator should know."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from proxy.policy_files import check, remarks

Policies = Callable[..., Path]


def test_sound_files_have_no_fault(policies: Policies, tmp_path: Path) -> None:
    """Exit 0 must mean that the gate starts."""
    policies()
    config = tmp_path / "config.toml"
    config.write_text("")
    assert check(config) == []


def test_faults_of_settings_and_of_policies_are_told(policies: Policies, tmp_path: Path) -> None:
    """As `file:line: message`, which editors make a link of."""
    directory = policies(x='id = "x"\nnam = "X"\n')
    config = tmp_path / "config.toml"
    config.write_text("[server]\nprot = 1\n")
    assert [str(fault) for fault in check(config)] == [f'{config}:2: unknown key "prot"; did you mean "port"?']
    config.write_text("")
    (fault,) = check(config)
    assert str(fault) == f'{directory}/plans/x.toml:2: unknown key "nam"; did you mean "name"?'


def test_a_default_plan_that_the_store_has_adopted_is_no_fault(policies: Policies, tmp_path: Path) -> None:
    """The check has only files to go by: the one that was put aside says where the plan went."""
    directory = policies()
    config = tmp_path / "config.toml"
    config.write_text('[policies]\ndefault_plan = "pro"\n')
    assert len(check(config)) == 1
    (directory / "plans" / "professional.toml.adopted").write_text('id = "pro"\n')
    assert check(config) == []
    (directory / "plans" / "x.toml").unlink()
    assert check(config) == []
    (directory / "plans" / "professional.toml.adopted").write_text("id = \n")
    assert len(check(config)) == 1


def test_a_missing_key_and_a_missing_price_are_remarked(policies: Policies, tmp_path: Path) -> None:
    """The gate starts all the same, and some calls would be refused: better heard here than from a customer."""
    models = (
        '[models."gpt-4o-mini"]\nupstream = "openai"\n[models.m]\nupstream = "openai"\nmax_output_tokens = 1\n'
    )
    plan = 'id = "x"\nmodels = ["m"]\n[[budgets]]\nmeter = "cost_usd"\nlimit = 1\n'
    policies(models=models + "context_tokens = 1\n", x=plan)
    config = tmp_path / "config.toml"
    config.write_text("")
    key, price = (fault.message for fault in remarks(config, {}))
    assert key.startswith("OPENAI_API_KEY is not set: calls to gpt-4o-mini, m are answered with 503")
    assert price.startswith('the pinned table has no single price for "m"')
    assert "x refuses it" in price
    assert len(remarks(config, {"OPENAI_API_KEY": "sk-canary"})) == 1
