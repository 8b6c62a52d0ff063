"""Where the tour plays: a folder of its own, ports that are free, every model at the scripted upstream."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from proxy.app.keeper import Serving
from proxy.policy_files import shipped_policies
from proxy.settings import DataSettings, LedgerSettings, PolicySettings, RedisSettings, Settings, TelemetrySettings

UPSTREAM_KEY = "demo-provider-key"
UPSTREAM_KEY_ENV = "FAREGATE_DEMO_PROVIDER_KEY"
DRAIN_S = 5.0


class DemoFault(Exception):
    """Why the tour cannot go on, in a sentence."""


@dataclass(frozen=True, slots=True)
class Stage:
    """The demo's folder: `config.toml` (for the command line), `policies/`, `var/` and the log."""

    folder: Path

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def config(self) -> Path:
        return self.folder / "config.toml"

    @property
    def policies(self) -> Path:
        return self.folder / "policies"

    def plan(self, id: str) -> Path:
        return self.policies / "plans" / f"{id}.toml"

    @classmethod
    def build(cls) -> Stage:
        """A new temporary folder with the policies that ship with Faregate."""
        shipped = shipped_policies()
        if shipped is None:
            raise DemoFault("This installation of Faregate has no policies in it. Install it anew.")
        stage = cls(Path(tempfile.mkdtemp(prefix="faregate-demo-")))
        shutil.copytree(shipped, stage.policies)
        return stage

    def settings(self, given: Settings, upstream_url: str) -> Settings:
        """Of `given` only the addresses and the number of workers: a demo touches nobody's data, store or keys."""
        os.environ[UPSTREAM_KEY_ENV] = UPSTREAM_KEY
        played = {"wire": "openai", "base_url": upstream_url, "api_key_env": UPSTREAM_KEY_ENV}
        return given.model_copy(
            update={
                "server": given.server.model_copy(update={"drain_s": DRAIN_S}),
                "data": DataSettings(dir=self.folder / "var"),
                "redis": RedisSettings(),
                "ledger": LedgerSettings(),
                "policies": PolicySettings(dir=self.policies),
                "telemetry": TelemetrySettings(log_format="console"),
                "upstreams": {name: each.model_copy(update=played) for name, each in given.upstreams.items()},
            }
        )

    def write_config(self, serving: Serving) -> None:
        """What the command line needs to find this gate and its token."""
        gate, admin = urlsplit(serving.url), urlsplit(serving.admin_url)
        self.config.write_text(
            "# Of a running demo: for `faregate ... --config`.\n"
            f'[server]\nhost = "{gate.hostname}"\nport = {gate.port}\n'
            f'[admin]\nhost = "{admin.hostname}"\nport = {admin.port}\n'
        )

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def with_free_ports(settings: Settings) -> tuple[Settings, list[int]]:
    """The settings with any free port where the wanted one is taken; and the ports that are."""
    taken = []
    changed = {}
    for name in ("server", "admin"):
        section = getattr(settings, name)
        if section.port and not _is_free(section.host, section.port):
            taken.append(section.port)
            changed[name] = section.model_copy(update={"port": 0})
    return settings.model_copy(update=changed), taken


def _is_free(host: str, port: int) -> bool:
    """True also for an address at fault: the gate says better what is wrong with it."""
    try:
        [(family, *_, address), *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            # Bound is not enough: with SO_REUSEADDR two may bind, and the second is refused only here.
            probe.listen(1)
    except socket.gaierror:
        return True
    except OSError as fault:
        return fault.errno != errno.EADDRINUSE
    return True


@contextlib.contextmanager
def stderr_into(file: Path) -> Iterator[None]:
    """Whatever this process and its children write to stderr goes into the file: logs must not drown the tour."""
    sys.stderr.flush()
    terminal = os.dup(2)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(terminal, 2)
        os.close(terminal)
