"""Random streams by counter: every draw is a function of (seed, iteration, purpose) alone.

So a checkpoint holds no generator state, and any iteration can be replayed.
"""

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


def sequence(seed: int, iteration: int, purpose: Purpose) -> np.random.SeedSequence:
    """The seed sequence of one purpose in one iteration of one seed."""
    return np.random.SeedSequence(seed, spawn_key=(iteration, int(purpose)))


def generator(seed: int, iteration: int, purpose: Purpose) -> np.random.Generator:
    """A fresh generator on that sequence."""
    return np.random.Generator(np.random.PCG64DXSM(sequence(seed, iteration, purpose)))


def per_seed(iteration: ArrayLike, seeds: int) -> list[int]:
    """The iteration of each seed, where one is given for all or one for each."""
    return [int(i) for i in np.broadcast_to(iteration, seeds)]
