"""The processes of `workers` as actors of Ray: on this machine, or on every node of a cluster.

`ray.init` finds the cluster: RAY_ADDRESS, else one that runs here, else it begins one.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from types import SimpleNamespace
from typing import Any

import gymnasium as gym

from pgcli.environments.guard import told
from pgcli.environments.make import spec_of
from pgcli.environments.vector import STEP_TIMEOUT
from pgcli.environments.workers import LOOK, Holder, Living, Lost, WorkersEngine, outcome
from pgcli.errors import EnvironmentFailed
from pgcli.machine.cores import begin
from pgcli.settings.schema import EnvConfig

TRIES = 3  # to place an actor
BREAKPOINT = "PYTHONBREAKPOINT"  # Ray puts its own debugger there


class RayEngine(WorkersEngine):
    """See `engine.SharedEngine`; the batches are those of `sync`, to the last bit.

    A node that is lost takes its actors with it: others are made on what is left.
    """

    name = "ray"

    def __init__(self, config: EnvConfig, num_envs: int, slots: int | None = None) -> None:
        self._ray, self._workers = _connected(), []
        try:
            super().__init__(config, num_envs, slots)
        except BaseException:
            self.close()
            raise

    def _room(self) -> int:
        return max(int(self._ray.cluster_resources().get("CPU", 1)), 1)

    def _holder(self, config: EnvConfig, slots: int, numbers: list[int]) -> Holder:
        return _Actor(self._ray, config, slots, numbers)

    def _begin(self, workers: Sequence[Holder]) -> None:
        """Those lost before they have begun are placed again: a node may be dead and not known so.

        Each has a core to itself if there is room, else none: it might wait for one for ever.
        """
        room = len(workers) <= self._ray.available_resources().get("CPU", 0)
        for remaining in reversed(range(TRIES)):
            for worker in workers:
                assert isinstance(worker, _Actor)
                worker.cores = 1 if room and remaining == TRIES - 1 else 0
                worker.start()
            lost: list[Holder] = []
            for worker in workers:
                try:
                    worker.answer()
                except Lost:
                    if not remaining:
                        raise
                    lost.append(worker)
            if not lost:
                return
            workers = lost

    def close(self) -> None:
        """End the actors, and Ray where it was begun for them."""
        super().close()
        if self._ray is not None:
            self._ray = None
            _let_go()


class _Actor(Holder):
    """Somewhere."""

    def __init__(self, ray: Any, *given: Any) -> None:
        super().__init__(*given)
        self._ray, self.cores, self._busy = ray, 0, False
        self._actor: Any = None
        self._closing: Any = None

    def start(self) -> None:
        self.end()
        config, *_ = self._given
        placed = {"num_cpus": self.cores, "scheduling_strategy": "SPREAD"}
        groups = {"concurrency_groups": {"life": 1}}  # else it answers when its work is done
        self._actor = self._ray.remote(**placed, **groups)(_Held).remote()
        self._send("make", (spec_of(config.id), *self._given), _path())

    def ask(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._send("play", (function, arguments))

    def _send(self, method: str, what: Any, *more: Any) -> None:
        # Ray would hand over arrays that cannot be written to.
        packed = self._ray.cloudpickle.dumps(what)
        self._asked, self._busy = getattr(self._actor, method).remote(packed, *more), True

    def answer(self) -> Any:
        ray, steps, since = self._ray, -1, time.monotonic()
        try:
            life = self._steps()
            while not ray.wait([self._asked], timeout=LOOK)[0]:
                if ray.wait([life], timeout=0)[0]:
                    if (now := ray.get(life)) != steps:
                        steps, since = now, time.monotonic()
                    life = self._steps()
                if time.monotonic() - since > STEP_TIMEOUT:
                    ray.kill(self._actor)
                    raise Lost(f"{self.who} has not made a step for {STEP_TIMEOUT:.0f} s")
            result, self.notices = ray.get(self._asked)
            self._busy = False
        except ray.exceptions.RayTaskError as error:  # what it was sent means nothing there
            raise EnvironmentFailed(f"{self.who}: {told(error.cause)}") from error
        except ray.exceptions.RayError as error:
            raise Lost(f"{self.who} ended ({_why(error)})") from error
        if isinstance(result, BaseException):
            raise result
        return result

    def _steps(self) -> Any:
        return self._actor.steps.options(concurrency_group="life").remote()

    def leave(self) -> None:
        if self._actor is not None and not self._busy and self._closing is None:
            self._closing = self._actor.close.remote()

    def end(self) -> None:
        """Let it close its copies; one that is busy, or takes too long, is killed."""
        if self._actor is None:
            return
        self.leave()
        with suppress(self._ray.exceptions.RayError):
            if self._closing is not None:
                self._ray.wait([self._closing], timeout=4 * LOOK)
        with suppress(self._ray.exceptions.RayError):
            self._ray.kill(self._actor)
        self._actor = self._asked = self._closing = None


class _Held:
    """What an actor is: environments, and what is to be done with them.

    Ray ends its process with that of who wants it.
    """

    def __init__(self) -> None:
        self._count = SimpleNamespace(value=0)
        self._engine: Living | None = None

    def make(self, packed: bytes, path: list[str]) -> Any:
        """Its copies; their modules may also be in these places, where the run finds them."""
        sys.path += [place for place in path if place not in sys.path]
        begin()
        return outcome(partial(self._make, packed)), []

    def _make(self, packed: bytes) -> None:
        spec, config, slots, numbers = _unpacked(packed)
        gym.registry.setdefault(spec.id, spec)  # which may only be known where the run is
        self._engine = Living(
            config, len(numbers), slots, numbers, orphaned=lambda: False, steps=self._count
        )

    def play(self, packed: bytes) -> Any:
        """What the function gives, and what the environments have shown."""
        function, arguments = _unpacked(packed)
        assert self._engine is not None
        result = outcome(partial(function, self._engine, *arguments))
        return result, self._engine.notices()

    def steps(self) -> int:
        """A sign of life."""
        return self._count.value

    def close(self) -> None:
        """The copies."""
        if self._engine is not None:
            self._engine.close()


def _path() -> list[str]:
    return [os.path.abspath(place) for place in sys.path]


def _unpacked(packed: bytes) -> Any:
    return importlib.import_module("ray").cloudpickle.loads(packed)


def _why(error: BaseException) -> str:
    """Ray's last word on it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


