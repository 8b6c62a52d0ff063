"""`faregate check`: everything that can be said of settings and policies without starting."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from proxy.policy_files.reading import MODELS_FILE, PolicyFaults, PolicyFiles, named, policies_dir, read_policies
from proxy.policy_files.writing import adopted
from proxy.settings import Fault, Settings, SettingsFaults, load_settings


def check(config: Path | None) -> list[Fault]:
    """Every fault that would keep the gate from starting; empty if there is none."""
    try:
        settings = load_settings(config)
        directory = policies_dir(settings)
        read_policies(directory, settings, known=adopted(directory))
    except (SettingsFaults, PolicyFaults) as refused:
        return refused.faults
    return []


def remarks(config: Path | None, environ: Mapping[str, str]) -> list[Fault]:
    """What an operator should know although the gate starts: missing keys and prices. After a clean `check`."""
    settings = load_settings(config)
    directory = policies_dir(settings)
    policy = read_policies(directory, settings, known=adopted(directory))
    file = named(directory / MODELS_FILE)
    return [*_missing_keys(policy, settings, environ, file), *_missing_prices(policy, file)]


def _missing_keys(policy: PolicyFiles, settings: Settings, environ: Mapping[str, str], file: str) -> list[Fault]:
    said = []
    for name, upstream in settings.upstreams.items():
        models = [model.id for model in policy.models.values() if any(t.upstream == name for t in model.targets)]
        if models and upstream.api_key_env and not environ.get(upstream.api_key_env, "").strip():
            refused = f"calls to {', '.join(models)} are answered with 503 upstream_not_configured"
            said.append(Fault(file, 0, f"{upstream.api_key_env} is not set: {refused}"))
    return said


def _missing_prices(policy: PolicyFiles, file: str) -> list[Fault]:
    said = []
    for model in policy.models.values():
        priced_by = [
            plan.id
            for plan in policy.plans.values()
            if plan.allows(model.id) and any(b.meter == "cost_usd" and b.counts(model.id) for b in plan.budgets)
        ]
        if model.price is None:
            effect = f"; {', '.join(priced_by)} refuses it, having a cost budget" if priced_by else ""
            message = f'the pinned table has no single price for "{model.id}": write its `price`{effect}'
            said.append(Fault(file, 0, message))
    return said
