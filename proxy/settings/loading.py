"""config.toml and the environment -> `Settings`, or every fault with its place."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast, get_args

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import SettingsError

from proxy.settings.faults import Fault, nearest
from proxy.settings.toml_text import Place, TomlText, read_toml
from proxy.settings.tree import Settings, Upstream, with_default_upstreams

PREFIX = "FAREGATE_"


class SettingsFaults(Exception):
    """What is wrong with the settings: at least one `Fault`."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = list(faults)


def load_settings(path: Path | None = None) -> Settings:
    """The settings of a file, overridden by the environment; without a file the defaults, likewise overridden.

    Directories come out absolute: they are relative to the file, or to the working directory without one.
    Raises `SettingsFaults`.
    """
    text = read_toml(path) if path else TomlText("settings", {})
    if isinstance(text, Fault):
        raise SettingsFaults([text])
    faults = _file_faults(text) + _unknown_variables(os.environ)
    if faults:
        raise SettingsFaults(sorted(faults))
    try:
        settings = Settings(**text.data)
    except SettingsError as fault:
        raise SettingsFaults([_no_json(fault)]) from None
    except ValidationError as refused:
        raise SettingsFaults([_placed(error, text, error["loc"]) for error in refused.errors()]) from None
    return _at_home(settings, path)


def _at_home(settings: Settings, path: Path | None) -> Settings:
    home = path.parent.absolute() if path else Path.cwd()
    given = "dir" in settings.policies.model_fields_set
    moved = {
        section: getattr(settings, section).model_copy(update={"dir": home / getattr(settings, section).dir})
        for section in ("data", "policies")
    }
    settings = settings.model_copy(update=moved)
    settings._file, settings._policies_given = path, given
    return settings


def _file_faults(text: TomlText) -> list[Fault]:
    """What strict reading finds: text is no number in a file, as it is in the environment."""
    faults = []
    for name, value in text.data.items():
        section = Settings.model_fields.get(name)
        if section is None:
            message = f'unknown section "{name}"{nearest(name, Settings.model_fields)}'
            faults.append(Fault(text.file, text.line((name,)), message))
            continue
        if name == "upstreams" and isinstance(value, dict):
            value = with_default_upstreams(value)
        try:
            TypeAdapter[Any](cast(Any, section.annotation)).validate_python(value, strict=True)
        except ValidationError as refused:
            faults += [_placed(error, text, (name, *error["loc"]), {}) for error in refused.errors()]
    return faults


def _unknown_variables(environ: Mapping[str, str]) -> list[Fault]:
    """Variables shaped like settings of a section that is none; pydantic-settings would pass them over."""
    faults = []
    for name in environ:
        section, separator, _ = name.removeprefix(PREFIX).partition("__")
        if name.startswith(PREFIX) and separator and section.lower() not in Settings.model_fields:
            near = nearest(section.lower(), Settings.model_fields)
            faults.append(Fault(f"environment variable {name}", 0, f'names no section "{section.lower()}"{near}'))
    return faults


def _no_json(fault: SettingsError) -> Fault:
    named = next((name for name in Settings.model_fields if f'"{name}"' in str(fault)), "section")
    name = f"{PREFIX}{named}".upper()
    return Fault(f"environment variable {name}", 0, f"is a whole section: set one value with {name}__KEY instead")


def _placed(error: ErrorDetails, text: TomlText, place: Place, environ: Mapping[str, str] | None = None) -> Fault:
    """The fault in words, where it was written: in a variable if there is one for that place, else the file."""
    message = _in_words(error, place)
    variable = PREFIX + "__".join(map(str, place)).upper()
    for name in os.environ if environ is None else environ:
        if name.upper() == variable:
            return Fault(f"environment variable {name}", 0, message)
    return Fault(text.file, text.line(place), message)


_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text in quotes",
    "is_instance_of": "text in quotes",
    "path_type": "text in quotes",
    "model_type": "a table",
    "dict_type": "a table",
    "string_pattern_mismatch": "the name of an environment variable, such as OPENAI_API_KEY",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
}


def _in_words(error: ErrorDetails, place: Place) -> str:
    name = ".".join(map(str, place))
    context = error.get("ctx", {})
    match error["type"]:
        case "faregate":
            return f"{name} {error['msg']}" if name else error["msg"]
        case "extra_forbidden":
            return f'unknown key "{place[-1]}"{nearest(str(place[-1]), _keys_at(place[:-1]))}'
        case "missing":
            return f"{'.'.join(map(str, place[:-1]))} needs `{place[-1]}`{_example(place)}"
        case "literal_error":
            known = context["expected"].replace("'", '"')
            return f"{name} must be {known}"
        case kind if kind in _EXPECTED:
            return f"{name} must be {_EXPECTED[kind].format(**context).removesuffix('.0')}{_not(error['input'])}"
    return f"{name}: {error['msg']}"


def _keys_at(table: Place) -> list[str]:
    if table[:1] == ("upstreams",):
        return list(Upstream.model_fields)
    section = Settings.model_fields[str(table[0])].annotation
    return list(getattr(section, "model_fields", {}))


def _example(place: Place) -> str:
    if place[-1] != "wire":
        return ""
    return ", one of " + ", ".join(f'"{wire}"' for wire in get_args(Upstream.model_fields["wire"].annotation))


def _not(given: object) -> str:
    """What was given, if it can be no secret."""
    if isinstance(given, bool):
        return f", not {str(given).lower()}"
    if isinstance(given, int | float):
        return f", not {given}"
    return ", not text" if isinstance(given, str) else ""
