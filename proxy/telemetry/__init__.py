"""What the house says about itself: the log, the figures, and the background tasks it holds.

Logs       structlog to stderr, JSON or console; whatever leaves is redacted first, libraries included
RequestLog one line per request, made off the path
Counters   plain integers of one process; `Merged` adds those of several, `exposition` renders them
Tasks      holds background tasks, so that none is collected mid-flight and no fault of one is lost

It owns no usage: what is billed is in the ledger, and no figure here carries a customer, user or agent.
`exposition` is imported on its own, by the keeper, because the workers need no Prometheus library.
"""

from proxy.telemetry.counters import Counters, Merged
from proxy.telemetry.logs import Logs, logger, set_up
from proxy.telemetry.loops import report_loop_faults, watch_loop_lag
from proxy.telemetry.request_log import RequestLog
from proxy.telemetry.tasks import Tasks

__all__ = [
    "Counters",
    "Logs",
    "Merged",
    "RequestLog",
    "Tasks",
    "logger",
    "report_loop_faults",
    "set_up",
    "watch_loop_lag",
]
