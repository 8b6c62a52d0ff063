"""A request that cannot be carried over to another wire: a 400 that names the field, before anything is sent."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from proxy.gateway.ports import UpstreamFailed


def untranslatable(param: str, message: str) -> UpstreamFailed:
    return UpstreamFailed(
        "unsent",
        "untranslatable",
        message,
        status=400,
        code="unsupported_parameter",
        param=param,
        blame="request",
    )


def misshapen(param: str) -> UpstreamFailed:
    return untranslatable(param, f"'{param}' is not of a form that can be carried over to this model's provider.")


def not_carried(param: str, instead: str = "Leave it out.") -> UpstreamFailed:
    return untranslatable(param, f"'{param}' cannot be carried over to this model's provider. {instead}")


def text_of(holder: Mapping[str, Any], name: str, where: str = "") -> str:
    value = holder.get(name)
    if type(value) is not str:
        raise misshapen(f"{where}.{name}" if where else name)
    return value


def object_of(holder: Mapping[str, Any], name: str, where: str = "") -> dict[str, Any]:
    value = holder.get(name)
    if type(value) is not dict:
        raise misshapen(f"{where}.{name}" if where else name)
    return value


def only(holder: Mapping[str, Any], known: Collection[str], where: str) -> None:
    """Refuses whatever else `holder` says; null says nothing."""
    for name, value in holder.items():
        if name not in known and value is not None:
            raise not_carried(f"{where}.{name}"[:128])
