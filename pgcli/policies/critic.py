"""Critics, S side by side: networks for V(s), V(s, t) or Q(s, a), and a linear V in closed form.

To a critic an observation is its inputs; for Q they hold the action's features as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from pgcli.machine.cores import ordered
from pgcli.machine.randomness import Purpose, generator, per_seed
from pgcli.policies.fused import fitted
from pgcli.policies.network import Mlp
from pgcli.settings.schema import CriticConfig
from pgcli.updates.optimizers import adam, part

ROWS = 8192  # per forward pass, of all seeds

Work = Callable[[], None]


class Critic:
    """V(s) = mean + std · net(s), where mean and std follow the targets.

    Returns can be far from unit scale; the network sees standardised targets, and when the scale
    moves, the last layer is adjusted so that V does not (PopArt: van Hasselt et al. 2016).
    """

    def __init__(
        self,
        config: CriticConfig,
        num_inputs: int,
        horizon: int,
        seeds: Sequence[int],
        device: torch.device,
        init: Purpose = Purpose.CRITIC_INIT,
        fit: Purpose = Purpose.CRITIC_FIT,
    ) -> None:
        inputs = num_inputs + config.time_input
        self.net = Mlp((inputs, *config.hidden, 1), config.activation.name)
        rngs = [generator(seed, 0, init) for seed in seeds]
        self.theta = self.net.init(rngs, 1.0).to(device)
        self._optimizer = adam()
        self._remembered = self._optimizer.init(self.theta)
        self.mean = torch.zeros(len(seeds), device=device)
        self.std = torch.ones(len(seeds), device=device)
        self._config, self._horizon, self._seeds, self._stream = config, horizon, seeds, fit
        # A fit of no row: what is compiled is loaded, or made, before anybody's clock runs.
        none = torch.zeros(0, 0, dtype=torch.bool, device=device)
        obs = torch.zeros(0, 0, num_inputs, device=device)
        self._fit(0, obs, none, none.double(), np.random.default_rng(0))

    def state(self) -> dict[str, Tensor]:
        """The tensors that a fit changes; live, not copies."""
        remembered = {f"optimizer/{key}": x for key, x in self._remembered.items()}
        return {"theta": self.theta, "mean": self.mean, "std": self.std, **remembered}

    def along(self, obs: Tensor, mask: Tensor) -> Tensor:
        """V(s_t) [S, N, T] for obs [S, N, T, D], zero where the mask is not set."""
        step = torch.arange(obs.shape[2], device=obs.device).expand(mask.shape)
        x = self._with_time(obs, step).flatten(1, 2)
        return self._evaluate(x).reshape(mask.shape) * mask

    def after(self, final_obs: Tensor, length: Tensor) -> Tensor:
        """V(final_obs) [S, N] for final_obs [S, N, D], reached at time length [S, N]."""
        return self._evaluate(self._with_time(final_obs, length))

    def fits(self, obs: Tensor, mask: Tensor, target: Tensor, iteration: ArrayLike) -> list[Work]:
        """To regress V on targets [S, N, T] at the real steps: what is to be done, seed by seed.

        A seed's minibatches are drawn from its own stream, in its own iteration (one of all seeds,
        or [S]), and from its own steps.
        """
        own = zip(self._seeds, per_seed(iteration, len(self._seeds)), strict=True)
        return [
            partial(self._fit, s, obs[s], mask[s], target[s], generator(seed, i, self._stream))
            for s, (seed, i) in enumerate(own)
        ]

    def _fit(
        self, s: int, obs: Tensor, mask: Tensor, target: Tensor, rng: np.random.Generator
    ) -> None:
        """Of seed s, from obs [N, T, D], mask and target [N, T]."""
        own = slice(s, s + 1)
        theta, remembered = self.theta[own], part(self._remembered, own)
        x = self._with_time(obs[mask], mask.nonzero()[:, 1]).unsqueeze(0)  # [1, M, ·]
        y = target[mask].to(obs.dtype).unsqueeze(0)
        self._rescale(own, y)
        y = (y - self.mean[own]) / self.std[own]
        lr, count = self._config.lr, self._config.minibatches
        compiled = fitted(self.net, theta[0], x[0], y[0], count, self._optimizer, remembered, lr)
        for _ in range(self._config.epochs):
            order = rng.permutation(y.shape[1])
            if compiled is not None:  # the same
                compiled(order)
                continue
            rows = torch.from_numpy(order).to(y.device)
            parts = (z[:, rows].tensor_split(count, 1) for z in (x, y))
            for x_part, y_part in zip(*parts, strict=True):
                if y_part.numel():
                    trace = self.net.trace(theta, x_part)
                    error = trace.out - y_part.unsqueeze(-1)
                    delta = 2.0 * error / y_part.numel()  # of the mean square
                    gradient = self.net.gradient(theta, trace, delta)
                    self._optimizer.update(theta, gradient, remembered, lr)

    def _evaluate(self, x: Tensor) -> Tensor:
        parts = ordered(
            lambda part: self.net.trace(self.theta, part).out, x.split(max(1, ROWS // len(x)), 1)
        )
        return torch.cat(list(parts), 1).squeeze(-1) * self.std[:, None] + self.mean[:, None]

    def _with_time(self, obs: Tensor, step: Tensor) -> Tensor:
        if not self._config.time_input:
            return obs
        return torch.cat([obs, (step / self._horizon).unsqueeze(-1).to(obs.dtype)], -1)

    def _rescale(self, own: slice, y: Tensor) -> None:
        """Let mean and std of the seed `own` follow the targets y [1, M], leaving V as it is."""
        if not y.numel():
            return
        mean = y.mean(1)
        std = y.std(1, correction=0).clamp(min=1e-3)
        weight, bias = self.net.unpack(self.theta[own])[-1]
        weight *= self.std[own] / std
        bias *= self.std[own] / std
        bias += (self.mean[own] - mean) / std
        self.mean[own] = mean
        self.std[own] = std


class LinearCritic:
    """V linear in (o, o², u, u², u³, 1) with u = t/T, by ridge regression (Duan et al. 2016)."""

    RIDGE = 1e-5  # of each feature, relative to its own mean square: no unit matters

    def __init__(
        self,
        obs_dim: int,
        horizon: int,
        seeds: int,
        device: torch.device,
        time_input: bool = True,
    ) -> None:
        features = 2 * obs_dim + (4 if time_input else 1)
        self.weight = torch.zeros(seeds, features, dtype=torch.float64, device=device)
        self._horizon, self._time_input = horizon, time_input

    def state(self) -> dict[str, Tensor]:
        """The tensors that a fit changes; live, not copies."""
        return {"weight": self.weight}

    def along(self, obs: Tensor, mask: Tensor) -> Tensor:
        """V(s_t) [S, N, T], zero where the mask is not set."""
        time = torch.arange(obs.shape[2], device=obs.device).expand(mask.shape)
        return self._evaluate(obs, time) * mask

    def after(self, final_obs: Tensor, length: Tensor) -> Tensor:
        """V(final_obs) [S, N], reached at time length [S, N]."""
        return self._evaluate(final_obs, length)

    def fits(self, obs: Tensor, mask: Tensor, target: Tensor, iteration: ArrayLike) -> list[Work]:
        """Least squares of the targets [S, N, T] at the real steps: what is to be done."""
        return [partial(self._fit, obs, mask, target)]

    def _fit(self, obs: Tensor, mask: Tensor, target: Tensor) -> None:
        time = torch.arange(obs.shape[2], device=obs.device).expand(mask.shape)
        x = (self._features(obs, time) * mask.unsqueeze(-1)).flatten(1, 2)  # [S, M, F]
        gram = x.mT @ x
        square = gram.diagonal(dim1=1, dim2=2)
        ridge = torch.diag_embed(self.RIDGE * square + (square == 0))  # a feature that is always 0
        y = (target * mask).flatten(1).to(x.dtype).unsqueeze(-1)
        self.weight.copy_(torch.linalg.solve(gram + ridge, x.mT @ y).squeeze(-1))

    def _features(self, obs: Tensor, time: Tensor) -> Tensor:
        o, u = obs.double(), (time / self._horizon).double().unsqueeze(-1)
        timed = [u, u.square(), u**3] if self._time_input else []
        return torch.cat([o, o.square(), *timed, torch.ones_like(u)], -1)

    def _evaluate(self, obs: Tensor, time: Tensor) -> Tensor:
        weight = self.weight.reshape(len(self.weight), *(1,) * (obs.ndim - 2), -1)
        return (self._features(obs, time) * weight).sum(-1).to(obs.dtype)
