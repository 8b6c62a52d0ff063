"""The tools of a Messages request: which the client runs, which the provider runs, and which nobody may name."""

from __future__ import annotations

import re
from typing import Any

from proxy.domain.asks import Extra
from proxy.domain.faults import bad_value, fault, missing, wrong_type
from proxy.domain.request_parts import TOKENS_PER_TOOL, TOOLS_MAX, Size, whole

# What the provider writes into the prompt where there are tools at all, and for those that it defines itself and
# the client runs, by their types without the date: some times what its documentation counts.
TOKENS_FOR_TOOLS = 1_024
CLIENTS_OWN = {
    "bash": 1_024,
    "browser_toolset": 32_768,
    "computer": 4_096,
    "computer_toolset": 16_384,
    "memory": 4_096,
    "text_editor": 2_048,
}

# What the provider runs itself, and the plan's word for it.
HOSTED = {
    "code_execution": "code_interpreter",
    "mcp_toolset": "mcp",
    "web_fetch": "web_fetch",
    "web_search": "web_search",
}
# Those of which a request can say how often they may be used at most.
LIMITED = frozenset(("web_fetch", "web_search"))
USES_MAX = 10_000

_DATE = re.compile(r"_\d{8}")


class MessagesTools:
    """The tools found so far: how many, what their definitions may take, and the features that they need."""

    __slots__ = ("count", "extras", "tokens")

    def __init__(self) -> None:
        self.count = 0
        self.tokens = 0
        self.extras: list[Extra] = []

    def read(self, tools: Any, where: str, size: Size) -> None:
        """Takes the list of tools at `where`; raises `Refused` (400) for one that is not known."""
        if type(tools) is not list:
            raise wrong_type(where, "an array of objects", tools)
        if len(tools) > TOOLS_MAX:
            raise bad_value(where, f"it has {len(tools)} entries; at most {TOOLS_MAX} are taken")
        for position, tool in enumerate(tools):
            self.read_one(tool, f"{where}.{position}")
        size.add(tools)

    def read_one(self, tool: Any, where: str) -> None:
        if type(tool) is not dict:
            raise wrong_type(where, "an object", tool)
        if self.count == 0:
            self.tokens += TOKENS_FOR_TOOLS
        self.count += 1
        kind = tool.get("type")
        if kind is None or kind == "custom":
            if type(tool.get("name")) is not str:
                raise missing(f"{where}.name")
            self.tokens += TOKENS_PER_TOOL
            return
        if type(kind) is not str:
            raise wrong_type(f"{where}.type", "a string", kind)
        family = _DATE.sub("", kind)
        if family in CLIENTS_OWN:
            self.tokens += CLIENTS_OWN[family]
        elif family in HOSTED:
            limit = f"{where}.max_uses" if family in LIMITED else None
            uses = whole(tool, "max_uses", USES_MAX, limit) if limit else None
            self.extras.append(Extra(where, HOSTED[family], uses, limit))
        else:
            known = ", ".join(sorted((*CLIENTS_OWN, *HOSTED)))
            message = f"'{where}.type' is no tool whose cost Faregate knows. It takes custom tools and {known}."
            raise fault("unsupported_value", message, f"{where}.type")

    def read_servers(self, servers: Any) -> None:
        """Takes `mcp_servers`."""
        if type(servers) is not list:
            raise wrong_type("mcp_servers", "an array of objects", servers)
        for position, server in enumerate(servers):
            if type(server) is not dict:
                raise wrong_type(f"mcp_servers.{position}", "an object", server)
            self.extras.append(Extra(f"mcp_servers.{position}", "mcp"))
