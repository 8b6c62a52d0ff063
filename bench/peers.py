"""Other gateways, each in an environment of its own below `bench/.envs`, carrying the same calls ungated.

None of them holds a budget here: what they do for theirs needs a database, or does not exist. The figures say what
carrying alone costs them.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from bench.processes import descendants, free_port, running, wait_for_port
from bench.targets import Target

ENVIRONMENTS = Path(__file__).parent / ".envs"
LITELLM = "litellm[proxy]==1.106.2"
PORTKEY = "@portkey-ai/gateway@1.15.2"


class Unavailable(Exception):
    """This peer cannot be measured here; the message says why."""


@contextlib.contextmanager
def litellm(folder: Path, upstream_url: str) -> Iterator[Target]:
    """LiteLLM's proxy, one worker, its master key, no database: no budgets, no records."""
    home = ENVIRONMENTS / "litellm"
    if not (home / "bin" / "litellm").exists():
        _install([sys.executable, "-m", "venv", str(home)])
        _install([str(home / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", LITELLM])
    config = folder / "litellm.yaml"
    config.write_text(
        f"""
model_list:
  - model_name: small
    litellm_params: {{model: openai/small-upstream, api_base: "{upstream_url}", api_key: sk-benchmark}}
"""
    )
    port = free_port()
    argv = [str(home / "bin" / "litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION"}
    # It refuses to start without a master key.
    key = environment["LITELLM_MASTER_KEY"] = "sk-" + secrets.token_hex(32)
    with _served("litellm", argv, port, folder, {}, env=environment) as target:
        target.secret = key
        yield target


@contextlib.contextmanager
def portkey(folder: Path, upstream_url: str) -> Iterator[Target]:
    """Portkey's gateway on Node, which is told by headers where to go."""
    home = ENVIRONMENTS / "portkey"
    script = home / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    node = shutil.which("node")
    if node is None:
        raise Unavailable("it needs Node.js, and there is no node in the PATH.")
    if not script.exists():
        home.mkdir(parents=True, exist_ok=True)
        _install(["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(home), PORTKEY])
    port = free_port()
    headers = {"x-portkey-provider": "openai", "x-portkey-custom-host": upstream_url}
    argv = [node, str(script), f"--port={port}", "--headless"]
    with _served("portkey", argv, port, folder, headers) as target:
        yield target


def tensorzero(folder: Path, upstream_url: str) -> AbstractContextManager[Target]:
    raise Unavailable(
        "its gateway was found neither on PyPI nor on npm. What is on PyPI is a client that runs the gateway"
        " inside the caller's own process, where its CPU cannot be told from the caller's."
    )


@contextlib.contextmanager
def nginx(folder: Path, upstream_url: str) -> Iterator[Target]:
    """A plain reverse proxy in C with kept connections: the floor."""
    program = shutil.which("nginx")
    if program is None:
        raise Unavailable("there is no nginx in the PATH (Debian: apt install nginx-light).")
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(
        f"""
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log;
events {{}}
http {{
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path {folder}/nginx-body;
  proxy_temp_path {folder}/nginx-proxy;
  fastcgi_temp_path {folder}/nginx-fastcgi;
  uwsgi_temp_path {folder}/nginx-uwsgi;
  scgi_temp_path {folder}/nginx-scgi;
  upstream canned {{ server {upstream_url.split("/")[2]}; keepalive 128; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://canned;
      proxy_http_version 1.1;
      proxy_set_header connection "";
      proxy_set_header authorization "Bearer sk-benchmark";
      proxy_buffering off;
    }}
  }}
}}
"""
    )
    with _served(
        "nginx", [program, "-c", str(config), "-e", str(folder / "nginx-start.log")], port, folder, {}
    ) as target:
        yield target


Peer = Callable[[Path, str], AbstractContextManager[Target]]
PEERS: dict[str, Peer] = {"LiteLLM": litellm, "Portkey": portkey, "TensorZero": tensorzero, "nginx": nginx}


@contextlib.contextmanager
def _served(
    name: str, argv: list[str], port: int, folder: Path, headers: dict[str, str], **options: object
) -> Iterator[Target]:
    log = folder / f"{name}.log"
    with running(argv, log, cwd=folder, **options) as process:
        try:
            wait_for_port(port, process, log)
        except RuntimeError as fault:
            raise Unavailable(str(fault)) from None
        pids = [process.pid, *descendants(process.pid)]
        yield Target(
            name, f"http://127.0.0.1:{port}/v1/chat/completions", "none", "small", pids, headers=headers, peer=True
        )


def _install(argv: list[str]) -> None:
    ran = subprocess.run(argv, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise Unavailable(f"it could not be installed: {ran.stderr.strip()[-500:]}")
