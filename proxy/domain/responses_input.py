"""The input of a Responses request: a text or a list of items, measured, with what must be looked up by its id.

Most items carry all that the model will read. Some are no more than the id of what the provider has kept, and the
rest of them comes out of its store: those ids are collected, to be held against what the customer itself has made.
"""

from __future__ import annotations

import re
from typing import Any

from proxy.domain.faults import bad_value, fault, missing, wrong_type
from proxy.domain.request_parts import IMAGE_TOKENS, UNBOUNDED, Size, check_remote
from proxy.domain.responses_tools import Tools, foreign

ITEMS_MAX = 5_000
ID = re.compile(r"[A-Za-z0-9_\-]{1,256}")

# All that the model will read of them is in the item.
WHOLE_ITEMS = frozenset(
    (
        "function_call", "custom_tool_call", "computer_call", "tool_search_call", "local_shell_call",
        "local_shell_call_output", "shell_call", "shell_call_output", "apply_patch_call",
        "apply_patch_call_output", "mcp_list_tools", "mcp_approval_request", "mcp_approval_response", "mcp_call",
        "program", "program_output", "configuration_update",
    )
)  # fmt: skip
OUTPUTS = frozenset(("function_call_output", "custom_tool_call_output", "computer_call_output"))
TOOL_HOLDERS = frozenset(("additional_tools", "tool_search_output"))
# What a provider has kept of these (thoughts, results) may come with them, whatever the item itself says.
RECALLED = frozenset(("reasoning", "web_search_call", "file_search_call", "code_interpreter_call"))

TEXT_PARTS = {
    "input_text": "text",
    "output_text": "text",
    "text": "text",
    "summary_text": "text",
    "reasoning_text": "text",
    "refusal": "refusal",
}
DETAILS = {**IMAGE_TOKENS, "original": IMAGE_TOKENS["high"]}


