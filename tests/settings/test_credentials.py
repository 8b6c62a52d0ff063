"""Keys are where they belong and nowhere else, and are never made twice."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from proxy.settings import Settings, SettingsFaults, admin_token, secret_pepper, take_upstream_keys
from proxy.settings import credentials as room


def settings_in(folder: Path) -> Settings:
    return Settings.model_validate({"data": {"dir": str(folder)}})


def test_upstream_keys_leave_the_environment(tmp_path: Path) -> None:
    """No child process, library or crash report may find them there."""
    environ = {"OPENAI_API_KEY": " sk-canary\n", "ANTHROPIC_API_KEY": "", "HOME": "/"}
    settings = Settings.model_validate(
        {"upstreams": {"second": {"wire": "openai", "api_key_env": "OPENAI_API_KEY"}, "free": {"wire": "openai"}}}
    )
    assert take_upstream_keys(settings, environ) == {"openai": "sk-canary", "second": "sk-canary"}
    assert environ == {"HOME": "/"}


def test_the_environment_gives_token_and_pepper(tmp_path: Path) -> None:
    """Then nothing is written down."""
    environ = {"FAREGATE_ADMIN_TOKEN": "token", "FAREGATE_SECRET_PEPPER": "pepper"}
    settings = settings_in(tmp_path / "var")
    assert (admin_token(settings, environ), secret_pepper(settings, environ)) == ("token", b"pepper")
    assert not (tmp_path / "var").exists()


def test_generated_ones_are_private_and_stay(tmp_path: Path) -> None:
    """A pepper that changed at a restart would make every agent secret worthless."""
    settings = settings_in(tmp_path / "a" / "var")
    token, pepper = admin_token(settings, {}), secret_pepper(settings, {"FAREGATE_SECRET_PEPPER": ""})
    assert (admin_token(settings, {}), secret_pepper(settings, {})) == (token, pepper)
    assert len(pepper) >= 32
    assert token != pepper.decode()
    names = sorted(path.name for path in settings.data.dir.iterdir())
    assert names == ["admin-token", "secret-pepper"]
    for name in names:
        assert stat.S_IMODE((settings.data.dir / name).stat().st_mode) == 0o600


def test_two_that_start_at_once_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the secrets that one of them made would be unknown to the other."""
    monkeypatch.setattr(Path, "exists", lambda self: False)  # Everyone comes before anyone has written.
    settings = settings_in(tmp_path)
    with ThreadPoolExecutor(16) as pool:
        peppers = set(pool.map(lambda _: secret_pepper(settings, {}), range(64)))
    assert len(peppers) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["secret-pepper"]


def test_an_empty_pepper_is_refused_and_kept(tmp_path: Path) -> None:
    """To make a new one in silence would lock every agent out."""
    (tmp_path / room.PEPPER_FILE).touch()
    with pytest.raises(SettingsFaults, match="restore it from a backup"):
        secret_pepper(settings_in(tmp_path), {})


def test_a_data_dir_that_cannot_be_is_told(tmp_path: Path) -> None:
    """A file in the way is a sentence, not a stack trace."""
    (tmp_path / "var").touch()
    with pytest.raises(SettingsFaults, match="cannot be kept there"):
        admin_token(settings_in(tmp_path / "var"), {})
