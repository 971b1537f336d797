"""Critics, S side by side: networks for V(s), V(s, t) or Q(s, a), and a linear V in closed form.

To a critic an observation is its inputs; for Q they hold the action's features as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from pgcli.agents.network import Mlp
from pgcli.agents.optimizers import Optimizer
from pgcli.config.schema import CriticConfig, OptimizerName
from pgcli.streams import Purpose, generator

ROWS = 8192  # rows per forward pass


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
        self.optimizer = Optimizer(OptimizerName["adam"], self.theta)
        self.mean = torch.zeros(len(seeds), device=device)
        self.std = torch.ones(len(seeds), device=device)
        self._config, self._horizon, self._seeds, self._fit_stream = config, horizon, seeds, fit

    def state(self) -> dict[str, Tensor]:
        """The tensors that a fit changes; live, not copies."""
        remembered = {f"optimizer/{key}": x for key, x in self.optimizer.state.items()}
        return {"theta": self.theta, "mean": self.mean, "std": self.std, **remembered}

    def along(self, obs: Tensor, mask: Tensor) -> Tensor:
        """V(s_t) [S, N, T] for obs [S, N, T, D], zero where the mask is not set."""
        rows, valid = packed(mask)
        value = torch.zeros_like(obs[..., 0])
        value[mask] = self._evaluate(self._inputs(obs, rows))[valid]
        return value

    def after(self, final_obs: Tensor, length: Tensor) -> Tensor:
        """V(final_obs) [S, N] for final_obs [S, N, D], reached at time length [S, N]."""
        return self._evaluate(self._with_time(final_obs, length))

    def fit(self, obs: Tensor, mask: Tensor, target: Tensor, iteration: int) -> None:
        """Regress V on targets [S, N, T] at the real steps.

        Minibatches are drawn per seed from its own stream and its own steps, so a seed fits as it
        would alone.
        """
        rows, valid = packed(mask)
        x, y = self._inputs(obs, rows), target.flatten(1).gather(1, rows).to(obs.dtype)
        self._rescale(y, valid.to(y.dtype))
        y = (y - self.mean[:, None]) / self.std[:, None]
        seed = torch.arange(len(y), device=y.device).unsqueeze(1)
        for index, real in self._minibatches(valid.sum(1).tolist(), iteration):
            trace = self.net.trace(self.theta, x[seed, index])
            error = (trace.out.squeeze(-1) - y[seed, index]) * real
            mean_square = 2.0 * error / real.sum(1, keepdim=True).clamp(min=1)  # its derivative
            gradient = self.net.gradient(self.theta, trace, mean_square.unsqueeze(-1))
            self.optimizer.step(gradient, self._config.lr)

    def _evaluate(self, x: Tensor) -> Tensor:
        out = torch.cat([self.net.forward(self.theta, c) for c in x.split(ROWS, 1)], 1)
        return out.squeeze(-1) * self.std[:, None] + self.mean[:, None]

    def _inputs(self, obs: Tensor, rows: Tensor) -> Tensor:
        """Network inputs [S, M, ·] of the steps `rows` [S, M] of obs [S, N, T, D]."""
        seed = torch.arange(len(rows), device=rows.device).unsqueeze(1)
        return self._with_time(obs.flatten(1, 2)[seed, rows], rows % obs.shape[2])

    def _with_time(self, obs: Tensor, step: Tensor) -> Tensor:
        if not self._config.time_input:
            return obs
        return torch.cat([obs, (step / self._horizon).unsqueeze(-1).to(obs.dtype)], -1)

    def _rescale(self, y: Tensor, real: Tensor) -> None:
        """Let mean and std [S] follow the targets y [S, M], leaving V as it is."""
        count = real.sum(1).clamp(min=1)
        mean = (y * real).sum(1) / count
        centred = (y - mean[:, None]) * real
        std = (centred.square().sum(1) / count).sqrt().clamp(min=1e-3)
        weight, bias = self.net.unpack(self.theta)[-1]
        weight *= (self.std / std)[:, None, None]
        bias *= (self.std / std)[:, None, None]
        bias += ((self.mean - mean) / std)[:, None, None]
        self.mean.copy_(mean)
        self.std.copy_(std)

    def _minibatches(self, counts: list[int], iteration: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(index [S, B], real [S, B]): each seed's steps shuffled and cut into equal parts."""
        rngs = [generator(seed, iteration, self._fit_stream) for seed in self._seeds]
        for _ in range(self._config.epochs):
            parts = [
                np.array_split(rng.permutation(count), self._config.minibatches)
                for rng, count in zip(rngs, counts, strict=True)
            ]
            for part in zip(*parts, strict=True):
                size = max(len(p) for p in part)
                if size:
                    index = np.stack([np.pad(p, (0, size - len(p))) for p in part])
                    real = np.stack([np.arange(size) < len(p) for p in part])
                    yield (
                        torch.from_numpy(index).to(self.theta.device),
                        torch.from_numpy(real).to(self.theta),
                    )


def packed(mask: Tensor) -> tuple[Tensor, Tensor]:
    """The real steps of each seed, first to last: rows [S, M] into N·T, and which are valid."""
    flat = mask.flatten(1)
    count = flat.sum(1)
    valid = torch.arange(int(count.max()), device=mask.device) < count.unsqueeze(1)
    rows = torch.zeros_like(valid, dtype=torch.int64)
    rows[valid] = flat.nonzero()[:, 1]
    return rows, valid


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

    def fit(self, obs: Tensor, mask: Tensor, target: Tensor, iteration: int) -> None:
        """Least squares of the targets [S, N, T] at the real steps."""
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
