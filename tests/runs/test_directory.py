"""The lock and writing in one piece."""

import errno
import multiprocessing
import os

import pytest

from pgcli.errors import RunDirectoryError, StorageFailed
from pgcli.runs import directory as module
from pgcli.runs.directory import lock, write_atomically


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    write_atomically(path, b"old")

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageFailed, match=r"x\.json: No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def _try(directory, queue):
    try:
        with lock(directory):
            queue.put("held")
    except RunDirectoryError as error:
        queue.put(str(error))


def test_one_process_at_a_time(tmp_path):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    with lock(tmp_path):
        other = context.Process(target=_try, args=(tmp_path, queue))
        other.start()
        assert "in use" in queue.get(timeout=60)
        other.join()
    with lock(tmp_path):
        pass


def _hold_until_killed(directory, queue):
    with lock(directory):
        queue.put("held")
        queue.get()  # for ever


def test_a_killed_process_leaves_no_lock(tmp_path):
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    other = context.Process(target=_hold_until_killed, args=(tmp_path, _Ends(there)))
    other.start()
    assert here.poll(60)
    with pytest.raises(RunDirectoryError, match="in use"), lock(tmp_path):
        pass
    other.kill()
    other.join()
    with lock(tmp_path):
        pass


class _Ends:
    """A pipe's end with a queue's names: a queue would be left locked by a kill."""

    def __init__(self, connection):
        self.put, self.get = connection.send, connection.recv


@pytest.mark.skipif(module.fcntl is None, reason="needs fcntl")
def test_a_drive_without_locks_is_not_taken_for_one_in_use(tmp_path, monkeypatch):
    def fail(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(module.fcntl, "flock", fail)
    with pytest.raises(StorageFailed, match="No locks available"), lock(tmp_path):
        pass
