"""The composition root: builds each adapter and hands it to the paths, once for the keeper and once for a worker.

The two sides are imported only when one of them runs, so that a worker never loads what only the keeper needs.
"""

from __future__ import annotations

from pathlib import Path


def serve(config: Path | None) -> int:
    """Serves until a signal; returns the exit code. Raises `SettingsFaults` for a configuration at fault."""
    import uvloop

    from proxy.app.keeper import keep
    from proxy.settings import load_settings

    return uvloop.run(keep(load_settings(config)))


def worker(control_fd: int) -> int:
    """The life of a gate worker, told by the keeper at the other end of `control_fd` what it is to be."""
    import uvloop

    from proxy.app.worker import work

    return uvloop.run(work(control_fd))
