"""The input of a Messages request: system text, turns and their blocks, measured.

A block's text counts by its bytes, and so does what only the provider can read (signatures, encrypted results): it
is never shorter than what it stands for has tokens. What nothing in the body tells the size of (a PDF, a page that
the provider fetches, a kind of block that came later than this table) may fill the model's context.
"""

from __future__ import annotations

from typing import Any

from proxy.domain.asks import Extra
from proxy.domain.faults import bad_value, fault, missing, wrong_type
from proxy.domain.messages_tools import MessagesTools
from proxy.domain.refusals import Refused
from proxy.domain.request_parts import IMAGE_TOKENS, TOKENS_PER_MESSAGE, UNBOUNDED, Size

MESSAGES_MAX = 2_000

# What a template may write around a block; and what the provider explains to the model where it shall cite.
TOKENS_PER_BLOCK = 32
TOKENS_FOR_CITATIONS = 1_024

# All that the model will read of them is in the block.
WHOLE_BLOCKS = frozenset(
    (
        "thinking", "redacted_thinking", "connector_text", "tool_use", "server_tool_use", "mcp_tool_use",
        "web_search_tool_result", "code_execution_tool_result", "bash_code_execution_tool_result",
        "text_editor_code_execution_tool_result", "tool_search_tool_result", "advisor_tool_result",
        "tool_reference", "tool_removal", "browser_state", "mcp_tool_listing", "fallback",
    )
)  # fmt: skip


class MessagesInput:
    """What was found of an input. `unknown` names the blocks of a kind that the gate has no word for."""

    __slots__ = ("count", "extras", "size", "tokens", "tools", "unbounded", "unknown")

    def __init__(self) -> None:
        self.count = 0
        self.size = Size()
        self.tokens = 0
        self.tools = MessagesTools()
        self.extras: list[Extra] = []
        self.unknown: list[str] = []
        self.unbounded = False

    @property
    def bound(self) -> int:
        if self.unbounded:
            return UNBOUNDED
        return self.size.text + self.size.image_tokens + self.tokens + self.tools.tokens

    def read(self, messages: Any) -> None:
        """Takes `messages`; raises `Refused` (400)."""
        if type(messages) is not list:
            raise (
                missing("messages")
                if messages is None
                else wrong_type("messages", "an array of objects", messages)
            )
        if not messages:
            raise bad_value("messages", "it must have at least one message")
        if len(messages) > MESSAGES_MAX:
            raise bad_value("messages", f"it has {len(messages)} messages; at most {MESSAGES_MAX} are taken")
        self.count = len(messages)
        self.tokens += TOKENS_PER_MESSAGE * len(messages)
        for position, message in enumerate(messages):
            where = f"messages.{position}"
            if type(message) is not dict:
                raise wrong_type(where, "an object", message)
            role = message.get("role")
            if type(role) is not str:
                raise _not(f"{where}.role", "a string", role)
            if message.get("content") is not None:
                self.content(message["content"], f"{where}.content")
            elif "output_config" not in message:
                raise missing(f"{where}.content")
            if len(message) == 2:
                self.size.add(role)
            else:
                self.size.add({name: value for name, value in message.items() if name != "content"})

    def content(self, content: Any, where: str) -> None:
        """Takes a text or a list of blocks."""
        if type(content) is str:
            self.size.add(content)
            return
        if type(content) is not list:
            raise wrong_type(where, "a string or an array of blocks", content)
        for position, block in enumerate(content):
            if type(block) is not dict:
                raise wrong_type(f"{where}.{position}", "an object", block)
            self._block(block, f"{where}.{position}")

    def _block(self, block: dict[str, Any], where: str) -> None:
        self.tokens += TOKENS_PER_BLOCK
        kind = block.get("type")
        if kind == "text":
            if type(block.get("text")) is not str:
                raise wrong_type(f"{where}.text", "a string", block.get("text"))
            self.size.add(block["text"])
            self._rest(block, ("type", "text", "cache_control"))
        elif kind == "image":
            self._image(block, where)
        elif kind == "document":
            self._document(block, where)
        elif kind in ("tool_result", "mcp_tool_result"):
            if block.get("content") is not None:
                self.content(block["content"], f"{where}.content")
            self._rest(block, ("type", "content", "cache_control"))
        elif kind == "web_fetch_tool_result":
            self._fetched(block, where)
        elif type(kind) is not str:
            raise _not(f"{where}.type", "a string", kind)
        elif kind in WHOLE_BLOCKS:
            self.size.add(block)
        else:
            self._rare(kind, block, where)

    def _rare(self, kind: str, block: dict[str, Any], where: str) -> None:
        self.size.add(block)
        if kind == "search_result":
            self._citations(block)
        elif kind == "tool_addition":
            tool = block.get("tool")
            if type(tool) is dict and tool.get("type") == "tool_definition":
                self.tools.read_one(tool.get("definition"), f"{where}.tool.definition")
        elif kind == "compaction":
            self.unbounded |= block.get("encrypted_content") is not None
        elif kind == "container_upload":
            raise foreign(f"{where}.file_id")
        else:
            self.unknown.append(where)
            self.unbounded = True

    def _rest(self, block: dict[str, Any], counted: tuple[str, ...]) -> None:
        if len(block) > 2:
            self.size.add({name: value for name, value in block.items() if name not in counted})

    def _image(self, block: dict[str, Any], where: str) -> None:
        kind = self._source(block, where)
        if kind == "url":
            self.extras.append(Extra(f"{where}.source", "remote_images"))
        elif kind != "base64":
            raise bad_value(f"{where}.source.type", "it must be 'base64' or 'url'")
        self._rest(block, ("type", "source", "cache_control"))
        self.size.images += 1
        self.size.image_tokens += IMAGE_TOKENS["auto"]

    def _document(self, block: dict[str, Any], where: str) -> None:
        kind = self._source(block, where)
        source = block["source"]
        if kind == "text":
            self.size.add(source)
        elif kind == "content":
            self.content(source.get("content"), f"{where}.source.content")
        elif kind == "base64":
            self.unbounded = True
        elif kind == "url":
            self.extras.append(Extra(f"{where}.source", "remote_images"))
            self.unbounded = True
        else:
            raise bad_value(f"{where}.source.type", "it must be 'base64', 'text', 'content' or 'url'")
        self._rest(block, ("type", "source", "cache_control"))
        self._citations(block)

    def _source(self, block: dict[str, Any], where: str) -> Any:
        source = block.get("source")
        if type(source) is not dict:
            raise (
                missing(f"{where}.source")
                if source is None
                else wrong_type(f"{where}.source", "an object", source)
            )
        if source.get("type") == "file":
            raise foreign(f"{where}.source.file_id")
        return source.get("type")

    def _fetched(self, block: dict[str, Any], where: str) -> None:
        """A page that the provider fetched in an earlier turn, which may be a PDF."""
        result = block.get("content")
        page = result.get("content") if type(result) is dict else None
        if type(page) is dict and page.get("type") == "document":
            self._document(page, f"{where}.content.content")
        else:
            self.size.add(block)

    def _citations(self, block: dict[str, Any]) -> None:
        if block.get("citations"):
            self.tokens += TOKENS_FOR_CITATIONS


def _not(where: str, expected: str, value: Any) -> Refused:
    return missing(where) if value is None else wrong_type(where, expected, value)


def foreign(where: str) -> Refused:
    """The refusal of what the provider keeps, by its id."""
    message = (
        f"'{where}' names something kept in the provider's account, and Faregate cannot tell whose it is."
        " Send the content itself."
    )
    return fault("unsupported_parameter", message, where)
