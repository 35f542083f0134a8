"""The lock of a run's folder: one run at a time. The system releases it when the process ends, however it ends."""

import errno
import fcntl
import os
import socket
from pathlib import Path
from typing import TextIO

from ser_mtl.errors import UserError

NAME = ".lock"
_held: dict[Path, TextIO] = {}


def lock(folder: Path) -> None:
    """Take a folder for this process, and create it if it is missing. Who has it already keeps it.

    Record locks are not inherited by workers and hold on NFS too.

    Raises:
        UserError: another run has it.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    while folder not in _held:
        file = open(folder / NAME, "a+", encoding="utf-8")  # noqa: SIM115 (closing it would release the lock)
        if not _locked(file, fcntl.LOCK_EX):
            _refuse(folder, file)
        if _is_there(file, folder / NAME):  # else its owner released and removed it just now
            _held[folder] = file
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()


def check_unlocked(folder: Path) -> None:
    """Check that no other process has a folder. Nothing is written.

    Raises:
        UserError: another run has it.
    """
    folder = folder.resolve()
    if folder in _held or not (folder / NAME).is_file():
        return
    with open(folder / NAME, encoding="utf-8") as file:
        if not _locked(file, fcntl.LOCK_SH):
            _refuse(folder, file)


def release(folder: Path) -> None:
    """Give a folder back, if this process has it, and remove the file that held its lock."""
    folder = folder.resolve()
    if folder in _held:
        (folder / NAME).unlink(missing_ok=True)
        _held.pop(folder).close()


def _locked(file: TextIO, kind: int) -> bool:
    try:
        fcntl.lockf(file, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):  # a file system without locks
            raise
    return True


def _is_there(file: TextIO, path: Path) -> bool:
    return path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())


def _refuse(folder: Path, file: TextIO) -> None:
    file.seek(0)
    owner = file.read() or "another process"
    file.close()
    raise UserError(f"--output_dir {folder}: a run is at work there ({owner}); wait for it, or name another folder")
