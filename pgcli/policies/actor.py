"""A policy that acts in a rollout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from pgcli.machine.cores import ROWS
from pgcli.machine.randomness import Purpose, generator, per_seed
from pgcli.policies.heads import Categorical, Gaussian
from pgcli.policies.network import ACTIVATIONS
from pgcli.policies.policy import Policy
from pgcli.settings.schema import Acting, BehaviourConfig


class PlainNetwork(NamedTuple):
    """What a policy comes down to in a rollout, a row per seed."""

    sizes: np.ndarray  # [L + 1] int64: inputs, hidden units, outputs
    weights: np.ndarray  # [S, n] float32: per layer W [inputs, outputs] row by row, then b
    activation: str
    spread: np.ndarray  # [S, A] float32: standard deviations; A = 0 where actions are discrete
    normal: np.ndarray  # [S, 2, D] float32: what inputs are normalised by; D = 0: by nothing
    clip: float  # and cut to


class PolicyActor:
    """Samples actions in the rollout with NumPy: for small networks half the time of torch.

    All noise of one iteration comes from each seed's own ACTION stream, drawn in blocks; slot k
    at step t always gets the same noise, whatever happens in the other slots.
    """

    BLOCK = 128  # steps of noise drawn at once

    def __init__(
        self,
        policy: Policy,
        theta: Tensor,
        seeds: Sequence[int],
        iteration: ArrayLike,  # of all seeds, or of each [S]
        slots: int,
        behaviour: BehaviourConfig | None = None,
    ) -> None:
        self._head, self._slots, self._behaviour = policy.head, slots, behaviour
        self._chosen = slice(0, slots)
        theta = theta.detach().cpu()
        self._layers = [(w.numpy(), b.numpy()) for w, b in policy.net.unpack(theta)]
        self._extra = policy.extra(theta)[:, 0].numpy()
        fixed = theta[:, policy.num_params :].unflatten(1, (2, -1))
        self._normal, self._clip = fixed.numpy(), math.inf
        if policy.normalized is not None:
            self._clip = policy.normalized.clip or math.inf
        self._net = policy.net
        self._own = list(zip(seeds, per_seed(iteration, len(seeds)), strict=True))
        self._room()
        self.restart()

    def part(self, seeds: slice, slots: slice) -> Self:
        """The actor of some of the seeds and slots, who act as they do in the whole.

        `slots` begins at a multiple of ROWS.
        """
        own = copy(self)
        own._chosen = slots
        own._layers = [(w[seeds], b[seeds]) for w, b in self._layers]
        own._extra, own._normal = self._extra[seeds], self._normal[seeds]
        own._own = self._own[seeds]
        own._room()
        own.restart()
        return own

    def _room(self) -> None:
        """For the rows of a step, ROWS at a time."""
        count = self._chosen.stop - self._chosen.start
        blocks = len(self._own), -(-count // ROWS), ROWS
        self._seen = np.zeros((*blocks, self._net.sizes[0]), np.float32)
        self._buffers = [np.empty((*blocks, n), np.float32) for n in self._net.sizes[1:]]

    def restart(self) -> None:
        """Go back to the first step of the iteration, and its noise."""
        streams = [generator(seed, i, Purpose.ACTION) for seed, i in self._own]
        self._rngs, self._noise, self._step = streams, np.empty(0), self.BLOCK

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """Actions [S, K, ...] for obs [S, K, D] float32; each call advances the noise by a step."""
        if self._step == self.BLOCK:
            self._noise, self._step = self.noise(), 0
        activation = ACTIVATIONS[self._net.activation].numpy
        s, k, _ = obs.shape
        self._seen.reshape(s, -1, self._net.sizes[0])[:, :k] = self._normalized(obs)
        x = self._seen
        for i, ((weight, bias), out) in enumerate(zip(self._layers, self._buffers, strict=True)):
            if i:
                activation(x, out=x)
            x = np.matmul(x, weight[:, None], out=out)
            x += bias[:, None]
        x = x.reshape(s, -1, x.shape[-1])[:, :k]
        extra = self._extra
        if self._behaviour is not None:
            x, extra = self._changed(x, extra, self._behaviour)
        act = self._head.sample(x, extra, self._noise[self._step])
        self._step += 1
        return act

    def noise(self) -> np.ndarray:
        """The noise of the next BLOCK steps, float32 [BLOCK, S, K, ·]."""
        of_seeds = (self._head.noise(r, self.BLOCK, self._slots) for r in self._rngs)
        return np.stack([noise[:, self._chosen] for noise in of_seeds], axis=1)

    def emitted(self, act: np.ndarray) -> np.ndarray:
        """What the environment is told for actions [E, ...]: see `heads.Gaussian`."""
        return self._head.emitted(act)

    def network(self) -> PlainNetwork | None:
        """The same policy as plain arrays; None where its head or behaviour is of another kind."""
        head = self._head
        if self._behaviour is not None or not isinstance(head, (Categorical, Gaussian)):
            return None
        if isinstance(head, Gaussian) and (head.squashed or head.state_std):
            return None
        flat = [x.reshape(len(x), -1) for layer in self._layers for x in layer]
        return PlainNetwork(
            np.array(self._net.sizes),
            np.ascontiguousarray(np.concatenate(flat, axis=1)),
            self._net.activation,
            head.spread(self._extra) if isinstance(head, Gaussian) else self._extra,
            np.ascontiguousarray(self._normal),
            self._clip,
        )

    def _normalized(self, obs: np.ndarray) -> np.ndarray:
        """See `Policy.inputs`."""
        if not self._normal.size:
            return obs
        x = obs - self._normal[:, None, 0]
        x *= self._normal[:, None, 1]
        return x.clip(-self._clip, self._clip, out=x)

    def _changed(
        self, out: np.ndarray, extra: np.ndarray, by: BehaviourConfig
    ) -> tuple[np.ndarray, np.ndarray]:
        tensors = torch.from_numpy(out), torch.from_numpy(extra)
        out_, extra_ = self._head.behaviour(*tensors, by.temperature, by.epsilon)
        return out_.numpy(), extra_.numpy()


class GreedyActor(PolicyActor):
    """The same without noise: the likeliest action, always."""

    def noise(self) -> np.ndarray:
        """Nothing, in the shape of the noise."""
        return np.zeros_like(super().noise())


ACTORS: dict[Acting, type[PolicyActor]] = {
    Acting.greedy: GreedyActor,
    Acting.sampled: PolicyActor,
}
