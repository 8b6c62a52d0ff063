"""Pins the newest client libraries, by hash and without any address (`make lock-clients`). Needs uv and npm 11."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
NODE = HERE / "node"
COMPILE = (
    "uv pip compile --upgrade --universal --python-version 3.11 --generate-hashes --no-header --no-annotate"
    " --no-emit-index-url --no-emit-find-links"
)


def run(command: str, *more: str, where: Path) -> None:
    subprocess.run([*command.split(), *more], cwd=where, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    for name in ("python", "litellm", "schemathesis"):
        run(COMPILE, f"{name}.in", "-o", f"{name}.lock", where=HERE)
    wanted = [f"{name}@latest" for name in json.loads((NODE / "package.json").read_text())["dependencies"]]
    install = "npm install --package-lock-only --save-exact --omit-lockfile-registry-resolved --no-audit --no-fund"
    run(install, *wanted, where=NODE)
    lock = NODE / "package-lock.json"
    locked = json.loads(lock.read_text())
    for package in locked["packages"].values():
        package.pop("funding", None)  # an address, and none that an installation needs
    lock.write_text(json.dumps(locked, indent=2) + "\n")


if __name__ == "__main__":
    main()
