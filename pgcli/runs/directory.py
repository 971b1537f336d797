"""The run directory: one process at a time."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pgcli.errors import RunDirectoryError, StorageFailed

HELD = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)  # by another process

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def lock(directory: Path) -> Iterator[None]:
    """Hold `directory` (made where missing); RunDirectoryError while another process does.

    The operating system lets go of the lock with the process, so a crash leaves none behind.
    """
    path = directory / ".lock"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise StorageFailed(f"{path}: {error.strerror}") from error
    try:
        try:
            if fcntl is not None:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            else:
                import msvcrt

                msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            if error.errno not in HELD:  # as on a network drive without locks
                raise StorageFailed(f"{path}: {error.strerror}") from error
            raise RunDirectoryError(f"{directory} is in use by another pg process") from error
        yield
    finally:
        os.close(handle)


def holds_run(directory: Path) -> bool:
    """Whether a run has written its results here."""
    results = ("metrics.csv", "checkpoint", "compare.csv")
    return any((directory / name).exists() for name in results)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content` or leave it as it was; StorageFailed names the path."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_directory(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageFailed(f"{path}: {error.strerror}") from error


def _sync_directory(directory: Path) -> None:
    """Make a rename in `directory` survive a power cut."""
    if os.name == "posix":  # Windows opens no directories
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
