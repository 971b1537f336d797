"""Classic control compiled together with the policy: a rollout without a Python call per step.

Slot for slot the same episodes from the same seeds as Gymnasium's single environments, given the
same actions; those of a network are rounded otherwise here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pickle import UnpicklingError
from typing import Any, NamedTuple

import numpy as np

from pgcli.environments.base import Base
from pgcli.environments.compiled import kernels
from pgcli.environments.engine import Buffer, Network, Step
from pgcli.environments.make import compiled_model, maker
from pgcli.environments.spaces import ActionKind
from pgcli.machine.compiling import undisturbed
from pgcli.machine.cores import cores, ordered
from pgcli.machine.randomness import DISTINCT, Seeding
from pgcli.settings.schema import EnvConfig

Array = np.ndarray


class Model(NamedTuple):
    """One environment's dynamics, and how its episodes begin."""

    code: int
    draw: Callable[[np.random.Generator, int], Array]  # so many initial states [n, states]


def _hanging(rng: np.random.Generator, n: int) -> Array:
    return rng.uniform(-0.1, 0.1, (n, 4)).astype(np.float32).astype(float)  # as Gymnasium rounds


def _still(rng: np.random.Generator, n: int) -> Array:
    return np.stack([rng.uniform(-0.6, -0.4, n), np.zeros(n)], axis=1)


MODELS = {
    "CartPoleEnv": Model(kernels.CARTPOLE, lambda rng, n: rng.uniform(-0.05, 0.05, (n, 4))),
    "AcrobotEnv": Model(
        kernels.ACROBOT,
        lambda rng, n: rng.uniform(-0.1, 0.1, (n, 4)).astype(np.float32).astype(float),
    ),
    "MountainCarEnv": Model(kernels.MOUNTAIN_CAR, _still),
    "PendulumEnv": Model(
        kernels.PENDULUM, lambda rng, n: rng.uniform([-math.pi, -1.0], [math.pi, 1.0], (n, 2))
    ),
}


def _words(rng: np.random.Generator) -> list[int]:
    """The state of a PCG64, in 64 bits each."""
    state: Any = rng.bit_generator.state
    whole = state["state"]["state"], state["state"]["inc"]
    halves = [half for x in whole for half in divmod(x, 2**64)]
    return [*halves, state["has_uint32"], state["uinteger"]]


def _generator(words: Array) -> np.random.Generator:
    high, low, inc_high, inc_low, has_uint32, uinteger = map(int, words)
    bits = np.random.PCG64()
    bits.state = {
        "bit_generator": "PCG64",
        "state": {"state": high * 2**64 + low, "inc": inc_high * 2**64 + inc_low},
        "has_uint32": has_uint32,
        "uinteger": uinteger,
    }
    return np.random.Generator(bits)


