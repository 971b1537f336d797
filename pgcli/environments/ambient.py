"""Randomness outside of Gymnasium's `np_random`: a process's global generators, and its spaces'.

Many environments draw from `random`, `numpy.random`, torch or a space's `sample()`. Here each copy
of an environment has such generators of its own, seeded with it at every batch, and finds them in
the place of the others whenever it is called: what it draws depends on its seed alone, in every
engine.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Space

from pgcli.environments.looks import layers

GLOBAL: Any = np.random  # its legacy interface, as environments use it


class States(NamedTuple):
    """What the global generators would draw next."""

    python: Any
    numpy: Any
    torch: Any  # None where torch is not loaded

    @classmethod
    def now(cls) -> States:
        """As they are."""
        torch = _torch()
        return cls(
            random.getstate(),
            GLOBAL.get_state(legacy=False),
            None if torch is None else torch.get_rng_state(),
        )

    def restore(self) -> None:
        """Make them so again."""
        random.setstate(self.python)
        GLOBAL.set_state(self.numpy)
        if self.torch is not None:
            sys.modules["torch"].set_rng_state(self.torch)

    def differ(self, other: States) -> bool:
        """Whether anything was drawn in between; torch's, too, where it was there before."""
        drawn = self.python != other.python or _words(self.numpy) != _words(other.numpy)
        if self.torch is None or other.torch is None:
            return drawn
        return drawn or not sys.modules["torch"].equal(self.torch, other.torch)


class Own:
    """One copy's generators."""

    def __init__(self, seed: int, spaces: Sequence[Space[Any]] = ()) -> None:
        for_python, for_numpy, for_torch, *others = np.random.SeedSequence(seed).spawn(
            3 + len(spaces)
        )
        self._spaces = spaces
        self._generators = [np.random.Generator(np.random.PCG64(other)) for other in others]
        self._began = _positions(self._generators)
        self._bits = np.random.MT19937(for_numpy)
        python = random.Random(_number(for_python, 4)).getstate()
        torch = _torch()
        state = None
        if torch is not None:
            state = torch.Generator().manual_seed(_number(for_torch, 1)).get_state()
        self._state = self._first = States(python, self._bits.state, state)

    def enter(self) -> None:
        """Put them in the place of the global ones."""
        random.setstate(self._state.python)
        self.enter_numpy()
        if self._state.torch is not None:
            sys.modules["torch"].set_rng_state(self._state.torch)
        for space, drawing in zip(self._spaces, self._generators, strict=True):
            space._np_random = drawing

    def enter_numpy(self) -> None:
        """NumPy's alone. The second of a pair of normal numbers, kept for later, is lost."""
        GLOBAL.set_bit_generator(self._bits)

    def leave(self) -> None:
        """Note how far they have got."""
        torch = _torch()
        state = None if torch is None else torch.get_rng_state()
        self._state = self._state._replace(python=random.getstate(), torch=state)
        self._generators = [space.np_random for space in self._spaces]

    def moved(self) -> bool:
        """Whether anything has been drawn from them."""
        now = self._state._replace(numpy=self._bits.state)
        return self._first.differ(now) or self._began != _positions(self._generators)


class Ambient:
    """Gives each of E copies in one process generators of its own, once one has drawn from others.

    To exchange them costs some 30 µs a step, so a batch is played without, and looked at: if the
    shared ones have moved, it has to be played again.
    """

    def __init__(self, spaces: Sequence[Sequence[Space[Any]]] = ()) -> None:
        """spaces: of each copy; some may be the same."""
        self._spaces = spaces
        self.active = self.confirmed = False  # whether they are exchanged; whether that is needed
        self._own: list[Own] = []

    def seed(self, seeds: Sequence[int]) -> None:
        """At the start of a batch: seeds [E]."""
        self._own = []
        if self.active:
            spaces = self._spaces or [[]] * len(seeds)
            self._own = [Own(*one) for one in zip(seeds, spaces, strict=True)]

    def enter(self, copy: int) -> None:
        """Before a call of that copy; only if `active`."""
        self._own[copy].enter()

    def leave(self, copy: int) -> None:
        """After it."""
        self._own[copy].leave()

    @contextmanager
    def given(self, copy: int) -> Iterator[None]:
        """Around a call of that copy."""
        if self.active:
            self.enter(copy)
        yield
        if self.active:
            self.leave(copy)

    @contextmanager
    def batch(self) -> Iterator[list[bool]]:
        """Around a batch. What it gives is empty, or holds True if the batch must be played again.

        The process's own generators are afterwards as they were before.
        """
        again: list[bool] = []
        before, bits = States.now(), GLOBAL.get_bit_generator()
        sampled = self._sampled()
        try:
            yield again
        finally:
            if not self.active:
                if before.differ(States.now()) or sampled != self._sampled():
                    before.restore()
                    self.active = True
                    again.append(True)
            else:
                GLOBAL.set_bit_generator(bits)
                before.restore()
                self._judge()

    def _sampled(self) -> list[Any]:
        return _positions(
            [getattr(space, "_np_random", None) for spaces in self._spaces for space in spaces]
        )

    def _judge(self) -> None:
        """Keep to it if a copy has drawn; else it was another part of the process."""
        self.confirmed = self.confirmed or self.drawn
        self.active = self.confirmed

    @property
    def drawn(self) -> bool:
        """Whether a copy has drawn from its own in this batch."""
        return any(own.moved() for own in self._own)


@contextmanager
def seeded(seed: int, spaces: Sequence[Space[Any]] = ()) -> Iterator[None]:
    """With global generators, and those of spaces, that are seeded by that number.

    Afterwards they are as they were before.
    """
    before, bits = States.now(), GLOBAL.get_bit_generator()
    drawing = [space._np_random for space in spaces]
    Own(seed, spaces).enter()
    try:
        yield
    finally:
        for space, its in zip(spaces, drawing, strict=True):
            space._np_random = its
        GLOBAL.set_bit_generator(bits)
        before.restore()


def spaces_of(env: gym.Env[Any, Any]) -> list[Space[Any]]:
    """All spaces from which an environment may draw by `sample()`."""
    spaces: dict[int, Space[Any]] = {}

    def visit(space: Space[Any]) -> None:
        spaces[id(space)] = space
        parts = getattr(space, "spaces", ())
        for part in parts.values() if isinstance(parts, Mapping) else parts:
            visit(part)

    for layer in layers(env):
        visit(layer.observation_space)
        visit(layer.action_space)
    return list(spaces.values())


def _positions(generators: Sequence[np.random.Generator | None]) -> list[Any]:
    """Where they are."""
    return [None if one is None else repr(one.bit_generator.state) for one in generators]


def _torch() -> Any:
    """Torch, where somebody else has loaded it."""
    return sys.modules.get("torch")


def _number(sequence: np.random.SeedSequence, words: int) -> int:
    """64 bits a word, of which torch takes one."""
    return int.from_bytes(sequence.generate_state(words, np.uint64).tobytes(), "little")


def _words(state: Any) -> tuple[Any, ...]:
    """NumPy's state as something that compares."""
    inner = state["state"]
    return (
        state["bit_generator"], state.get("has_gauss"), state.get("gauss"),
        *(x.tobytes() if isinstance(x, np.ndarray) else x for x in inner.values()),
    )  # fmt: skip
