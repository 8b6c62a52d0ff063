"""Operating-system processes: one keeper, its workers, and what is between them.

Supervisor    the keeper's side: starts workers, keeps them alive, ends them in order
WorkerControl the worker's side: takes its configuration, learns that it has to end
StopSignals   Ctrl-C and SIGTERM, asked once for order and twice for haste
KeeperLock    one keeper per data.dir
PortClaim     one Faregate per port, though its workers share it

It knows signals, pipes and sockets; nothing of HTTP, Redis or SQL.
"""

from proxy.processes.channel import KeeperGone
from proxy.processes.control import WorkerControl
from proxy.processes.keeper_lock import DataInUse, KeeperLock
from proxy.processes.listening import CannotListen, PortClaim, listen_alone, listen_shared
from proxy.processes.signals import StopSignals
from proxy.processes.supervisor import Supervisor, WorkerFailed

__all__ = [
    "CannotListen",
    "DataInUse",
    "KeeperGone",
    "KeeperLock",
    "PortClaim",
    "StopSignals",
    "Supervisor",
    "WorkerControl",
    "WorkerFailed",
    "listen_alone",
    "listen_shared",
]
