"""How the command line finds a gate and its token, and what it says when it cannot."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.cli import client
from tests.doubles.admin import TOKEN, AdminPlane

Run = Callable[..., Any]


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_gate_that_is_not_there_is_3_with_its_address_and_how_to_start_it(run: Run) -> None:
    """The first thing that goes wrong for a newcomer."""
    url = f"http://127.0.0.1:{unused_port()}"

    told = run("customers", "list", "--url", url, code=3).stderr

    assert url in told
    assert "Connection refused" in told
    assert "faregate serve" in told


@pytest.mark.parametrize("url", ["http://", "http://127.0.0.1:notaport", "http://[::1"])
def test_an_address_that_leads_nowhere_is_3(url: str, run: Run) -> None:
    """Not a traceback."""
    assert "Cannot reach the gate" in run("plans", "list", "--url", url, code=3).stderr


def test_an_address_of_another_kind_is_2(run: Run) -> None:
    """A file or a host alone is a typing error."""
    assert "http://127.0.0.1:8081" in run("plans", "list", "--url", "localhost:8081", code=2).stderr


class Stranger(http.server.BaseHTTPRequestHandler):
    """A server that is no gate: answers HTML, or sends on to `onward`."""

    seen: list[str | None]
    onward = ""

    def do_GET(self) -> None:
        self.seen.append(self.headers.get("Authorization"))
        self.send_response(302 if self.onward else 200)
        if self.onward:
            self.send_header("Location", self.onward)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"<hi>")

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def stranger() -> Iterator[tuple[str, type[Stranger]]]:
    kind = type("Stranger", (Stranger,), {"seen": []})
    server = http.server.HTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", kind
    server.shutdown()
    thread.join(5)
    server.server_close()


def test_something_else_at_the_address_is_3(run: Run, stranger: tuple[str, type[Stranger]]) -> None:
    """The data plane's port is the usual mistake."""
    assert "is not Faregate's admin plane" in run("plans", "list", "--url", stranger[0], code=3).stderr


def test_the_token_does_not_follow_a_redirect(run: Run, stranger: tuple[str, type[Stranger]]) -> None:
    """Whoever can redirect would else be given the token."""
    stranger[1].onward = f"{stranger[0]}/elsewhere"

    run("plans", "list", "--url", stranger[0], code=3)

    assert len(stranger[1].seen) == 1


def test_a_proxy_is_not_asked_for_a_gate_on_this_machine(run: Run, environ: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY is set in many offices; the token would pass through it in the clear."""
    environ.setenv("http_proxy", f"http://127.0.0.1:{unused_port()}")

    run("plans", "list")


def test_a_wrong_token_says_where_it_came_from(run: Run, environ: pytest.MonkeyPatch) -> None:
    """Three places can hold one."""
    environ.setenv("FAREGATE_ADMIN_TOKEN", "not-the-right-one")

    told = run("plans", "list", code=1).stderr

    assert "FAREGATE_ADMIN_TOKEN" in told
    assert "not-the-right-one" not in told


def test_a_token_file_goes_before_the_environment(run: Run, environ: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is said now outweighs what was said once."""
    environ.setenv("FAREGATE_ADMIN_TOKEN", "not-the-right-one")
    (tmp_path / "token").write_text(f"{TOKEN}\n")

    run("plans", "list", "--token-file", str(tmp_path / "token"))


@pytest.mark.parametrize("held", [b"", b"\xff\xfe", b"two\nlines", "tök".encode()])
def test_a_file_that_holds_no_token_is_2(held: bytes, run: Run, tmp_path: Path) -> None:
    """A header made of it would be broken, or would carry a second one."""
    (tmp_path / "token").write_bytes(held)

    assert "token" in run("plans", "list", "--token-file", str(tmp_path / "token"), code=2).stderr
    assert "cannot be read" in run("plans", "list", "--token-file", "nowhere", code=2).stderr


def test_the_token_of_a_gate_on_this_machine_is_found_by_its_config(
    run: Run, plane: AdminPlane, environ: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`faregate serve` in one shell and `faregate customers list` in the next must just work."""
    environ.delenv("FAREGATE_ADMIN_TOKEN")
    environ.delenv("FAREGATE_ADMIN_URL")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "admin-token").write_text(TOKEN)
    text = f'[admin]\nport = {plane.port}\n[data]\ndir = "kept"\n'
    (tmp_path / "config.toml").write_text(text)
    (tmp_path / "other").mkdir()

    run("plans", "list")
    environ.chdir(tmp_path / "other")
    run("plans", "list", "--config", str(tmp_path / "config.toml"))
    told = run("plans", "list", "--url", plane.url, code=2).stderr
    assert "No admin token" in told
    assert str(tmp_path / "other" / "var" / "admin-token") in told


def test_the_token_file_of_this_machine_is_not_sent_to_another(
    environ: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A mistyped --url must not give the token away."""
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "admin-token").write_text(TOKEN)

    assert client.find_gate("http://localhost:1", None, None).url == "http://localhost:1"
    with pytest.raises(client.CliFault) as refused:
        client.find_gate("http://gate.example:8081", None, None)
    assert refused.value.exit_code == 2
    assert "FAREGATE_ADMIN_TOKEN" in refused.value.message


@pytest.mark.parametrize(
    ("host", "url"),
    [("0.0.0.0", "http://127.0.0.1:9"), ("::", "http://[::1]:9"), ("127.0.0.2", "http://127.0.0.2:9")],
)
def test_an_address_to_listen_on_becomes_one_to_call(
    host: str, url: str, environ: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One cannot connect to "all interfaces" everywhere."""
    environ.setenv("FAREGATE_ADMIN_TOKEN", TOKEN)
    environ.setenv("FAREGATE_ADMIN__HOST", host)
    environ.setenv("FAREGATE_ADMIN__PORT", "9")

    assert client.find_gate(None, None, None).url == url


def test_faulty_settings_are_told_with_their_line(run: Run, environ: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The verbs read the same file as the gate."""
    environ.delenv("FAREGATE_ADMIN_URL")
    (tmp_path / "config.toml").write_text("[admin]\nprot = 1\n")

    assert "config.toml:2" in run("plans", "list", code=2).stderr
