"""What settings need of memory at least, told before it is taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from pgcli.errors import ConfigError
from pgcli.machine import memory

NUMBER = 4  # bytes
COPIES = 4  # of a parameter: itself, its gradient, two moments of an optimiser
STEP = 3  # numbers of a step beside its observation: action, reward, mask


def parameters(inputs: int, hidden: Sequence[int], outputs: int) -> int:
    """Weights and biases of a network with these layers."""
    sizes = [inputs, *hidden, outputs]
    return sum((a + 1) * b for a, b in pairwise(sizes))


def check(seeds: int, width: int, steps: int, obs_dim: int, given: Mapping[str, int]) -> None:
    """Raise ConfigError where that needs more memory than the machine has.

    For so many seeds with `width` parameters each, on batches of `steps` steps at least. The
    largest of the `given` settings, by key, is named.
    """
    least = NUMBER * seeds * (COPIES * width + (obs_dim + STEP) * steps)
    if least > (there := memory.total()):
        key = max(given, key=lambda name: given[name])
        needs, has = (f"{x / memory.GIB:,.0f} GiB" for x in (least, there))
        raise ConfigError(key, given[key], f"needs at least {needs}, and this machine has {has}")