class CompiledEngine(Base):
    """E slots, each with its own generator: the episodes do not depend on who plays beside."""

    name = "compiled"

    def __init__(self, config: EnvConfig, num_envs: int) -> None:
        env = maker(config)()
        super().__init__(config, num_envs, env.observation_space, env.action_space)
        self._first_look = None
        env.close()
        name = compiled_model(config)
        assert name is not None, "chosen only where there is a model"
        self._model = MODELS[name]
        if name != "CartPoleEnv":
            self.renewed = f"compiled {config.id} rounds as Gymnasium's: the last bits are others"
        self._rngs: list[np.random.Generator] = []
        states = self._model.draw(np.random.default_rng(0), 1).shape[1]
        self._slots = kernels.Slots(
            np.zeros((num_envs, states)),
            np.zeros(num_envs, np.int64),
            np.zeros(num_envs, bool),
            np.zeros((num_envs, 1, states)),
            np.zeros(num_envs, np.int64),
        )
        self._obs = np.zeros((num_envs, 1, self.obs_dim), np.float32)
        self._rew = np.zeros(num_envs)
        self._terminated, self._truncated = np.zeros((2, num_envs), bool)

        try:
            with undisturbed(kernels.play, kernels.step_all, kernels.observe_all):
                self._load()
        except (AttributeError, ImportError, EOFError, UnpicklingError):
            kernels.forget()
            self._load()

    def _load(self) -> None:
        """Play no row: the compiled code is loaded, or made, before anybody's clock runs."""
        e, action = self.num_envs, self.action
        gaussian = action.kind is ActionKind.GAUSSIAN
        outs = 1 if gaussian else action.sizes[0]
        sizes, weights = np.array([self.obs_dim, outs]), np.zeros((self.obs_dim + 1) * outs)
        buffer = Buffer(
            np.zeros((e, 2, self.obs_dim), np.float32), np.zeros((e, 2, 1), action.dtype),
            np.zeros((e, 2)), np.zeros((e, 2), bool), np.zeros((e, 2), bool),
        )  # fmt: skip
        kernels.play(
            self._model.code, 1, self._slots, sizes, weights.astype(np.float32), False,
            np.zeros(int(gaussian), np.float32), np.zeros((2, 0), np.float32), math.inf,
            np.zeros((1, e, outs), np.float32), 0, e, np.zeros(e, np.int64), buffer, 0,
        )  # fmt: skip
        self.reset(range(e))

    def reset(self, seeds: Sequence[int], seeding: Seeding = DISTINCT) -> Array:
        """Start anew in every slot, seeded: obs [E, D]."""
        self._rngs = [np.random.default_rng(seed) for seed in seeds]
        self._slots.age[:], self._slots.ended[:] = 0, False
        self._slots.used[:] = self._slots.fresh.shape[1]  # what an earlier seed drew is void
        for e, rng in enumerate(self._rngs):
            self._slots.state[e] = self._model.draw(rng, 1)
        kernels.observe_all(self._model.code, self._slots, self._obs)
        return self._obs[:, 0]

    def step(self, act: Array, active: Array) -> Step:
        """A row of every active slot: obs [E, D], rew, terminated, truncated [E]."""
        self._stock((active & self._slots.ended).astype(np.int64))
        kernels.step_all(
            self._model.code, self.max_episode_steps, self._slots, act.reshape(len(act)), active,
            self._obs, self._rew, self._terminated, self._truncated,
        )  # fmt: skip
        return self._obs[:, 0], self._rew, self._terminated, self._truncated

    def plays(self, network: Network) -> bool:
        """Whether `play` can stand for this policy, and is worth it."""
        known = network.activation in ("tanh", "relu") and max(network.sizes) <= kernels.WIDEST
        gaussian = bool(network.spread.size)
        return known and (not gaussian or network.spread.shape[1] == 1)

    def play(self, network: Network, noise: Array, left: Array, buffer: Buffer, row: int) -> int:
        """Up to as many rows as `noise [rows, S, K, O]` has; slot e plays left[e] more episodes.

        Fills `buffer` from `row` on, the observation after a slot's last step one row further.
        Returns how many rows that took.
        """
        rows, seeds, slots, _ = noise.shape
        left = left.copy()
        self._stock(np.minimum(left - ~self._slots.ended, rows // 2 + 1))
        size = min(kernels.BLOCK, 4 * -(-self.num_envs // (4 * cores())))
        firsts = [s * slots + k for s in range(seeds) for k in range(0, slots, size)]

        def piece(first: int) -> int:
            seed, k = divmod(first, slots)
            last = min(first + size, (seed + 1) * slots)
            drawn = np.ascontiguousarray(noise[:, seed, k : k + last - first])
            needed = kernels.play(
                self._model.code, self.max_episode_steps, self._slots, network.sizes,
                network.weights[seed], network.activation == "relu", network.spread[seed],
                network.normal[seed], network.clip, drawn, first, last, left, buffer, row,
            )  # fmt: skip
            return int(needed)

        return max(ordered(piece, firsts))

    def state(self) -> dict[str, Array]:
        """Copies of all that decides what follows, [E, ...] each."""
        drawn = [_words(rng) for rng in self._rngs]
        slots = {name: x.copy() for name, x in self._slots._asdict().items()}
        return {**slots, "rng": np.array(drawn, np.uint64)}

    def load(self, state: Mapping[str, Array]) -> None:
        """Go on where `state` was taken."""
        self._slots = kernels.Slots(*(state[name].copy() for name in kernels.Slots._fields))
        self._rngs = [_generator(words) for words in state["rng"]]

    def close(self) -> None:
        """Nothing is held."""

    def _stock(self, resets: Array) -> None:
        """Draw initial states ahead, so that slot e can be reset resets[e] times."""
        slots = self._slots
        held = slots.fresh.shape[1] - slots.used
        if (held >= resets).all():
            return
        # Unread ones stand at the end of a slot's row; the new ones follow them.
        size = int(np.maximum(held, resets).max())
        fresh = np.empty((self.num_envs, size, slots.state.shape[1]))
        for e, rng in enumerate(self._rngs):
            rest = slots.fresh[e, slots.used[e] :]
            new = max(0, int(resets[e]) - len(rest))
            used = size - len(rest) - new
            fresh[e, used : used + len(rest)] = rest
            if new:
                fresh[e, used + len(rest) :] = self._model.draw(rng, new)
            slots.used[e] = used
        self._slots = slots._replace(fresh=fresh)
