"""What becomes of each field of a Responses request on an upstream without Responses is told, and told rightly."""

from __future__ import annotations

import re
from pathlib import Path

from proxy.domain.responses_requests import FIELDS
from proxy.providers.translation.responses_request import TRANSLATED, WITHOUT_EFFECT

PAGE = (Path(__file__).parents[2] / "docs/reference/data-plane.md").read_text()
SECTION = PAGE.partition("\n## Responses on other models\n")[2].partition("\n## ")[0]
ROWS = {
    name: set(re.findall(r"`([a-z_]+)(?:[`.])", fields))
    for name, fields in re.findall(r"^\| (translated|of no effect|refused) \| (.*) \|$", SECTION, re.MULTILINE)
}


def test_every_field_has_its_place_in_the_table() -> None:
    """A field that stands nowhere is dropped in silence for all that a reader can know."""
    assert FIELDS.keys() - ROWS["translated"] - ROWS["of no effect"] - ROWS["refused"] == {"model"}


def test_no_field_is_in_the_wrong_place() -> None:
    """`max_output_tokens` alone is put by whoever sends the chat request, and translated all the same."""
    refused = FIELDS.keys() - TRANSLATED - WITHOUT_EFFECT
    assert ROWS["refused"] & FIELDS.keys() == refused
    assert ROWS["of no effect"] & FIELDS.keys() >= WITHOUT_EFFECT - {"model", "max_output_tokens"}
    assert not ROWS["translated"] & refused
