"""One keeper per data.dir."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.processes.keeper_lock import LOCK_NAME, DataInUse, KeeperLock


def test_a_second_take_is_refused_with_the_holder_and_the_remedy(tmp_path: Path) -> None:
    """The person who reads it must know what to stop, or what to set."""
    held = KeeperLock.take(tmp_path / "var")
    with pytest.raises(DataInUse) as refused:
        KeeperLock.take(tmp_path / "var")
    assert str(os.getpid()) in str(refused.value)
    assert "FAREGATE_DATA__DIR" in str(refused.value)
    held.release()
    KeeperLock.take(tmp_path / "var").release()


def test_a_child_that_outlives_its_keeper_does_not_hold_the_lock(tmp_path: Path) -> None:
    """After kill -9 of a keeper its workers drain for a while; the next start must not wait for them."""
    held = KeeperLock.take(tmp_path)
    child = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        close_fds=False,
    )
    try:
        # Popen may return a moment before the kernel closes what a new program does not inherit.
        assert child.stdout is not None
        child.stdout.read(1)
        held.release()
        KeeperLock.take(tmp_path).release()
    finally:
        child.communicate(b"\n")


def test_a_lock_file_left_behind_hinders_nobody(tmp_path: Path) -> None:
    """The number of a dead keeper stands in it, maybe that of another program by now."""
    (tmp_path / LOCK_NAME).write_text("1\n")
    held = KeeperLock.take(tmp_path)
    assert (tmp_path / LOCK_NAME).read_text() == f"{os.getpid()}\n"
    held.release()


def test_the_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    """It will hold the pepper and the admin token."""
    KeeperLock.take(tmp_path / "deep" / "var").release()
    assert (tmp_path / "deep" / "var").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataInUse, match=r"data\.dir"):
        KeeperLock.take(tmp_path / "file" / "var")
