"""What is committed is the same for everybody: no machine's paths, no registry's address, nothing generated."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

HOME = Path(__file__).parents[2]
TEXT_BYTES_MAX = 2_000_000

MACHINE_PATHS = re.compile(
    r"(?<![\w./~$}:-])/(?:" + "|".join(("work", "root", "tmp", "home", "Users")) + r")/[\w.-]"
)
REGISTRY = re.compile(
    r"--(?:extra-)?index-url[ =]\S|--find-links[ =]https?:"
    r"|\b(?:pypi|files\.pythonhosted)\.org/(?:simple|packages)\b"
)
PRIVATE_HOST = re.compile(r"https?://(?:10|192\.168|172\.(?:1[6-9]|2\d|3[01]))(?:\.\d+){1,3}\b")
# The image's own folder, and containers' places for what does not outlive them, are no machine's.
INSIDE_AN_IMAGE = ("docker/",)


def committed() -> list[Path]:
    """Text files that git knows or would take."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=HOME,
        capture_output=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("This is no git checkout.")
    paths = [HOME / name for name in listed.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file() and path.stat().st_size < TEXT_BYTES_MAX]


def offences(pattern: re.Pattern[str], *, without: tuple[str, ...] = ()) -> list[str]:
    found = []
    for path in committed():
        name = str(path.relative_to(HOME))
        if path == Path(__file__) or name.startswith(without):
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if pattern.search(line):
                found.append(f"{name}:{number}: {line.strip()[:100]}")
    return found


def test_no_file_knows_a_machines_folders() -> None:
    """A path of one machine is broken on every other."""
    assert offences(MACHINE_PATHS, without=INSIDE_AN_IMAGE) == []


def test_no_file_names_a_registry_or_a_private_host() -> None:
    """Where packages come from is for whoever installs them to say."""
    assert offences(REGISTRY) == []
    assert offences(PRIVATE_HOST) == []


@pytest.mark.parametrize(
    "lock",
    [
        "requirements.lock",
        "tests/clients/python.lock",
        "tests/clients/litellm.lock",
        "tests/clients/schemathesis.lock",
    ],
)
def test_locks_pin_by_hash_and_have_no_addresses(lock: str) -> None:
    """A hash makes it the same package wherever it comes from; an address would tie it to one place."""
    text = (HOME / lock).read_text()
    pinned = re.findall(r"^([a-z0-9][a-z0-9._-]*)(?:\[[\w,-]+\])?==\S+(.*?)(?=^[a-z0-9]|\Z)", text, re.M | re.S)
    assert len(pinned) > 10
    assert [name for name, rest in pinned if "--hash=sha256:" not in rest] == []
    assert "://" not in text
    assert "--index" not in text


def test_the_node_lock_pins_by_hash_and_has_no_addresses() -> None:
    """npm writes the registry's address beside every package unless it is told not to."""
    text = (HOME / "tests/clients/node/package-lock.json").read_text()
    packages = {name: package for name, package in json.loads(text)["packages"].items() if name}
    assert len(packages) > 10
    assert [name for name, package in packages.items() if not package.get("integrity")] == []
    assert "://" not in text


def test_nothing_generated_or_secret_is_committed() -> None:
    """Environments, caches, data and keys belong to the machine."""
    unwanted = re.compile(r"(^|/)(\.venv|\.envs|__pycache__|var|dist|build|\.env)(/|$)|\.(pyc|sqlite3|aof|spool)$")
    assert [str(path) for path in committed() if unwanted.search(str(path.relative_to(HOME)))] == []
