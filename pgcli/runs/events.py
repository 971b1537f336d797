"""Files that grow by whole pieces, and TensorBoard events in them."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterable
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from pgcli.errors import StorageFailed


class Appended:
    """A file that grows by whole pieces; StorageFailed where one does not fit."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "ab", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise StorageFailed(f"{path}: {error.strerror}") from error

    @property
    def empty(self) -> bool:
        """Whether nothing is in it yet."""
        return self.size == 0

    @property
    def size(self) -> int:
        """In bytes."""
        return self._file.tell()

    def cut(self, size: int) -> None:
        """Take away what is beyond so many bytes."""
        self._file.truncate(size)
        self._file.seek(size)

    def write(self, piece: bytes) -> None:
        """Append a piece."""
        try:
            if self._file.write(piece) < len(piece):  # how a disk says that it is full now
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise StorageFailed(f"{self._path}: {error.strerror}") from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Events:
    """One TensorBoard event file, all scalars of a step in a single event.

    Written on the spot: TensorBoard's own writer has a thread, which tells of a full disk late.
    """

    def __init__(self, directory: Path, resume_after: int | None) -> None:
        # Readers take the files of one directory in the order of their names.
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = Appended(directory / name)
        self._records = RecordWriter(self._file)
        self.last_step = resume_after or 0
        self._write(Event(file_version="brain.Event:2"))
        if resume_after is not None:  # readers drop whatever an earlier file has from here on
            start = SessionLog(status=SessionLog.START)
            self._write(Event(step=resume_after + 1, session_log=start))

    def add(self, summary: Summary, step: int) -> None:
        """Write a summary at an x."""
        self._write(Event(step=step, summary=summary))

    def add_scalars(self, scalars: Iterable[tuple[str, float]], step: int) -> None:
        """Write (tag, number) pairs at an x."""
        values = [Summary.Value(tag=tag, simple_value=x) for tag, x in scalars]
        self.add(Summary(value=values), step)
        self.last_step = step

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())
