"""The example and the reference say what the code does: every setting, its default, and nothing else."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from proxy.settings import Settings, Upstream, load_settings

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "config.example.toml"
REFERENCE = ROOT / "docs" / "reference" / "config.md"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("FAREGATE_")]:
        monkeypatch.delenv(name)


def defaults() -> dict[str, Any]:
    return Settings().model_dump(mode="json")


def test_the_example_is_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copied whole, it changes nothing."""
    monkeypatch.chdir(ROOT)
    assert load_settings(EXAMPLE).model_dump() == load_settings(None).model_dump()


def test_every_setting_is_in_the_example_and_nothing_else() -> None:
    """A setting that nobody can find does not exist; one that is no more misleads."""
    written = tomllib.loads(EXAMPLE.read_text())
    upstreams = written.pop("upstreams")
    known = defaults()
    assert set(upstreams) == set(known.pop("upstreams"))
    assert set(upstreams["openai"]) == set(Upstream.model_fields)
    assert written == known


def test_the_example_is_in_the_order_of_the_tree() -> None:
    """Whoever reads one finds the way in the other."""
    written = tomllib.loads(EXAMPLE.read_text())
    assert list(written) == list(Settings.model_fields)
    for name, section in written.items():
        keys = list(Upstream.model_fields) if name == "upstreams" else list(defaults()[name])
        assert list(section["openai"] if name == "upstreams" else section) == keys


def test_every_setting_has_its_row_in_the_reference() -> None:
    """With its default, in the order of the tree."""
    rows = re.findall(r"^\| `([a-z_]+\.[a-z_.*]+)` \| (.*?) \|", REFERENCE.read_text(), re.MULTILINE)
    expected = {}
    for section, values in defaults().items():
        if section == "upstreams":
            values = {
                f"*.{name}": field.get_default(call_default_factory=True)
                for name, field in Upstream.model_fields.items()
            }
        expected.update({f"{section}.{key}": value for key, value in values.items()})
    assert [name for name, _ in rows] == list(expected)
    filled_in = ("upstreams.*.wire", "upstreams.*.base_url", "upstreams.*.provider")
    for name, default in rows:
        if name not in filled_in:
            value = tomllib.loads(f"x = {default.strip('`')}")["x"]
            assert value == expected[name], name
