"""Critics, S side by side: networks for V(s), V(s, t) or Q(s, a), and a linear V in closed form.

To a critic an observation is its inputs; for Q they hold the action as well, as features or as the
weights of the network's outputs.
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
from pgcli.policies.fused import fitted, outputs
from pgcli.policies.network import Mlp
from pgcli.settings.schema import CriticConfig
from pgcli.updates.optimizers import adam, part

ROWS = 8192  # per forward pass, of all seeds
WINDOW = 2048  # targets, at least, that mean and std are of, once there have been as many
LEAST = 1e-3  # of std
SEEN, ALONE = "seen", -1.0  # how a checkpoint calls it; what earlier versions did

Work = Callable[[], None]


def times(mask: Tensor, age: Tensor | None) -> Tensor:
    """t of every step of mask [..., T]; age [...]: that of the first, None: 0."""
    step = torch.arange(mask.shape[-1], device=mask.device).expand(mask.shape)
    return step if age is None else step + age.unsqueeze(-1)


class Critic:
    """V(s) = mean + std · net(s), where mean and std follow the targets.

    Returns can be far from unit scale; the network sees standardised targets, and when the scale
    moves, the last layer is adjusted so that V does not (PopArt: van Hasselt et al. 2016). Mean and
    std move as slowly as WINDOW targets do: a batch of few, much alike, would throw the last layer
    from one size to another.
    """

    GAIN = 1.0  # of the last layer's initialisation
    PACE = 1.0  # its learning rate, in those of the setting
    PLAIN = True  # its one output is what is fitted, so that compiled code can do it

    def __init__(
        self,
        config: CriticConfig,
        num_inputs: int,
        horizon: int,
        seeds: Sequence[int],
        device: torch.device,
        init: Purpose = Purpose.CRITIC_INIT,
        fit: Purpose = Purpose.CRITIC_FIT,
        num_outputs: int = 1,
    ) -> None:
        inputs = num_inputs + config.time_input
        self.net = Mlp((inputs, *config.hidden, num_outputs), config.activation.name)
        rngs = [generator(seed, 0, init) for seed in seeds]
        self.theta = self.net.init(rngs, self.GAIN).to(device)
        self._optimizer = adam()
        self._remembered = self._optimizer.init(self.theta)
        self.mean = torch.zeros(len(seeds), device=device)
        self.std = torch.ones(len(seeds), device=device)
        # Targets, up to WINDOW; below 0 (ALONE): mean and std are those of the newest batch.
        self.seen = torch.zeros(len(seeds), device=device)
        self._config, self._horizon, self._seeds, self._stream = config, horizon, seeds, fit
        # Of no row: compiled code is there before anybody's clock runs.
        none = torch.zeros(0, 0, dtype=torch.bool, device=device)
        width = num_inputs + (0 if self.PLAIN else num_outputs)
        rows = self.theta.new_zeros(len(seeds), 0, width)
        self._fit(0, rows[:0], none, none.double(), np.random.default_rng(0))
        self.after(rows, torch.zeros(len(seeds), 0, device=device))

    def state(self) -> dict[str, Tensor]:
        """The tensors that a fit changes; live, not copies."""
        remembered = {f"optimizer/{key}": x for key, x in self._remembered.items()}
        scale = {"mean": self.mean, "std": self.std, SEEN: self.seen}
        return {"theta": self.theta, **scale, **remembered}

    def along(self, obs: Tensor, mask: Tensor, age: Tensor | None = None) -> Tensor:
        """V(s_t) [S, N, T] for obs [S, N, T, D], zero where the mask is not set.

        age [S, N]: the time of the first; None: 0.
        """
        x = self._with_time(obs, times(mask, age)).flatten(1, 2)
        return self._evaluate(x).reshape(mask.shape) * mask

    def after(self, final_obs: Tensor, length: Tensor) -> Tensor:
        """V(final_obs) [S, N] for final_obs [S, N, D], reached at time length [S, N]."""
        return self._evaluate(self._with_time(final_obs, length))

    def fits(
        self,
        obs: Tensor,
        mask: Tensor,
        target: Tensor,
        iteration: ArrayLike,
        age: Tensor | None = None,
    ) -> list[Work]:
        """To regress V on targets [S, N, T] at the real steps: what is to be done, seed by seed.

        A seed's minibatches are drawn from its own stream, in its own iteration (one of all seeds,
        or [S]), and from its own steps.
        """
        own = zip(self._seeds, per_seed(iteration, len(self._seeds)), strict=True)
        return [
            partial(
                self._fit,
                s,
                obs[s],
                mask[s],
                target[s],
                generator(seed, i, self._stream),
                None if age is None else age[s],
            )
            for s, (seed, i) in enumerate(own)
        ]

    def scale(self, by: Tensor) -> None:
        """Tell V times `by` [S] from now on, exactly."""
        self.mean *= by.to(self.mean)
        self.std *= by.to(self.std)

    def _fit(
        self, s: int, obs: Tensor, mask: Tensor, target: Tensor, rng: np.random.Generator,
        age: Tensor | None = None,
    ) -> None:  # fmt: skip
        """Of seed s, from obs [N, T, D], mask and target [N, T]."""
        own = slice(s, s + 1)
        theta, remembered = self.theta[own], part(self._remembered, own)
        x = self._with_time(obs[mask], times(mask, age)[mask]).unsqueeze(0)  # [1, M, ·]
        y = target[mask].to(obs.dtype).unsqueeze(0)
        self._rescale(own, y)
        y = (y - self.mean[own]) / self.std[own]
        clip = self._config.clip
        rows = (x, y) if clip is None else (x, y, self._outputs(theta, x))
        rate, count = self._config.lr * self.PACE, self._config.minibatches
        compiled = None
        if self.PLAIN and (clip is None or self._config.epochs * count == 1):  # it cuts nothing
            given = self._optimizer, remembered, rate
            compiled = fitted(self.net, theta[0], x[0], y[0], count, *given)
        for _ in range(self._config.epochs):
            drawn = rng.permutation(y.shape[1])
            if compiled is not None:  # the same
                compiled(drawn)
                continue
            order = torch.from_numpy(drawn).to(y.device)
            parts = (z[:, order].tensor_split(count, 1) for z in rows)
            for x_part, y_part, *old in zip(*parts, strict=True):
                if y_part.numel():
                    gradient = self._gradient(theta, x_part, y_part, old[0] if old else None)
                    self._optimizer.update(theta, gradient, remembered, rate)

    def _gradient(self, theta: Tensor, x: Tensor, y: Tensor, old: Tensor | None) -> Tensor:
        """Of the mean square error of outputs at x [1, m, ·] against y [1, m], by theta [1, P].

        Beside `old` outputs, of the larger one of two errors: that of the output, and that of the
        output cut to old ± clip (PPO2's value clipping; Engstrom et al. 2020, equation 5).
        """
        inputs, weights = self._read(x)
        trace = self.net.trace(theta, inputs)
        error = self._summed(trace.out, weights) - y
        if old is not None:
            assert self._config.clip is not None
            cut = old + (error + y - old).clamp(-self._config.clip, self._config.clip)
            error = torch.where((cut - y).abs() > error.abs(), 0.0, error)  # it is constant there
        delta = (2.0 * error / y.numel()).unsqueeze(-1)
        return self.net.gradient(theta, trace, delta if weights is None else delta * weights)

    def _outputs(self, theta: Tensor, x: Tensor) -> Tensor:
        """The standardised output [S, M] at x [S, M, ·]."""

        def part(rows: Tensor) -> Tensor:
            inputs, weights = self._read(rows)
            out = outputs(self.net, theta, inputs)
            if out is None:
                out = self.net.trace(theta, inputs).out
            return self._summed(out, weights)

        return torch.cat(list(ordered(part, x.split(max(1, ROWS // len(x)), 1))), 1)

    def _read(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Of rows x, what the network sees and the weights [S, M, o] of its outputs; None: 1."""
        return x, None

    @staticmethod
    def _summed(out: Tensor, weights: Tensor | None) -> Tensor:
        return out.squeeze(-1) if weights is None else (out * weights).sum(-1)

    def _evaluate(self, x: Tensor) -> Tensor:
        return self._outputs(self.theta, x) * self.std[:, None] + self.mean[:, None]

    def _with_time(self, obs: Tensor, step: Tensor) -> Tensor:
        if not self._config.time_input:
            return obs
        return torch.cat([obs, (step / self._horizon).unsqueeze(-1).to(obs.dtype)], -1)

    def _rescale(self, own: slice, y: Tensor) -> None:
        """Let mean and std of the seed `own` follow the targets y [1, M], leaving V as it is."""
        if not y.numel():
            return
        mean, std = self._scale(own, y, self._share(own, y))
        std = std.clamp(min=LEAST)
        weight, bias = self.net.unpack(self.theta[own])[-1]
        weight *= self.std[own] / std
        bias *= self.std[own] / std
        bias += (self.mean[own] - mean) / std
        self.mean[own] = mean
        self.std[own] = std

    def _scale(self, own: slice, y: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and std [1] each, of targets among which y [1, M] has this share."""
        apart = y.mean(1) - self.mean[own]
        variance = torch.lerp(self.std[own].square(), y.var(1, correction=0), share)
        variance += share * (1 - share) * apart.square()
        # Those of a whole batch to the last bit: the root of a rounded variance is not.
        std = torch.where(share == 1, y.std(1, correction=0), variance.sqrt())
        return torch.lerp(self.mean[own], y.mean(1), share), std

    def _share(self, own: slice, y: Tensor) -> Tensor:
        """Of targets y [1, M] in mean and std, [1]: all of the first ones; y counts as seen."""
        seen, count = self.seen[own].clone(), y.shape[1]
        share = count / (seen + count).clamp(max=max(WINDOW, count))
        self.seen[own] = torch.where(seen < 0, seen, (seen + count).clamp(max=WINDOW))
        return torch.where(seen < 0, 1.0, share).to(y)


class ActionCritic(Critic):
    """Σ_a w_a f_a(s), one output f_a per action: Q(s, a) by one weight, V(s) by those of π.

    Rows are the weights w, whose sum is 1, then the observation.
    """

    PLAIN = False

    def __init__(
        self,
        config: CriticConfig,
        num_inputs: int,
        num_actions: int,
        horizon: int,
        seeds: Sequence[int],
        device: torch.device,
    ) -> None:
        own = Purpose.Q_INIT, Purpose.Q_FIT, num_actions
        super().__init__(config, num_inputs, horizon, seeds, device, *own)

    def _read(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        actions = self.net.sizes[-1]
        return x[..., actions:], x[..., :actions]


class AdvantageCritic(ActionCritic):
    """A(s, a) − Σ_b π(b|s) A(s, b), to be added to V(s): the dueling form (Wang et al. 2016).

    Rows are the weights of one action less those of π, whose sum is 0, then the observation. The
    network is its own and is fitted to what V leaves, on that scale: beside V, from the same
    features and at the same rate, so small a signal drowned. It starts at 0.
    """

    GAIN = 0.0
    PACE = 0.1

    def _scale(self, own: slice, y: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """The mean square alone: a mean would not be 0 under π."""
        square = torch.lerp(self.std[own].square(), y.square().mean(1), share)
        return self.mean[own].clone(), square.sqrt()


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

    def along(self, obs: Tensor, mask: Tensor, age: Tensor | None = None) -> Tensor:
        """V(s_t) [S, N, T], zero where the mask is not set; age [S, N]: the time of the first."""
        return self._evaluate(obs, times(mask, age)) * mask

    def after(self, final_obs: Tensor, length: Tensor) -> Tensor:
        """V(final_obs) [S, N], reached at time length [S, N]."""
        return self._evaluate(final_obs, length)

    def fits(
        self,
        obs: Tensor,
        mask: Tensor,
        target: Tensor,
        iteration: ArrayLike,
        age: Tensor | None = None,
    ) -> list[Work]:
        """Least squares of the targets [S, N, T] at the real steps: what is to be done."""
        return [partial(self._fit, obs, mask, target, age)]

    def scale(self, by: Tensor) -> None:
        """Tell V times `by` [S] from now on, exactly."""
        self.weight *= by.unsqueeze(-1)

    def _fit(self, obs: Tensor, mask: Tensor, target: Tensor, age: Tensor | None) -> None:
        x = (self._features(obs, times(mask, age)) * mask.unsqueeze(-1)).flatten(1, 2)  # [S, M, F]
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
