"""How a value of a request is taken: of the right type, with nothing in it that would be dropped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxy.gateway.ports import UpstreamFailed
from proxy.providers.untranslatable import misshapen, not_carried


def wrong(where: str) -> UpstreamFailed:
    return misshapen(where)


def known(holder: Mapping[str, Any], where: str, *names: str) -> None:
    """Refuses an object that says more than `names`; null counts as absent."""
    for name, value in holder.items():
        if value is not None and name not in names:
            raise not_carried(f"{where}.{name[:64]}")


def text_in(holder: Mapping[str, Any], name: str, where: str = "") -> str:
    value = holder.get(name)
    if type(value) is not str:
        raise wrong(f"{where}.{name}" if where else name)
    return value


def object_in(holder: Mapping[str, Any], name: str, where: str = "") -> dict[str, Any]:
    value = holder.get(name)
    if type(value) is not dict:
        raise wrong(f"{where}.{name}" if where else name)
    return value
