"""The objective around the parameters of an estimate: surrogate and divergence."""

from __future__ import annotations

import torch
from torch import Tensor

from pgcli.collection.batch import Batch
from pgcli.gradients.trajectory import log_probs
from pgcli.machine.cores import ordered
from pgcli.policies.policy import Policy
from pgcli.settings.schema import BehaviourConfig

KL_STEPS = 1024  # steps over which a divergence that is only logged is averaged


class Batched:
    """See `updates.rule.Around`: of one batch, estimated at theta [S, P]."""

    def __init__(self, policy: Policy, theta: Tensor, batch: Batch, weights: Tensor | None) -> None:
        """weights [S, N, T]: those of the scores whose mean is ĝ; None: there are none."""
        self._policy, self._theta, self._batch = policy, theta, batch
        self._weights = weights

    def surrogate(self, theta: Tensor) -> Tensor:
        """L(θ') [S] float64 (Schulman et al. 2015, equation 14, less its value at θ)."""
        if self._weights is None:
            raise ValueError("no weights of single steps make this estimate")
        log_ratio = log_probs(self._policy, theta, self._batch)
        log_ratio = log_ratio - log_probs(self._policy, self._theta, self._batch)
        gain = (torch.expm1(log_ratio) * self._weights).sum((1, 2))
        return gain / self._batch.episodes

    def divergence(self, theta: Tensor) -> Tensor:
        """D(θ') [S] float64, over every state of the batch."""
        every = int(self._batch.steps.max())
        return mean_kl(self._policy, self._theta, theta, self._batch, steps=every)


def mean_kl(
    policy: Policy,
    p: Tensor,
    q: Tensor,
    batch: Batch,
    changed: BehaviourConfig | None = None,
    steps: int = KL_STEPS,
) -> Tensor:
    """KL(π_p‖π_q) in nats per state, over at most so many real steps, evenly spread, [S].

    `changed`: of the behaviour made from π_p instead.
    """
    count, ends = batch.steps.unsqueeze(1), batch.length.cumsum(1)
    most = count.clamp(max=steps)  # [S, 1]
    i = torch.arange(int(most.max()), device=ends.device)
    chosen = (i * count // most).minimum(count - 1)  # [S, i]
    episode = torch.searchsorted(ends, chosen, right=True)
    step = chosen - (ends - batch.length).gather(1, episode)
    seed = torch.arange(len(ends), device=ends.device).unsqueeze(1)
    pieces = batch.obs[seed, episode, step].split(KL_STEPS // 2, 1)
    kl = torch.cat(list(ordered(lambda obs: policy.kl(p, q, obs, changed), pieces)), 1)
    return (kl * (i < most)).sum(1) / most.squeeze(1)