_lock = threading.Lock()
_users = 0  # of a Ray that was begun here; one that somebody else has begun is theirs
_ours = False


def _connected() -> Any:
    """Ray, connected; EnvironmentFailed where it cannot be."""
    global _users, _ours
    with _lock:
        if _users == 0:
            with _as_it_was():
                ray = importlib.import_module("ray")
                _ours = not ray.is_initialized()
                if _ours:
                    try:
                        ray.init(
                            log_to_driver=False, configure_logging=False, include_dashboard=False
                        )
                    except Exception as error:  # of many kinds
                        raise EnvironmentFailed(f"Ray cannot be had: {told(error)}") from error
        _users += 1
    return importlib.import_module("ray")


def _let_go() -> None:
    global _users
    with _lock:
        _users -= 1
        if _users == 0 and _ours:
            importlib.import_module("ray").shutdown()


@contextmanager
def _as_it_was() -> Iterator[None]:
    """With the process's SIGTERM handler, hook and debugger afterwards, of which Ray takes hold."""
    main = threading.current_thread() is threading.main_thread()
    handler, hook = signal.getsignal(signal.SIGTERM), sys.excepthook
    debugger = os.environ.get(BREAKPOINT)
    try:
        yield
    finally:
        sys.excepthook = hook
        if main and handler is not None:
            signal.signal(signal.SIGTERM, handler)
        os.environ.pop(BREAKPOINT, None)
        if debugger is not None:
            os.environ[BREAKPOINT] = debugger
