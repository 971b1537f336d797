"""Random streams by counter: every draw is a function of (seed, iteration, purpose) alone.

So a checkpoint holds no generator state, and any iteration can be replayed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike


class Purpose(IntEnum):
    """What a stream is for. A new purpose takes the next number; none is ever renumbered."""

    POLICY_INIT = 0
    CRITIC_INIT = 1
    ENVIRONMENT = 2
    ACTION = 3
    CRITIC_FIT = 4
    Q_INIT = 5
    Q_FIT = 6
    PERTURBATION = 7
    BOOTSTRAP = 8
    MINIBATCH = 9


def sequence(seed: int, iteration: int, purpose: Purpose) -> np.random.SeedSequence:
    """The seed sequence of one purpose in one iteration of one seed."""
    return np.random.SeedSequence(seed, spawn_key=(iteration, int(purpose)))


def generator(seed: int, iteration: int, purpose: Purpose) -> np.random.Generator:
    """A fresh generator on that sequence."""
    return np.random.Generator(np.random.PCG64DXSM(sequence(seed, iteration, purpose)))


def per_seed(iteration: ArrayLike, seeds: int) -> list[int]:
    """The iteration of each seed, where one is given for all or one for each."""
    return [int(i) for i in np.broadcast_to(iteration, seeds)]


@dataclass(frozen=True)
class Seeding:
    """How the environments of a batch are seeded, each slot (a copy of one seed's) by itself."""

    draw: Callable[[Sequence[int], ArrayLike, int], list[int]]  # of seeds, iteration, slots a seed
    below: int  # bound of every number that an environment is given

    def single(self, seeds: Sequence[int]) -> int:
        """One number for an engine that takes one for all slots, a function of theirs."""
        return int(np.random.SeedSequence(list(seeds)).generate_state(1)[0]) % self.below


def seeding(format: int) -> Seeding:
    """As runs of that checkpoint format are seeded."""
    return DISTINCT if format > 1 else WIDE


BITS = 31  # what NumPy's legacy generators and envpool take


def _distinct(seeds: Sequence[int], iteration: ArrayLike, slots: int) -> list[int]:
    """A seed for every slot, none twice: place seed · stride + slot in a shuffled [0, 2³¹).

    So a seed's slots are seeded alike whoever plays beside them. Each iteration is shuffled in its
    own way, and so is each block of 2³¹ places (2¹⁵ seeds): slots of different iterations or blocks
    share a seed with chance 2⁻³¹ a pair. `iteration`: of all seeds, or of each.
    """
    stride = 2 ** max(16, (slots - 1).bit_length())  # divides a block
    keys: dict[tuple[int, int], np.random.SeedSequence] = {}
    slot_seeds: list[int] = []
    for seed, i in zip(seeds, per_seed(iteration, len(seeds)), strict=True):
        block, first = divmod(seed * stride, 2**BITS)
        key = keys.setdefault((block, i), sequence(block, i, Purpose.ENVIRONMENT))
        slot_seeds += _shuffled(np.arange(first, first + slots, dtype=np.uint64), key).tolist()
    return slot_seeds


def _shuffled(x: np.ndarray, key: np.random.SeedSequence) -> np.ndarray:
    """A permutation of [0, 2³¹) at x [n] uint64: rounds of steps that can each be undone."""
    mask = np.uint64(2**BITS - 1)
    for add, factor in key.generate_state(8, np.uint32).astype(np.uint64).reshape(4, 2):
        x = (x + add & mask) * (factor | np.uint64(1)) & mask
        x ^= x >> np.uint64(17)
    return x


def _wide(seeds: Sequence[int], iteration: ArrayLike, slots: int) -> list[int]:
    """32 random bits a slot: two of one batch may be the same."""
    own = zip(seeds, per_seed(iteration, len(seeds)), strict=True)
    states = [sequence(seed, i, Purpose.ENVIRONMENT) for seed, i in own]
    return [int(x) for state in states for x in state.generate_state(slots)]


DISTINCT, WIDE = Seeding(_distinct, 2**BITS), Seeding(_wide, 2**32)
