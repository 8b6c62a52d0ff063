"""A provider's complaint may quote the prompt, and the prompt must not be where the complaint goes."""

from __future__ import annotations

import pytest

from proxy.domain.quotations import CONTENT_CHARACTERS_MAX, RUN_CHARACTERS, without_quotations

PROMPT = "the patient's name is Quillfeather and she\nlives in Oslo"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Invalid 'top_p': 7 is above 2.", "Invalid 'top_p': 7 is above 2."),
        (f"Flagged: {PROMPT}", "Flagged: "),
        ("Flagged: and she lives in Oslo!", "Flagged: "),
        ("", ""),
        ("short", "short"),
    ],
)
def test_what_is_quoted_is_left_out_and_the_rest_stays(text: str, left: str) -> None:
    """The complaint itself is what the developer needs."""
    said = without_quotations(text, [{"role": "user", "content": PROMPT}])
    assert said is not None
    assert said.startswith(left)
    assert "Quillfeather" not in said
    assert "lives in" not in said


@pytest.mark.parametrize(
    "content", [[{"content": [{"type": "text", "text": PROMPT}]}], {"a": {"b": [PROMPT]}}, PROMPT]
)
def test_content_is_found_wherever_it_stands(content: object) -> None:
    """Parts, tool calls and names are content too."""
    assert "Quillfeather" not in (without_quotations("about Quillfeather and she", content) or "")


def test_several_quotations_are_each_one_gap() -> None:
    said = without_quotations("1 Quillfeather and 2 Quillfeather and 3", "is Quillfeather and she")
    assert said is not None
    assert said.count("[…]") == 2
    assert said[0] == "1"
    assert said[-1] == "3"


def test_a_run_of_every_place_is_found() -> None:
    """Looking at every third place only must not miss a run that is a little longer."""
    for offset in range(6):
        text = "-" * offset + "abcdefghijklmnopqr"[: RUN_CHARACTERS + 3]
        assert "[…]" in (without_quotations(text, "..abcdefghijklmnopqr..") or "")


def test_too_much_content_is_not_looked_through() -> None:
    """A refusal must not take the loop for longer than an answer."""
    assert without_quotations("x", ["a" * CONTENT_CHARACTERS_MAX, "b"]) is None
    assert without_quotations("x", ["data:image/png;base64," + "a" * CONTENT_CHARACTERS_MAX]) == "x"
