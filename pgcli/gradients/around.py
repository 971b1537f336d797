"""The objective around the parameters of an estimate: what update rules may ask of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pgcli.collection.batch import Batch
from pgcli.estimators.estimator import standardized
from pgcli.gradients.fisher import Fisher
from pgcli.gradients.trajectory import CHUNK_STEPS, entropy_gradient_of, log_probs
from pgcli.machine.cores import ordered
from pgcli.machine.randomness import Purpose, generator
from pgcli.policies.policy import Policy
from pgcli.settings.schema import BehaviourConfig
from pgcli.updates.rule import Clipped, Product

KL_STEPS = 1024  # steps over which a divergence that is only logged is averaged


class Batched:
    """See `updates.rule.Around`: of one batch, estimated at theta [S, P]."""

    def __init__(
        self,
        policy: Policy,
        theta: Tensor,
        batch: Batch,
        weights: Tensor | None,
        seeds: Sequence[int] = (),
        done: Sequence[int] | np.ndarray = (),
        entropy_coef: float = 0.0,
    ) -> None:
        """weights [S, N, T]: those of the scores whose mean is ĝ; None: there are none.

        Minibatches are drawn from the streams of `seeds` in the iterations after `done`; their
        gradients hold the entropy of the policy as well, by its coefficient.
        """
        self._policy, self._theta, self._batch = policy, theta, batch
        self._weights, self._coef = weights, entropy_coef
        self._streams = list(zip(seeds, done, strict=True))

    @cached_property
    def _rngs(self) -> list[np.random.Generator]:
        return [generator(seed, int(i), Purpose.MINIBATCH) for seed, i in self._streams]

    @property
    def has_surrogate(self) -> bool:
        """Whether weights of single steps make the estimate."""
        return self._weights is not None

    @cached_property
    def length(self) -> Tensor:
        """Steps per episode [S] float64."""
        return self._batch.steps.double() / self._batch.episodes

    def surrogate(self, theta: Tensor) -> Tensor:
        """L(θ') [S] float64 (Schulman et al. 2015, equation 14, less its value at θ).

        With an entropy bonus, its part of the objective too.
        """
        log_ratio = log_probs(self._policy, theta, self._batch) - self._log_probs
        gain = (torch.expm1(log_ratio) * self._given_weights).sum((1, 2)) / self._batch.episodes
        if self._coef:
            gain = gain + self._coef * (self._entropy(theta) - self._entropy(self._theta))
        return gain

    def divergence(self, theta: Tensor) -> Tensor:
        """D(θ') [S] float64, over every state of the batch."""
        every = int(self._batch.steps.max())
        return mean_kl(self._policy, self._theta, theta, self._batch, steps=every)

    def fisher(self, *, sampled: bool) -> Product:
        """v ↦ F v at θ."""
        return Fisher(self._policy, self._theta, self._batch, sampled=sampled).product

    def minibatches(self, count: int, *, of_steps: bool) -> list[Tensor]:
        """One pass: every row [S, m] of the batch in one of them; −1 where a seed has no more."""
        length = self._batch.length.cpu().numpy()
        if count == 1:  # in their own order: the same calls for old and new probabilities
            drawn = [[np.flatnonzero(mask)] for mask in self._batch.mask.cpu().numpy()]
        elif of_steps:
            drawn = [
                np.array_split(rng.permutation(np.flatnonzero(mask)), count)
                for rng, mask in zip(self._rngs, self._batch.mask.cpu().numpy(), strict=True)
            ]
        else:
            drawn = [
                [self._rows_of(each, own) for each in np.array_split(rng.permutation(whole), count)]
                for rng, own in zip(self._rngs, length, strict=True)
                for whole in [np.flatnonzero(own)]
            ]
        tables = [_padded(parts).to(self._theta.device) for parts in zip(*drawn, strict=True)]
        return [rows for rows in tables if rows.shape[1]]  # there may be fewer rows than tables

    def _rows_of(self, episodes: np.ndarray, length: np.ndarray) -> np.ndarray:
        steps = self._batch.mask.shape[2]
        rows = [n * steps + np.arange(length[n]) for n in episodes]
        return np.concatenate(rows) if rows else np.zeros(0, np.int64)

    def clipped(
        self, theta: Tensor, rows: Tensor, clip: float, *, of_steps: bool, normalize: bool
    ) -> Clipped:
        """The gradient at θ' of the clipped surrogate on some rows: see `rule.Around`."""
        real = rows >= 0
        rows = rows.clamp(min=0)
        seed = torch.arange(len(rows), device=rows.device).unsqueeze(1)
        weights = self._given_weights.flatten(1)[seed, rows]
        if normalize:
            weights = standardized(weights.unsqueeze(1), real.unsqueeze(1)).squeeze(1)
        scale = self._scale(rows, real, of_steps=of_steps)
        width = max(1, CHUNK_STEPS // len(rows))

        def part(index: slice) -> tuple[Tensor, Tensor]:
            own = rows[:, index], weights[:, index], real[:, index]
            return self._clipped(theta, *own, clip, scale)

        slices = [slice(i, i + width) for i in range(0, rows.shape[1], width)]
        gradients, counts = zip(*ordered(part, slices), strict=True)
        total = torch.stack([g.double() for g in gradients]).sum(0)
        return Clipped(total, torch.stack(counts).sum(0) / real.sum(1).clamp(min=1), real.any(1))

    def _clipped(
        self, theta: Tensor, rows: Tensor, weights: Tensor, real: Tensor, clip: float, scale: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The sum over some rows, and how many of them are clipped [S]."""
        policy = self._policy
        seed = torch.arange(len(rows), device=rows.device).unsqueeze(1)
        obs, act = self._seen(rows, theta)
        trace, extra = policy.net.trace(theta, obs), policy.extra(theta)
        new = policy.head.log_prob(trace.out, extra, act)
        ratio = (new - self._old[seed, rows]).exp()
        high, low = (weights > 0) & (ratio > 1 + clip), (weights < 0) & (ratio < 1 - clip)
        is_clipped = (high | low) & real
        w = torch.where(is_clipped | ~real, 0.0, ratio * weights) * scale
        score = policy.head.score(trace.out, extra, act)
        w = w.to(obs).unsqueeze(-1)
        gradient = policy.pulled_back(theta, trace, score.out * w, score.extra * w)
        if self._coef:
            weight = self._coef * scale * real
            gradient = gradient + entropy_gradient_of(policy, theta, obs, weight)
        return gradient, is_clipped.sum(1)

    def _entropy(self, theta: Tensor) -> Tensor:
        """(1/N) Σ_n Σ_t H(π_θ(·|s_t)) [S] float64, what a bonus climbs."""
        policy, batch = self._policy, self._batch

        def part(index: slice) -> Tensor:
            obs = batch.obs.flatten(1, 2)[:, index].to(theta.dtype)
            with torch.no_grad():
                entropy = policy.head.entropy(*policy.distribution(theta, obs))
            return (entropy * batch.mask.flatten(1)[:, index]).sum(1, dtype=torch.float64)

        width, rows = max(1, CHUNK_STEPS // len(theta)), batch.mask.flatten(1).shape[1]
        parts = ordered(part, [slice(i, i + width) for i in range(0, rows, width)])
        return torch.stack(list(parts)).sum(0) / batch.episodes

    def _seen(self, rows: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Observations and actions of rows [S, m], in theta's type."""
        seed = torch.arange(len(rows), device=rows.device).unsqueeze(1)
        obs, act = (x.flatten(1, 2)[seed, rows] for x in (self._batch.obs, self._batch.act))
        return obs.to(theta), act

    def _scale(self, rows: Tensor, real: Tensor, *, of_steps: bool) -> Tensor:
        """What a row of a minibatch weighs [S, 1]: M/(m·N), or one over its episodes."""
        batch = self._batch
        if of_steps:
            size = real.sum(1) / self.length
        else:
            first = (rows % batch.mask.shape[2] == 0) & real
            size = first.sum(1).double()
        return torch.where(size > 0, 1.0 / torch.where(size > 0, size, 1.0), 0.0).unsqueeze(1)

    @cached_property
    def _log_probs(self) -> Tensor:
        return log_probs(self._policy, self._theta, self._batch)

    @cached_property
    def _old(self) -> Tensor:
        """log π_θ(a|s) of every row, [S, N·T], by the calls that one pass makes of it."""
        (rows,) = self.minibatches(1, of_steps=False)
        policy, theta = self._policy, self._theta

        def part(index: Tensor) -> Tensor:
            obs, act = self._seen(index.clamp(min=0), theta)
            return policy.head.log_prob(policy.net.trace(theta, obs).out, policy.extra(theta), act)

        width = max(1, CHUNK_STEPS // len(rows))
        log_prob = torch.cat(list(ordered(part, rows.split(width, 1))), 1)
        old = log_prob.new_zeros(self._batch.mask.flatten(1).shape)
        return old.scatter_add_(1, rows.clamp(min=0), torch.where(rows >= 0, log_prob, 0.0))

    @property
    def _given_weights(self) -> Tensor:
        if self._weights is None:
            raise ValueError("no weights of single steps make this estimate")
        return self._weights


def _padded(parts: Sequence[np.ndarray]) -> Tensor:
    """Rows of each seed [m_s] as one table [S, m], −1 where there are no more."""
    table = np.full((len(parts), max(map(len, parts))), -1)
    for s, rows in enumerate(parts):
        table[s, : len(rows)] = rows
    return torch.from_numpy(table)


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
