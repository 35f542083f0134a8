"""Locks of folders and files: one run at a time. The system releases them when the process ends, however it ends."""

import errno
import fcntl
import os
import socket
import tempfile
from pathlib import Path
from typing import TextIO

from ser_mtl.errors import UserError
from ser_mtl.files import refuse_special, writing

NAME = ".lock"
_held: dict[Path, TextIO] = {}


def lock(folder: Path) -> None:
    """Lock a folder for this process, and create it if it is missing. Its own locks may be taken again.

    Raises:
        UserError: another run has it.
    """
    folder = Path(os.path.realpath(folder))  # unlike `resolve`, not stopped by a loop of links
    folder.mkdir(parents=True, exist_ok=True)
    if owner := take(folder / NAME):
        _refuse(folder, owner)


def check_unlocked(folder: Path) -> None:
    """Check that no other process has a folder. Nothing is written.

    Raises:
        UserError: another run has it.
    """
    path = Path(os.path.realpath(folder), NAME)
    if path in _held or not path.is_file():
        return
    with open(path, encoding="utf-8") as file:
        if not _locked(file, fcntl.LOCK_SH):
            _refuse(path.parent, _owner(file))


def release(folder: Path) -> None:
    """Unlock a folder, if this process has locked it, and remove the lock file."""
    give_back(Path(os.path.realpath(folder), NAME))


def take(path: Path) -> str | None:
    """Lock a file that exists only as a lock, and create it. This process's own locks may be taken again.

    The locks are record locks: worker processes do not inherit them, and they hold on NFS too.

    Returns:
        The other process that has it; None if this one has it now.

    Raises:
        UserError: it is a pipe or a device.
        OSError: names it, if the disk is full.
    """
    refuse_special(path)
    while path not in _held:
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (closing it would release the lock)
        if not _locked(file, fcntl.LOCK_EX):
            with file:
                return _owner(file)
        if _is_there(file, path):  # else its owner removed it after we opened it
            _held[path] = file
            try:
                with writing(path):
                    file.truncate(0)
                    os.write(file.fileno(), me().encode())  # unbuffered: nothing is left that closing would write
            except OSError:  # a disk that is full
                give_back(path)
                raise
        else:
            file.close()
    return None


def me() -> str:
    """The name of this process in its locks."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def give_back(path: Path) -> None:
    """Unlock and remove a file of `take`, if this process has it."""
    if path in _held:
        path.unlink(missing_ok=True)
        _held.pop(path).close()


def has(path: Path, owner: str) -> bool:
    """Whether a file is the lock of another process, by its `me()`. Never of one's own: reading it would unlock it."""
    return path.is_file() and path.read_text(encoding="utf-8", errors="replace") == owner


def works_in(folder: Path) -> bool:
    """Whether a folder's file system supports locks. Some Lustre mounts do not: there, every `take` succeeds."""
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


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


def _owner(file: TextIO) -> str:
    file.seek(0)
    return file.read() or "another process"


def _refuse(folder: Path, owner: str) -> None:
    raise UserError(f"--output_dir {folder}: a run is at work there ({owner}); wait for it, or name another folder")
