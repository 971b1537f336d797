"""Directories of results: made for one process, held by one process at a time."""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pgcli.errors import RunDirectoryError, StorageFailed

LOCK = ".lock"
EVALUATION = "eval.json"  # what pg eval writes
LARGEST = 2**32  # bytes of a file that is read: of metrics.csv some 20 million rows
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
    path = directory / LOCK
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


def is_locked(directory: Path) -> bool:
    """Whether a process holds it or has once held it: it may be about to write there."""
    return (directory / LOCK).exists()


def is_held(directory: Path) -> bool:
    """Whether a process holds it now."""
    try:
        with lock(directory):
            return False
    except RunDirectoryError:
        return True


@contextmanager
def made(path: Path, named: bool, is_bare: Callable[[Path], bool]) -> Iterator[Path]:
    """A directory that is this process's alone, or `path` itself where the user named it.

    Where another process was faster it is `path-1`, `path-2`, ... What was made goes again if
    an error comes while it `is_bare`. StorageFailed where it cannot be made.
    """
    new_parents = [parent for parent in path.parents if not parent.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        directory, is_new = (path, not path.is_dir()) if named else (_reserved(path), True)
        directory.mkdir(exist_ok=True)
    except OSError as error:
        raise StorageFailed(f"{path}: {error.strerror}") from error
    try:
        yield directory
    except BaseException:
        if is_new and is_bare(directory):
            shutil.rmtree(directory, ignore_errors=True)
            with suppress(OSError):  # something else is beside it by now
                for parent in new_parents:
                    parent.rmdir()
        raise


def _reserved(path: Path) -> Path:
    number, candidate = 0, path
    while True:
        try:
            candidate.mkdir()
            return candidate
        except FileExistsError:
            number += 1
            candidate = path.with_name(f"{path.name}-{number}")


def holds_run(directory: Path) -> bool:
    """Whether a run has written its results here."""
    results = ("metrics.csv", "checkpoint", "compare.csv", EVALUATION)
    return any((directory / name).exists() for name in results)


def clear_records(directory: Path) -> None:
    """Remove what a training run wrote here before its first checkpoint; nothing else."""
    with lock(directory):
        files = [directory / name for name in ("metrics.csv", "summary.json", ".wandb-id")]
        files += [*directory.glob("events.out.tfevents.*"), *directory.glob("seed-*/events.out.*")]
        for path in files:
            path.unlink(missing_ok=True)


def content(path: Path) -> bytes:
    """What a file of a run holds; OSError where it is no regular one, or larger than LARGEST.

    A pipe would be waited for, and a device has no end: who runs `pg` need not have made the run.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "is no regular file", str(path))
        if found.st_size > LARGEST:
            raise OSError(errno.EFBIG, f"is larger than {LARGEST >> 30} GiB", str(path))
        return file.read()


def text_lines(path: Path) -> io.StringIO:
    """The same as a CSV is read."""
    return io.StringIO(content(path).decode(errors="replace"), newline="")


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


def append_line(path: Path, line: str) -> None:
    """Append a line in one piece, whoever else does; StorageFailed names the path."""
    try:
        with open(path, "ab", buffering=0) as file:
            file.write(f"{line}\n".encode())
    except OSError as error:
        raise StorageFailed(f"{path}: {error.strerror}") from error


def _sync_directory(directory: Path) -> None:
    """Make a rename in `directory` survive a power cut."""
    if os.name == "posix":  # Windows opens no directories
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