class ResponsesInput:
    """What was found of an input. `stored_items`: ids to look up, each with whether the request hangs on it.

    `unbounded` is true once there was something whose size nothing in the body tells.
    """

    __slots__ = ("count", "size", "stored_items", "tools", "unbounded")

    def __init__(self) -> None:
        self.count = 0
        self.size = Size()
        self.tools = Tools(self.size)
        self.stored_items: dict[str, bool] = {}
        self.unbounded = False

    @property
    def bound(self) -> int:
        return UNBOUNDED if self.unbounded else self.size.text + self.size.image_tokens

    def read(self, value: Any) -> None:
        """Takes `input`; raises `Refused` (400)."""
        if type(value) is str:
            self.count = 1
            self.size.add(value)
            return
        if type(value) is not list:
            raise wrong_type("input", "a string or an array of items", value)
        if len(value) > ITEMS_MAX:
            raise bad_value("input", f"it has {len(value)} items; at most {ITEMS_MAX} are taken")
        self.count = len(value)
        for position, item in enumerate(value):
            where = f"input.{position}"
            if type(item) is not dict:
                raise wrong_type(where, "an object", item)
            self._item(item, where)

    def _item(self, item: dict[str, Any], where: str) -> None:
        kind = item.get("type")
        if kind == "message" or (kind is None and "role" in item):
            self._message(item, where)
        elif kind == "item_reference" or (kind is None and "id" in item):
            self._stored(item, where, needed=True)
        elif type(kind) is not str:
            raise missing(f"{where}.type") if kind is None else wrong_type(f"{where}.type", "a string", kind)
        elif kind in WHOLE_ITEMS:
            self.size.add(item)
        elif kind in OUTPUTS:
            self._output(item, where)
        elif kind in RECALLED:
            self._recalled(kind, item, where)
        elif kind == "image_generation_call":
            self._made_image(item, where)
        elif kind in TOOL_HOLDERS:
            self.tools.read(item.get("tools"), f"{where}.tools")
            self.size.add({name: value for name, value in item.items() if name != "tools"})
        elif kind == "compaction":
            # What it stands for was once longer than its ciphertext.
            self.unbounded = True
        else:
            message = f"'{where}.type' is no item that Faregate can bound."
            raise fault("unsupported_value", message, f"{where}.type")

    def _message(self, item: dict[str, Any], where: str) -> None:
        role = item.get("role")
        if type(role) is not str:
            raise (missing(f"{where}.role") if role is None else wrong_type(f"{where}.role", "a string", role))
        if item.get("content") is None:
            raise missing(f"{where}.content")
        self._content(item["content"], f"{where}.content")
        self.size.add({name: value for name, value in item.items() if name != "content"})

    def _output(self, item: dict[str, Any], where: str) -> None:
        output = item.get("output")
        if type(output) is dict:
            output = [output]
        if output is not None:
            self._content(output, f"{where}.output")
        self.size.add({name: value for name, value in item.items() if name != "output"})

    def _content(self, content: Any, where: str) -> None:
        if type(content) is str:
            self.size.add(content)
            return
        if type(content) is not list:
            raise wrong_type(where, "a string or an array of parts", content)
        for position, part in enumerate(content):
            here = f"{where}.{position}"
            if type(part) is not dict:
                raise wrong_type(here, "an object", part)
            self._part(part, here)

    def _part(self, part: dict[str, Any], where: str) -> None:
        kind = part.get("type")
        _check_breakpoint(part.get("prompt_cache_breakpoint"), f"{where}.prompt_cache_breakpoint")
        if type(kind) is str and kind in TEXT_PARTS:
            name = TEXT_PARTS[kind]
            if type(part.get(name)) is not str:
                raise wrong_type(f"{where}.{name}", "a string", part.get(name))
            self.size.add(part)
        elif kind in ("input_image", "computer_screenshot"):
            self._image(part, where)
        elif kind == "input_file":
            self._file(part, where)
        else:
            message = (
                f"'{where}.type' must be 'input_text', 'input_image', 'input_file', 'output_text' or 'refusal';"
                " other parts cannot be bounded yet."
            )
            raise fault("unsupported_value", message, f"{where}.type")

    def _image(self, part: dict[str, Any], where: str) -> None:
        if part.get("file_id") is not None:
            raise foreign(f"{where}.file_id")
        url = part.get("image_url")
        if type(url) is not str:
            raise wrong_type(f"{where}.image_url", "a string", url)
        detail = part.get("detail") or "auto"
        if type(detail) is not str or detail not in DETAILS:
            raise bad_value(f"{where}.detail", "it must be 'low', 'high', 'auto' or 'original'")
        if url[:11].lower() != "data:image/":
            check_remote(url, f"{where}.image_url")
            self.size.remote_image = self.size.remote_image or f"{where}.image_url"
            detail = "high"
        self.size.images += 1
        self.size.image_tokens += DETAILS[detail]
        self.size.add({name: value for name, value in part.items() if name != "image_url"})

    def _file(self, part: dict[str, Any], where: str) -> None:
        if part.get("file_id") is not None:
            raise foreign(f"{where}.file_id")
        if part.get("file_url") is not None:
            message = f"'{where}.file_url' is not fetched from a remote address; send the content in 'file_data'."
            raise fault("unsupported_parameter", message, f"{where}.file_url")
        if type(part.get("file_data")) is not str:
            raise wrong_type(f"{where}.file_data", "a string", part.get("file_data"))
        self.unbounded = True

    def _made_image(self, item: dict[str, Any], where: str) -> None:
        if item.get("result") is None:
            self._stored(item, where, needed=True)
        self.size.images += 1
        self.size.image_tokens += IMAGE_TOKENS["auto"]
        self.size.add({name: value for name, value in item.items() if name != "result"})

    def _recalled(self, kind: str, item: dict[str, Any], where: str) -> None:
        """Thoughts that are sent along, in the clear or encrypted, are not looked up; those left out may be."""
        self.size.add(item)
        complete = kind == "reasoning" and bool(item.get("encrypted_content") or item.get("content"))
        if item.get("id") is not None and not complete:
            self._stored(item, where, needed=kind == "reasoning" and not item.get("summary"))

    def _stored(self, item: dict[str, Any], where: str, *, needed: bool) -> None:
        id = item.get("id")
        if id is None:
            raise missing(f"{where}.id")
        check_id(id, f"{where}.id")
        self.stored_items[id] = needed or self.stored_items.get(id, False)


def check_id(id: Any, where: str) -> None:
    if type(id) is not str:
        raise wrong_type(where, "a string", id)
    if ID.fullmatch(id) is None:
        raise bad_value(where, "it must have 1 to 256 letters, digits, '_' and '-'")


def _check_breakpoint(value: Any, where: str) -> None:
    """What is written to the cache for longer may be dearer than the one price that a model has for it."""
    if type(value) is dict and value.get("ttl") not in (None, "30m"):
        raise fault("unsupported_value", f"'{where}.ttl' may only be '30m'.", f"{where}.ttl")
