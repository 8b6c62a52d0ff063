"""What a worker is started with."""

from __future__ import annotations

from pathlib import Path

import proxy
from proxy.processes.launch import worker_argv, worker_environment


def test_the_environment_carries_what_a_process_needs_and_no_secret() -> None:
    """Provider keys, the admin token and cloud credentials stand in the keeper's environment by habit."""
    kept = worker_environment(
        {
            "PATH": "/bin",
            "LC_ALL": "C.UTF-8",
            "OPENAI_API_KEY": "k",
            "AWS_SECRET_ACCESS_KEY": "k",
            "FAREGATE_ADMIN_TOKEN": "k",
            "HTTPS_PROXY": "http://user:password@proxy",
            "PYTHONPATH": "/elsewhere",
        }
    )
    house = str(Path(proxy.__file__).resolve().parents[1])
    assert kept.pop("PYTHONPATH").split(":") in (["/elsewhere", house], ["/elsewhere"])
    assert kept == {"PATH": "/bin", "LC_ALL": "C.UTF-8"}


def test_a_worker_takes_no_module_from_the_current_folder() -> None:
    """Somebody's `proxy` or `logging.py` beside their config file must not be run."""
    argv = worker_argv(1, 7)
    assert argv[1:] == ["-P", "-m", "proxy", "worker", "--control-fd", "7"]
