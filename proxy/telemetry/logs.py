"""The log of one process: structlog and the standard library's logging, through one redaction to one sink.

The level is `info`; it is no setting, because what is worth a line is decided where the line is written.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, MutableMapping
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, TextIO, cast

import orjson
import structlog

from proxy.telemetry import faults
from proxy.telemetry.redaction import Redactor
from proxy.telemetry.sink import Sink

LogFormat = Literal["json", "console"]

# Their messages quote prompts, answers and headers; what is told of them is where they complained, not what of.
_WITHHELD = ("LiteLLM", "litellm", "openai", "httpx", "httpcore", "aiohttp")
_LIBRARY_MESSAGE_LENGTH_MAX = 300
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def logger(room: str) -> structlog.typing.FilteringBoundLogger:
    """The log of a room: `log.info("policy.applied", revision=7)`. Events are `subject.deed`, facts are fields."""
    return cast(structlog.typing.FilteringBoundLogger, structlog.get_logger(room=room))


class Logs:
    """The log of this process once it is set up. `close` writes what waits and gives the hooks back."""

    def __init__(self, log_format: LogFormat, process: str, redactor: Redactor, sink: Sink, colors: bool) -> None:
        self.process = process
        self.redactor = redactor
        self.sink = sink
        self._json = log_format == "json"
        self._console = structlog.dev.ConsoleRenderer(
            colors=colors,
            exception_formatter=structlog.dev.plain_traceback,
            sort_keys=False,
            pad_event_to=0,
        )
        self._restore: list[Callable[[], None]] = []

    def know_secrets(self, *secrets: str) -> None:
        """Registers strings that must never leave: admin token, provider keys, pepper, addresses' passwords."""
        self.redactor.know(*secrets)

    def line(self, fields: dict[str, Any]) -> bytes:
        """One finished line of fields that are safe already."""
        if self._json:
            return orjson.dumps(fields, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE, default=str)
        fields = {key: _one_line(key, value) for key, value in fields.items() if value is not None}
        return f"{self._console(None, '', fields)}\n".encode()

    def tell(self, event: MutableMapping[str, Any]) -> bytes:
        """One line of any fields whatever: redacted, its exception told by type and frames."""
        fault = _fault_of(event.pop("exc_info", None))
        event.pop("stack_info", None)
        event.pop("stack", None)
        safe = {"timestamp": event.pop("timestamp", None), "level": event.pop("level", "info")}
        safe |= self.redactor.fields(event)
        safe["process"] = self.process
        if fault is not None:
            chain = faults.told(fault, self.redactor)
            safe["exception"] = chain if self._json else faults.as_text(chain)
        return self.line(safe)

    def close(self) -> None:
        while self._restore:
            self._restore.pop()()
        self.sink.close()


def set_up(
    log_format: LogFormat, *, process: str, secrets: Iterable[str] = (), stream: TextIO | None = None
) -> Logs:
    """Sends every log of this process to stderr, redacted: structlog, logging, warnings, uncaught exceptions.

    `process` is its name in each line ("keeper", "worker 1"). Called once, first thing in the process.
    """
    stream = stream or sys.stderr
    logs = Logs(log_format, process, Redactor(secrets), Sink(stream.fileno()), _wants_colors(stream))
    _route_structlog(logs)
    _route_standard_library(logs)
    _route_uncaught(logs)
    return logs


def _wants_colors(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class _Writer:
    """What structlog calls at the end of its chain: every level is the same deed."""

    def __init__(self, sink: Sink) -> None:
        self.msg = self.debug = self.info = self.warning = self.error = self.critical = self.exception = sink.write


def _route_structlog(logs: Logs) -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            lambda _logger, _method, event: logs.tell(event),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: _Writer(logs.sink),
        cache_logger_on_first_use=False,
    )
    logs._restore.append(structlog.reset_defaults)


class _Handler(logging.Handler):
    """The libraries' records, by the same way. A record that cannot be formatted is told as such, not dropped."""

    def __init__(self, logs: Logs) -> None:
        super().__init__(logging.WARNING)
        self._log = structlog.get_logger(room="library")
        self._logs = logs

    def emit(self, record: logging.LogRecord) -> None:
        write = self._log.error if record.levelno >= logging.ERROR else self._log.warning
        write(
            _message_of(record),
            library=record.name,
            place=f"{record.module}:{record.lineno}",
            exc_info=record.exc_info,
        )


def _message_of(record: logging.LogRecord) -> str:
    if record.name.split(".")[0].split(" ")[0] in _WITHHELD:
        return "library.complained"
    try:
        message = record.getMessage()
    except Exception as fault:
        return f"library.complained (its message could not be formatted: {type(fault).__name__})"
    # asyncio appends the repr of a task, and with it an exception's message, in lines of their own.
    return message.split("\n", 1)[0][:_LIBRARY_MESSAGE_LENGTH_MAX]


def _route_standard_library(logs: Logs) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = [_Handler(logs)]
    root.setLevel(logging.WARNING)
    show = warnings.showwarning

    def tell_warning(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        # The text of a warning quotes values (pydantic's serializer does), so its kind and place must do.
        place = f"{faults._short(filename)}:{lineno}"
        logger("library").warning("library.warned", category=category.__name__, place=place)

    def restore() -> None:
        root.handlers[:] = handlers
        root.setLevel(level)
        warnings.showwarning = show

    warnings.showwarning = tell_warning
    logs._restore.append(restore)


def _route_uncaught(logs: Logs) -> None:
    log = logger("process")
    excepthook, unraisablehook, threadhook = sys.excepthook, sys.unraisablehook, threading.excepthook

    def uncaught(kind: type[BaseException], fault: BaseException, trace: TracebackType | None) -> None:
        if isinstance(fault, KeyboardInterrupt):
            log.warning("process.interrupted")
        else:
            log.critical("process.failed", exc_info=fault)

    def restore() -> None:
        sys.excepthook, sys.unraisablehook, threading.excepthook = excepthook, unraisablehook, threadhook

    sys.excepthook = uncaught
    sys.unraisablehook = lambda told: log.error("process.unraisable", exc_info=told.exc_value)
    threading.excepthook = lambda told: log.error("process.thread_failed", exc_info=told.exc_value)
    logs._restore.append(restore)


def _one_line(key: str, value: Any) -> Any:
    """JSON escapes what would forge a line or steer a terminal; for the console it is done here."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds")
    if not isinstance(value, str) or key == "exception":
        return value
    return _CONTROL.sub(lambda found: repr(found.group())[1:-1], value)


def _fault_of(exc_info: Any) -> BaseException | None:
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        return cast("BaseException | None", exc_info[1])
    return sys.exc_info()[1] if exc_info else None
