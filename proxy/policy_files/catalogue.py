"""models.toml: the catalogue."""

from __future__ import annotations

import re

from proxy.domain.policy import Model, Target
from proxy.domain.pricing import Price
from proxy.policy_files.prices import Pinned, pinned, written_price
from proxy.policy_files.tables import Table
from proxy.settings import Settings, nearest

_MODEL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}")
OUTPUT_LIMIT_FIELDS = ("max_tokens", "max_completion_tokens")


def read_catalogue(root: Table, settings: Settings) -> dict[str, Model]:
    """Every entry that can be used; what is wrong with the others is noted."""
    entries = root.table("models")
    root.finish()
    if not entries.values:
        root.fault('the catalogue is empty; a model is written [models."gpt-4o-mini"]')
    models = {}
    for id in entries.values:
        model = _model(id, entries.table(id), list(entries.values), settings)
        if model:
            models[id] = model
    return models


def _model(id: str, entry: Table, ids: list[str], settings: Settings) -> Model | None:
    if not _MODEL_ID.fullmatch(id):
        entry.fault(f'"{id[:40]}" is no model id: letters, digits and . _ : / @ + - only, at most 128 of them')
    targets = _targets(entry, id, settings)
    first = targets[0] if targets else None
    upstream_model = first.upstream_model if first else id
    known = pinned(settings.upstreams[first.upstream].provider, upstream_model) if first else None
    most_output = _tokens(entry, "max_output_tokens", known, upstream_model)
    context = _tokens(entry, "context_tokens", known, upstream_model)
    field, fallbacks, price = _rest(entry, id, ids, known)
    if not targets or most_output is None or context is None:
        return None
    return Model(id, targets, most_output, context, field, fallbacks, price)


def _targets(entry: Table, id: str, settings: Settings) -> tuple[Target, ...]:
    """Where the model is served, in order: one `upstream`, or the list of `targets`."""
    if "targets" not in entry.values:
        target = _target(entry, id, settings)
        return (target,) if target else ()
    for key in ("upstream", "upstream_model"):
        if key in entry.values:
            entry.fault(f"`{key}` stands in each of `targets` where there are any, not beside them", key)
            entry.given(key)
    tables = entry.tables("targets")
    if not tables:
        entry.fault('`targets` is empty; write for example targets = [{ upstream = "openai" }]', "targets")
    targets: list[Target] = []
    for table in tables:
        target = _target(table, id, settings)
        table.finish()
        if target in targets:
            table.fault(f'"{target.upstream}" stands twice in `targets` with the same `upstream_model`')
        elif target:
            targets.append(target)
    return tuple(targets)


def _target(entry: Table, id: str, settings: Settings) -> Target | None:
    upstream = entry.needed("upstream", "openai")
    upstream_model = entry.text("upstream_model", id)
    if upstream is None:
        return None
    if upstream not in settings.upstreams:
        entry.fault(f'unknown upstream "{upstream}"{nearest(upstream, settings.upstreams)}', "upstream")
        return None
    return Target(upstream, upstream_model)


def _tokens(entry: Table, key: str, known: Pinned | None, upstream_model: str) -> int | None:
    """A number of tokens, by default the pinned table's."""
    count = entry.whole(key, getattr(known, key, None))
    if count is None and key not in entry.values:
        entry.fault(f"`{key}` is missing, and the pinned table does not know {upstream_model}")
    return count


def _rest(
    entry: Table, id: str, ids: list[str], known: Pinned | None
) -> tuple[str, tuple[str, ...], Price | None]:
    field: str = entry.one_of("output_limit_field", OUTPUT_LIMIT_FIELDS, "max_tokens")
    fallbacks = entry.names("fallbacks") or ()
    for position, fallback in enumerate(fallbacks):
        if fallback == id:
            entry.fault(f'"{id}" cannot be its own fallback', "fallbacks", position)
        elif fallback not in ids:
            entry.fault(
                f'unknown model "{fallback}" in `fallbacks`{nearest(fallback, ids)}', "fallbacks", position
            )
    price_table = entry.table("price")
    price = written_price(price_table) if "price" in entry.values else known.price if known else None
    entry.finish()
    return field, fallbacks, price
