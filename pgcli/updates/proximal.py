"""PPO: several passes over a batch by a clipped surrogate (Schulman et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from pgcli.settings.schema import Minibatch, UpdateConfig
from pgcli.updates.ascent import Ascent
from pgcli.updates.natural import cosine
from pgcli.updates.rule import Around, Minibatches, Start, register


def notes(config: UpdateConfig) -> list[str]:
    """What its steps are, beside the estimate that is measured."""
    lines = [
        "update=proximal: after the first its steps go up a surrogate on old states, with old "
        "values and clipped ratios, the gradient of no objective; what is measured is ĝ before them"
    ]
    if config.normalize:
        lines.append("update.normalize: the weights of each minibatch are over its own deviation")
    return lines


@register("proximal", surrogate=True, optimizer=True, notes=notes)
class Proximal:
    """Steps of the optimiser up the clipped surrogate, minibatch by minibatch; see `rule.Rule`."""

    def __init__(
        self,
        start: Start,
        *,
        epochs: int,
        minibatches: int,
        minibatch_of: Minibatch,
        clip: float,
        normalize: bool = False,
        target_kl: float | None = None,
    ) -> None:
        self._ascent = Ascent(start)
        self._epochs, self._minibatches, self._clip = epochs, minibatches, clip
        self._of_steps, self._normalize = minibatch_of is Minibatch.steps, normalize
        self._target = target_kl

    def step(
        self, theta: Tensor, estimate: Tensor, progress: ArrayLike, around: Around
    ) -> Mapping[str, Tensor]:
        """`epochs` passes; a seed whose D(θ') is beyond the target begins none."""
        old, spent = theta.clone(), np.broadcast_to(progress, len(theta))
        rates = self._ascent.rates(spent)
        running = torch.ones(len(theta), dtype=torch.bool, device=theta.device)
        passes = torch.zeros(len(theta), dtype=torch.int64, device=theta.device)
        clipped = torch.zeros(len(theta), dtype=torch.float64, device=theta.device)
        for epoch in range(self._epochs):
            if epoch and self._target is not None:
                running = running & (around.divergence(theta) <= self._target)
            if not running.any():
                break
            passes += running
            minibatches = around.minibatches(
                self._minibatches,
                of_steps=self._of_steps,
                normalize=self._normalize,
                among=running.tolist(),
            )
            beyond = self._pass(theta, minibatches, rates, around)
            rows = torch.from_numpy(minibatches.sizes.sum(0)).to(theta.device)
            clipped = torch.where(running, beyond.double() / rows.clamp(min=1), clipped)
        step = (theta - old).double()
        return {
            "step_norm": step.norm(dim=1),
            "surrogate_gain": around.surrogate(theta),
            "cos_step_gradient": cosine(step, estimate),
            "clip_fraction": clipped,  # of the last pass
            "epochs": passes,
        }

    def _pass(
        self, theta: Tensor, minibatches: Minibatches, rates: Sequence[float], around: Around
    ) -> Tensor:
        """A step on each minibatch in turn; how many ratios of each seed were clipped [S]."""
        adam = self._ascent.adam(rates)
        if adam is not None:
            count = around.climbed(theta, minibatches, self._clip, adam)
            if count is not None:
                return count
        count = torch.zeros(len(theta), dtype=torch.int64, device=theta.device)
        for minibatch in minibatches.each():
            found = around.clipped(theta, minibatch, self._clip)
            self._ascent.move(theta, found.gradient, rates, minibatch.seeds)
            count += found.beyond
        return count

    def state(self) -> Mapping[str, Tensor]:
        """What the optimiser remembers."""
        return self._ascent.state()
