"""One keeper per data.dir: two would start two stores on one file, and write one ledger twice."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

LOCK_NAME = "keeper.lock"


class DataInUse(Exception):
    """Another keeper holds this data.dir, or it cannot be used at all."""


class KeeperLock:
    """Held until `release` or the end of the process, whatever ends it. No child inherits it.

    The file stays when the lock is gone: taking it away would let two keepers lock two files of one name.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def take(cls, data_dir: Path) -> KeeperLock:
        """Makes the folder (mode 0700) if there is none; raises `DataInUse` with who holds it and what to do."""
        path = data_dir / LOCK_NAME
        try:
            data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as fault:
            raise DataInUse(
                f"The data folder {data_dir} cannot be used ({fault.strerror}). "
                "Give data.dir in the config file (or FAREGATE_DATA__DIR) a folder that this user may write."
            ) from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(fd)
            os.close(fd)
            raise DataInUse(_in_use(data_dir, holder)) from None
        except OSError as fault:
            os.close(fd)
            raise DataInUse(
                f"The folder {data_dir} cannot be locked ({fault.strerror}): use a local disk."
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        return cls(fd)

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _holder(fd: int) -> str | None:
    written = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
    return written if written.isdecimal() else None


def _in_use(data_dir: Path, holder: str | None) -> str:
    who, how = (f" (process {holder})", f"Stop it (kill {holder})") if holder else ("", "Stop it")
    return (
        f"Another Faregate{who} keeps the data in {data_dir}. "
        f"{how}, or give this one a folder of its own: data.dir in the config file, or FAREGATE_DATA__DIR."
    )
