"""The log of a whole process: what leaves on stderr, whoever wrote it."""

from __future__ import annotations

from typing import Any

import pytest

CANARIES = ("hunter2", "my illness", "fg_live_a1", 'päss "word', 'päss \\"word')


def test_a_record_is_one_json_line_with_its_facts(run_program: Any) -> None:
    """Machines read it: time, level, event, room and process are always there."""
    record = run_program("log.info('policy.applied', revision=7, plans=['free'])").records[0]
    assert record.pop("timestamp").endswith("Z")
    assert record == {
        "level": "info",
        "event": "policy.applied",
        "room": "test",
        "process": "worker 1",
        "revision": 7,
        "plans": ["free"],
    }


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_way_to_the_log_passes_the_redaction_by(run_program: Any, log_format: str) -> None:
    """S30: exceptions, libraries, warnings and threads carry prompts and keys that nobody meant to log."""
    ran = run_program(
        """
        class Said(Exception): pass
        def fails(): raise Said("my illness hunter2-hunter2")
        log.info("x.said", token="hunter2-hunter2", text='the päss "word', body="my illness", who="fg_live_a1_x")
        try: fails()
        except Said as fault:
            log.exception("x.failed")
            try: raise ValueError("my illness") from fault
            except ValueError as second: log.error("x.failed_again", exc_info=second)
        logging.getLogger("some.library").error("key %s", "hunter2-hunter2", exc_info=Said("my illness"))
        logging.getLogger("some.library").error("two %s %s", "my illness")
        logging.getLogger("LiteLLM").warning("sent: my illness")
        logging.getLogger("some.library").info("below the level: my illness")
        warnings.warn("my illness")
        thread = threading.Thread(target=fails); thread.start(); thread.join()
        async def loop_faults():
            loop = asyncio.get_running_loop()
            telemetry.report_loop_faults(loop)
            loop.call_soon(fails)
            loop.create_task(asyncio.sleep(0)).add_done_callback(lambda _: fails())
            telemetry.Tasks().spawn(asyncio.to_thread(fails), "a task")
            await asyncio.sleep(0.2)
        asyncio.run(loop_faults())
        sys.excepthook(Said, Said("my illness"), None)
        """,
        log_format,
    )
    assert ran.code == 0, ran.text
    for canary in CANARIES:
        assert canary not in ran.text
    for told in ("x.failed_again", "library.complained", "UserWarning", "process.thread_failed", "task.failed"):
        assert told in ran.text
    assert ran.text.count("loop.fault") == 2
    assert "in fails" in ran.text, "the frames are what an operator needs"


def test_an_exception_is_told_with_type_frames_and_cause(run_program: Any) -> None:
    """Without its message a fault must still be found; the house's and the system's own sentences are kept."""
    records = run_program(
        """
        from proxy.processes import CannotListen
        try:
            try: open("/nonexistent/x")
            except OSError as fault: raise CannotListen("Port 1 is taken.") from fault
        except CannotListen: log.exception("x.failed")
        """
    ).records
    taken, missing = records[0]["exception"]
    assert (taken["type"], taken["message"]) == ("proxy.processes.listening.CannotListen", "Port 1 is taken.")
    assert missing["message"] == "[Errno 2] No such file or directory"
    assert missing["frames"][0].endswith("in <module>")


def test_what_ends_the_process_is_logged(run_program: Any) -> None:
    """A crash whose reason is only in the terminal that was closed cannot be mended."""
    ran = run_program("raise KeyError('my illness')")
    assert ran.code == 1
    assert ran.records[-1]["event"] == "process.failed"
    assert ran.records[-1]["exception"][0]["type"] == "KeyError"
    assert "my illness" not in ran.text


def test_the_console_is_for_people_and_nobody_forges_a_line(run_program: Any) -> None:
    """A client's text may hold line ends and escape sequences; a file gets no colours."""
    ran = run_program(r"log.warning('x.said', said='a\n2026 forged \x1b[31m')", "console")
    assert len(ran.text.splitlines()) == 1
    assert "x.said" in ran.text
    assert "\x1b" not in ran.text


@pytest.mark.parametrize(("environment", "colored"), [({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True)])
def test_colours_are_for_terminals_that_want_them(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], colored: bool
) -> None:
    """no-color.org: any value that is not empty."""
    from proxy.telemetry import logs

    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert logs._wants_colors(Terminal()) is colored  # type: ignore[arg-type]
