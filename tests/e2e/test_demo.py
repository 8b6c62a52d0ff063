"""The guided tour as a newcomer runs it, through a pipe: it is the first thing that anybody sees of Faregate."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

DEADLINE_S = 60.0
SENTENCE = "A gate stands where the road meets the river"


def environment(home: Path, **more: str) -> dict[str, str]:
    """Nothing of the caller's settings; temporary files, and so the demo's data, below `home`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FAREGATE_")}
    (home / "tmp").mkdir(exist_ok=True)
    # Any free port: another gate may run on this machine.
    ports = {"FAREGATE_SERVER__PORT": "0", "FAREGATE_ADMIN__PORT": "0"}
    return {**kept, "HOME": str(home), "TMPDIR": str(home / "tmp"), "PYTHONPATH": str(Path.cwd()), **ports, **more}


def start(home: Path, *arguments: str, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "proxy", "demo", *arguments],
        cwd=home, env=environment(home, **more), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0,
    )  # fmt: skip


def processes_of(folder: Path) -> set[int]:
    """Processes that work in or hold a file of the folder, by what the system says of them."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            links = [entry / "cwd", *(entry / "fd").iterdir()]
            if any(str(link.readlink()).startswith(str(folder)) for link in links if link.is_symlink()):
                found.add(int(entry.name))
    return found


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for pid in processes_of(tmp_path):
        os.kill(pid, signal.SIGKILL)


def test_the_tour_tells_the_whole_story_and_leaves_nothing(home: Path) -> None:
    """Answers, the two events, the denial; exit code 0; no process, no data and no control code left behind."""
    demo = start(home, "--once")
    story, complaint = demo.communicate(timeout=DEADLINE_S)

    assert (demo.returncode, complaint) == (0, "")
    assert story.count(SENTENCE) == 3, "the plain answer, the stream, and the one after the limit was put back"
    events = re.findall(
        r"^ +req_\S+:0 +(plain|stream) +gpt-4o-mini +\d+ +34 +0\.0000\d+ +provider *$", story, re.M
    )
    assert events == ["plain", "stream"]
    assert re.search(r"Left: 999,9\d\d of 1,000,000 tokens", story)
    assert re.search(
        r"You have used 9\d\d of the 1,000 tokens in your Starter plan\. They renew on \d+ \w+ 20\d\d\.", story
    )
    assert "HTTP 402, x-should-retry: false" in story
    assert re.search(r'"limit": 1000, "used": 9\d\d,', story)
    assert "curl http://" in story
    assert "OpenAI(base_url=" in story
    assert "\x1b" not in story
    assert "fg_live_" not in re.sub(r"fg_live_\w{4}\.\.\.", "", story), "a tour that ended prints no whole secret"
    assert processes_of(home) == set()
    assert list((home / "tmp").iterdir()) == []
    assert [path.name for path in home.iterdir()] == ["tmp"]


def test_a_demo_that_serves_on_answers_the_printed_call_and_ends_on_ctrl_c(home: Path) -> None:
    """What is printed to be copied must work, or the newcomer stops there."""
    demo = start(home)
    assert demo.stdout is not None
    story = ""
    for line in demo.stdout:
        story += line
        if "The demo's folder goes when it ends" in line:
            break
    command = re.search(r"^ +(curl http.*\\\n.*\\\n.*)$", story, re.M)
    assert command is not None, story
    answer = subprocess.run(["bash", "-c", f"{command[1]} --silent"], capture_output=True, text=True, timeout=20)
    python = re.search(r"^ +from openai.*\n.*\n.*$", story, re.M)
    assert python is not None, story
    compile("\n".join(line.strip() for line in python[0].splitlines()), "the printed lines", "exec")
    config = re.search(r"faregate doctor --config (\S+)$", story, re.M)
    assert config is not None, story
    doctor = subprocess.run(
        [sys.executable, "-m", "proxy", "doctor", "--config", config[1]],
        cwd=home, env={**os.environ, "PYTHONPATH": str(Path.cwd())}, capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    demo.send_signal(signal.SIGINT)
    _, complaint = demo.communicate(timeout=DEADLINE_S)

    assert SENTENCE in answer.stdout
    assert "Everything holds." in doctor.stdout, doctor.stdout + doctor.stderr
    assert (demo.returncode, complaint) == (0, "")
    assert processes_of(home) == set()
    assert list((home / "tmp").iterdir()) == []


def test_it_never_touches_what_the_environment_points_at(home: Path) -> None:
    """A demo run in a shell of production must not write a customer into production's data."""
    data = home / "real"
    data.mkdir()
    demo = start(home, "--once", FAREGATE_DATA__DIR=str(data), FAREGATE_REDIS__URL="redis://127.0.0.1:1/0")
    story, complaint = demo.communicate(timeout=DEADLINE_S)

    assert demo.returncode == 0, story + complaint
    assert list(data.iterdir()) == []


def test_a_taken_port_is_told_and_another_is_used(home: Path) -> None:
    """Port 8080 is often taken, and a tour that ends there has lost its visitor."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        demo = start(home, "--once", FAREGATE_SERVER__PORT=str(port))
        story, complaint = demo.communicate(timeout=DEADLINE_S)

    assert demo.returncode == 0, story + complaint
    assert f"Port {port} is taken by another program" in story
    assert f"http://127.0.0.1:{port}/v1," not in story


def test_a_demo_that_cannot_start_says_why_in_a_sentence(home: Path) -> None:
    """A traceback is no first impression."""
    demo = start(home, "--once", FAREGATE_SERVER__HOST="192.0.2.1")
    _, complaint = demo.communicate(timeout=DEADLINE_S)

    assert demo.returncode == 1
    assert complaint.startswith("The demo cannot start. 192.0.2.1 is no address of this machine.")
    assert "Traceback" not in complaint
    assert processes_of(home / "tmp") == set()


def test_a_reader_who_goes_away_leaves_nothing_behind(home: Path) -> None:
    """`faregate demo | head` must not strand a Valkey."""
    with start(home, "--once") as demo:
        assert demo.stdout is not None
        assert demo.stderr is not None
        demo.stdout.readline()
        demo.stdout.close()
        complaint = demo.stderr.read()

    assert (demo.returncode, complaint) == (0, "")
    assert processes_of(home) == set()
    assert list((home / "tmp").iterdir()) == []
