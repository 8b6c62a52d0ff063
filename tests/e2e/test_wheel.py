"""The built wheel works where there is no checkout: scripts, migrations and default policies are inside."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEADLINE_S = 120.0


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env={**kept, **environment},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", folder, cwd=ROOT)
    [built] = folder.glob("*.whl")
    return built


def test_everything_that_is_no_python_is_inside(wheel: Path) -> None:
    """A file that is only in the checkout is missed at the first customer, not by the tests."""
    inside = set(zipfile.ZipFile(wheel).namelist())
    shipped = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "proxy").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    policies = {
        f"proxy/default_policies/{path.relative_to(ROOT / 'policies').as_posix()}"
        for path in (ROOT / "policies").rglob("*")
        if path.is_file()
    }

    assert len(policies) >= 5
    assert shipped | policies <= inside
    assert not {name for name in inside if name.startswith(("tests/", "bench/", "docs/"))}


def test_installed_elsewhere_it_gives_the_tour(wheel: Path, tmp_path: Path) -> None:
    """An empty folder, an empty HOME, no checkout in sight."""
    home, venv = tmp_path / "home", tmp_path / "venv"
    home.mkdir()
    run(sys.executable, "-m", "venv", "--without-pip", venv, cwd=tmp_path)
    python = venv / "bin" / "python"
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(venv), "platbase": str(venv)}))
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--no-deps",
        "--no-index",
        "-q",
        wheel,
        cwd=home,
    )
    # The dependencies of this environment, without its `.pth` files, one of which leads back to the checkout.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = run(python, "-c", "import proxy; print(proxy.__file__)", cwd=home, HOME=str(home))

    demo = run(
        venv / "bin" / "faregate", "demo", "--once",
        cwd=home, HOME=str(home), FAREGATE_SERVER__PORT="0", FAREGATE_ADMIN__PORT="0",
    )  # fmt: skip

    assert Path(where.stdout.strip()).is_relative_to(packages)
    assert "You have used" in demo.stdout
    assert "invariants hold" in demo.stdout
    assert list(home.iterdir()) == []
