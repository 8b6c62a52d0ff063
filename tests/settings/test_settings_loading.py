"""Settings come out whole and checked, or every fault is told with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.settings import SettingsFaults, load_settings


def written(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text)
    return path


def faults(path: Path | None) -> list[str]:
    with pytest.raises(SettingsFaults) as refused:
        load_settings(path)
    return [f"{fault.line}: {fault.message}" for fault in refused.value.faults]


def test_without_a_file_the_defaults_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`faregate serve` in an empty folder must serve."""
    monkeypatch.chdir(tmp_path)
    settings = load_settings(None)
    assert (settings.server.port, settings.admin.port, settings.redis.shards) == (8080, 8081, 16)
    assert settings.data.dir == tmp_path / "var"
    assert settings.file is None
    assert {name: upstream.wire for name, upstream in settings.upstreams.items()} == {
        "openai": "openai",
        "anthropic": "anthropic",
        "gemini": "litellm",
    }
    assert settings.upstreams["openai"].base_url == "https://api.openai.com/v1"
    assert settings.upstreams["anthropic"].base_url == "https://api.anthropic.com"


def test_relative_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service manager starts from another folder."""
    monkeypatch.chdir("/")
    path = written(tmp_path, '[data]\ndir = "state"\n[policies]\ndir = "/absolute"\n')
    settings = load_settings(path)
    assert settings.data.dir == tmp_path / "state"
    assert settings.policies.dir == Path("/absolute")
    assert settings.policies_given


def test_the_environment_goes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers are set up by variables, whose text is read as the type that the setting has."""
    path = written(tmp_path, "[server]\nport = 1000\nworkers = 3\n")
    monkeypatch.setenv("FAREGATE_SERVER__PORT", "9000")
    monkeypatch.setenv("FAREGATE_POLICIES__WATCH", "false")
    monkeypatch.setenv("FAREGATE_UPSTREAMS__OPENAI__BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("FAREGATE_ADMIN_TOKEN", "not a setting")
    settings = load_settings(path)
    assert (settings.server.port, settings.server.workers, settings.policies.watch) == (9000, 3, False)
    assert settings.upstreams["openai"].base_url == "http://127.0.0.1:9/v1"
    assert settings.upstreams["openai"].api_key_env == "OPENAI_API_KEY"


def test_an_upstream_of_ones_own_stands_beside_the_defaults(tmp_path: Path) -> None:
    """Adding one must not take the others away, and changing a key of one keeps its rest."""
    settings = load_settings(
        written(
            tmp_path,
            '[upstreams.local]\nwire = "openai"\nbase_url = "http://localhost:1/v1"\n'
            '[upstreams.gemini]\nidle_timeout_s = 5\n[upstreams.openai]\nwire = "litellm"\n',
        )
    )
    assert set(settings.upstreams) == {"openai", "anthropic", "gemini", "local"}
    assert (settings.upstreams["local"].provider, settings.upstreams["local"].api_key_env) == ("openai", "")
    assert (settings.upstreams["gemini"].provider, settings.upstreams["gemini"].idle_timeout_s) == ("gemini", 5)
    assert settings.upstreams["openai"].provider == "openai"


BAD = """[server]
prot = 8081
port = "8080"
workers = true
drain_s = inf
[admin]
port = 99999
[redis]
url = "http://user:hunter2@x"
fsync = "never"
[servr]
x = 1
[upstreams.mine]
base_url = "x"
bas_url = 1
[upstreams.openai]
max_concurrency = -1
connect_timeout_s = 0
[upstreams.lit]
wire = "litellm"
[telemetry]
otlp_endpoint = "http://x"
[policies]
watch = "yes"
dir = 3
[ledger]
url = "mysql://x"
"""


def test_every_fault_of_a_file_is_told_with_its_line(tmp_path: Path) -> None:
    """Nobody wants to start a gate seven times to find seven faults; and a password is not repeated."""
    assert faults(written(tmp_path, BAD)) == [
        '2: unknown key "prot"; did you mean "port"?',
        "3: server.port must be a whole number, not text",
        "4: server.workers must be a whole number, not true",
        "5: server.drain_s must be a number, not inf",
        "7: admin.port must be at most 65535, not 99999",
        "9: redis.url must be empty or a URL that begins with redis:// or rediss:// or unix://",
        '10: redis.fsync must be "everysec" or "always"',
        '11: unknown section "servr"; did you mean "server"?',
        '13: upstreams.mine needs `wire`, one of "openai", "anthropic", "litellm"',
        "14: upstreams.mine.base_url must be empty or a URL that begins with http:// or https://",
        '15: unknown key "bas_url"; did you mean "base_url"?',
        "17: upstreams.openai.max_concurrency must be at least 0, not -1",
        "18: upstreams.openai.connect_timeout_s must be more than 0, not 0",
        '19: upstreams.lit needs `provider`, LiteLLM\'s name for it, such as provider = "gemini"',
        '22: telemetry.otlp_endpoint is not available yet: leave it out, or write ""',
        "24: policies.watch must be true or false, not text",
        "25: policies.dir must be text in quotes, not 3",
        "27: ledger.url must be empty or a URL that begins with postgresql://",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("server = 3", "1: server must be a table, not 3"),
        ("[upstreams]\nopenai = 3", "2: upstreams.openai must be a table, not 3"),
        ("upstreams = 3", "1: upstreams must be a table, not 3"),
        (
            "[server]\nworkers = 3\n[upstreams.openai]\nmax_concurrency = 2",
            (
                "0: upstreams.openai.max_concurrency is 2, of which 3 workers cannot have one each:"
                " make it 3 or more (0: unlimited), or server.workers 2 or less"
            ),
        ),
        ("[server]\nport = 8081", "0: server and admin cannot both listen on 127.0.0.1:8081"),
    ],
)
def test_a_wrong_shape_is_told(tmp_path: Path, text: str, fault: str) -> None:
    """These would end in a stack trace of pydantic otherwise."""
    assert faults(written(tmp_path, text)) == [fault]


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("FAREGATE_SERVER__PORT", "x", "server.port must be a whole number, not text"),
        ("FAREGATE_SERVER__PROT", "1", 'unknown key "prot"; did you mean "port"?'),
        ("FAREGATE_SERVR__PORT", "1", 'names no section "servr"; did you mean "server"?'),
        ("FAREGATE_DATA", "x", "is a whole section: set one value with FAREGATE_DATA__KEY instead"),
    ],
)
def test_a_faulty_variable_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str) -> None:
    """A variable that is passed over in silence costs an afternoon."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsFaults) as refused:
        load_settings(None)
    assert [str(fault) for fault in refused.value.faults] == [f"environment variable {variable}: {said}"]


def test_a_password_in_a_url_is_not_shown(tmp_path: Path) -> None:
    """Settings end up in logs and stack traces."""
    settings = load_settings(written(tmp_path, '[redis]\nurl = "redis://u:hunter2@x"\n'))
    assert "hunter2" not in repr(settings)
