"""The tools of a Responses request: which the client runs, which the provider runs, and which nobody may name."""

from __future__ import annotations

from typing import Any

from proxy.domain.asks import Extra
from proxy.domain.faults import bad_value, fault, missing, wrong_type
from proxy.domain.request_parts import TOOLS_MAX, Size

# What the client runs itself costs no more than the tokens of its definition.
CLIENTS_OWN = frozenset(("function", "custom", "local_shell", "shell", "apply_patch"))

HOSTED: dict[str, str] = {
    "file_search": "file_search",
    "code_interpreter": "code_interpreter",
    "mcp": "mcp",
    "image_generation": "image_generation",
    "computer": "computer_use",
}

# Providers date these ("web_search_preview_2025_03_11"), so that they are known by how they begin.
HOSTED_BY_BEGINNING = (("web_search", "web_search"), ("computer_use", "computer_use"))

# Objects of the provider's account that no customer can have made here: naming one would reach into another's.
FOREIGN = frozenset(("file_id", "file_ids", "container_id"))


class Tools:
    """The tools found so far: how many, their text, and the features that they need."""

    __slots__ = ("count", "extras", "size")

    def __init__(self, size: Size) -> None:
        self.count = 0
        self.extras: list[tuple[str, str]] = []
        self.size = size

    def read(self, tools: Any, where: str) -> None:
        """Takes the list of tools at `where`; raises `Refused` (400) for one that is not known or not allowed."""
        if type(tools) is not list:
            raise wrong_type(where, "an array of objects", tools)
        self.count += len(tools)
        if self.count > TOOLS_MAX:
            raise bad_value(where, f"at most {TOOLS_MAX} tools are taken")
        for position, tool in enumerate(tools):
            self._read_one(tool, f"{where}.{position}")
        self.size.add(tools)

    def extras_of(self, calls: int | None) -> tuple[Extra, ...]:
        """`calls` is the request's own limit, which all its tools share."""
        return tuple([Extra(param, feature, calls, "max_tool_calls") for param, feature in self.extras])

    def _read_one(self, tool: Any, where: str) -> None:
        if type(tool) is not dict:
            raise wrong_type(where, "an object", tool)
        kind = tool.get("type")
        if type(kind) is not str:
            raise missing(f"{where}.type") if kind is None else wrong_type(f"{where}.type", "a string", kind)
        if kind in ("function", "custom", "namespace") and type(tool.get("name")) is not str:
            raise missing(f"{where}.name")
        if kind == "namespace":
            self._read_namespace(tool.get("tools"), f"{where}.tools")
        elif (feature := _feature(kind, tool)) is not None:
            self.extras.append((where, feature))
            _refuse_foreign(tool, where)
        elif kind not in CLIENTS_OWN and not (kind == "tool_search" and tool.get("execution") == "client"):
            message = (
                f"'{where}.type' is no tool that Faregate knows the cost of. It takes function, custom, namespace,"
                " local_shell, shell, apply_patch, tool_search with 'execution' set to 'client', web_search,"
                " file_search, code_interpreter, mcp, image_generation and computer tools."
            )
            raise fault("unsupported_value", message, f"{where}.type")

    def _read_namespace(self, tools: Any, where: str) -> None:
        if type(tools) is not list:
            raise wrong_type(where, "an array of objects", tools)
        self.count += len(tools)
        for position, tool in enumerate(tools):
            if type(tool) is not dict or tool.get("type") not in ("function", "custom"):
                message = f"'{where}.{position}.type' must be 'function' or 'custom' inside a namespace."
                raise fault("unsupported_value", message, f"{where}.{position}.type")


def _feature(kind: str, tool: dict[str, Any]) -> str | None:
    """The plan's word for what the provider runs itself; None for all else."""
    if kind == "shell":
        environment = tool.get("environment")
        own = type(environment) is dict and environment.get("type") == "local"
        return None if own else "code_interpreter"
    for beginning, feature in HOSTED_BY_BEGINNING:
        if kind.startswith(beginning):
            return feature
    return HOSTED.get(kind)


def _refuse_foreign(value: Any, where: str) -> None:
    if type(value) is list:
        for position, each in enumerate(value):
            _refuse_foreign(each, f"{where}.{position}")
    elif type(value) is dict:
        for name, each in value.items():
            if each and (name in FOREIGN or (name == "container" and type(each) is str)):
                raise foreign(f"{where}.{name}")
            _refuse_foreign(each, f"{where}.{name}")


def foreign(where: str) -> Exception:
    """The refusal of a provider's object by its id."""
    message = (
        f"'{where}' names an object in the provider's account, and Faregate cannot tell whose it is."
        " Send the content itself."
    )
    return fault("unsupported_parameter", message, where)
