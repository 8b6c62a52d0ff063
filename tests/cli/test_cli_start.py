"""The verbs that start or check the house hand over to it, and the command line stays light."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import proxy
from proxy import cli
from proxy.settings import Fault, SettingsFaults

Run = Callable[..., Any]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a module with the given functions in the place of one below the command line."""

    def put(name: str, **functions: Any) -> None:
        module = ModuleType(name)
        vars(module).update(functions)
        monkeypatch.setitem(sys.modules, name, module)
        above, _, own = name.rpartition(".")
        __import__(above)
        monkeypatch.setattr(sys.modules[above], own, module, raising=False)

    return put


def test_serve_takes_config_toml_of_this_folder(run: Run, stand_in: Callable[..., None]) -> None:
    """What was configured must not be passed over because nobody named it."""
    served: list[Path | None] = []
    stand_in("proxy.app", serve=lambda config: served.append(config) or 0)

    run("serve")
    Path("config.toml").touch()
    run("serve")
    Path("other.toml").touch()
    run("serve", "--config", "other.toml")

    assert served == [None, Path("config.toml"), Path("other.toml")]


def test_a_config_that_is_not_there_is_2(run: Run) -> None:
    """A typing error must not start a gate with the defaults."""
    assert "does not exist" in run("serve", "--config", "nowhere.toml", code=2).stderr


def test_serve_exits_as_the_house_does_and_tells_faulty_settings(run: Run, stand_in: Callable[..., None]) -> None:
    """A service manager looks at the exit code, a person at stderr."""
    stand_in("proxy.app", serve=lambda config: 5)
    run("serve", code=5)

    def refuse(config: Path | None) -> int:
        raise SettingsFaults([Fault("config.toml", 3, "wrong")])

    stand_in("proxy.app", serve=refuse)
    assert run("serve", code=1).stderr == "config.toml:3: wrong\n"


def test_demo_hands_over_once(run: Run, stand_in: Callable[..., None]) -> None:
    """`make demo` relies on it."""
    toured: list[tuple[bool, Path | None]] = []
    stand_in("proxy.demo.tour", run=lambda once, config: toured.append((once, config)) or 0)

    run("demo", "--once")
    run("demo")

    assert toured == [(True, None), (False, None)]


def test_check_prints_each_fault_on_its_line_and_exits_1(run: Run, stand_in: Callable[..., None]) -> None:
    """Editors jump to `file:line:`."""
    stand_in("proxy.policy_files", check=lambda config: [Fault("plans/a.toml", 7, "unknown key")])
    assert run("check", code=1).stdout == "plans/a.toml:7: unknown key\n"

    remark = Fault("config.toml", 4, "no key")
    stand_in("proxy.policy_files", check=lambda config: [], remarks=lambda config, environ: [remark])
    assert run("check").stdout == "config.toml:4: no key\nSettings and policies are in order.\n"


def test_a_worker_gets_its_descriptor(stand_in: Callable[..., None]) -> None:
    """The keeper starts workers by this verb."""
    stand_in("proxy.app", worker=lambda descriptor: descriptor)

    with pytest.raises(SystemExit) as ended:
        cli.main(["worker", "--control-fd", "7"])
    assert ended.value.code == 7


@pytest.mark.parametrize("words", [[], ["--control-fd"], ["--control-fd", "x"], ["--help"]])
def test_a_worker_that_nobody_controls_does_not_start(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a keeper it would serve on for ever."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["worker", *words])
    assert ended.value.code == 2
    assert "keeper" in capsys.readouterr().err


def loaded_after(statement: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after a statement."""
    shown = (
        f"import sys\ntry:\n {statement}\nexcept SystemExit: pass\nprint('\\n'.join(sys.modules), file=sys.stderr)"
    )
    home = Path(proxy.__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, check=True, cwd=home)
    return set(done.stderr.split())


def test_help_loads_nothing_heavy() -> None:
    """`--help` answers at once because it knows nothing of servers, databases or providers."""
    loaded = loaded_after("from proxy.cli import main; main(['--help'])")

    heavy = {"aiohttp", "pydantic", "sqlalchemy", "redis", "litellm", "rich", "urllib.request", "proxy.app"}
    assert "typer" in loaded
    assert not heavy & loaded


def test_a_worker_does_not_load_the_command_line() -> None:
    """There are many workers, and each would carry it."""
    loaded = loaded_after("from proxy.cli import main; main(['worker'])")

    assert not {"typer", "rich"} & loaded


def test_module_and_command_are_one() -> None:
    """`python -m proxy` where there is no script on the PATH."""
    home = Path(proxy.__file__).parent.parent
    done = subprocess.run([sys.executable, "-m", "proxy", "--version"], capture_output=True, text=True, cwd=home)

    assert done.stdout == f"faregate {proxy.__version__}\n"
