"""Keys that never stand in a file that people edit: the upstreams', the admin's token and the digests' pepper."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from proxy.settings.faults import Fault
from proxy.settings.loading import SettingsFaults
from proxy.settings.tree import Settings

ADMIN_TOKEN_FILE = "admin-token"
PEPPER_FILE = "secret-pepper"


def take_upstream_keys(settings: Settings, environ: MutableMapping[str, str]) -> dict[str, str]:
    """Upstream name -> key, for those that have one. Each variable is read once and taken out of `environ`.

    So no child process, no library and no crash report finds them there. Two upstreams may share a variable.
    """
    names = {upstream.api_key_env for upstream in settings.upstreams.values()} - {""}
    values = {name: environ.pop(name, "").strip() for name in names}
    keys = {name: values.get(upstream.api_key_env, "") for name, upstream in settings.upstreams.items()}
    return {name: key for name, key in keys.items() if key}


def admin_token(settings: Settings, environ: Mapping[str, str]) -> str:
    """`FAREGATE_ADMIN_TOKEN`, else the one in `data.dir`, made on the first start. Raises `SettingsFaults`."""
    return environ.get("FAREGATE_ADMIN_TOKEN", "").strip() or _kept(settings.data.dir / ADMIN_TOKEN_FILE)


def secret_pepper(settings: Settings, environ: Mapping[str, str]) -> bytes:
    """`FAREGATE_SECRET_PEPPER`, else the one in `data.dir`, as above.

    Agent secrets are worthless without the pepper that their digests were made with: it belongs into backups.
    """
    given = environ.get("FAREGATE_SECRET_PEPPER", "").strip()
    return (given or _kept(settings.data.dir / PEPPER_FILE)).encode()


def _kept(path: Path) -> str:
    """The content of a file of mode 0600 that is made if absent: whole at once, by one of those who start."""
    try:
        if not path.exists():
            _make(path, secrets.token_urlsafe(32))
        text = path.read_text().strip()
    except OSError as fault:
        raise SettingsFaults([Fault(str(path), 0, f"cannot be kept there: {fault.strerror}")]) from None
    if not text:
        message = "is empty: restore it from a backup; or delete it, and a new one is made on the next start"
        raise SettingsFaults([Fault(str(path), 0, message)])
    return text


def _make(path: Path, text: str) -> None:
    """Links a finished file into place: whoever comes second finds the first one's."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # of mode 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            Path(path).hardlink_to(draft)
    finally:
        Path(draft).unlink()
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
