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
from pgcli.gradients.trajectory import entropy_gradient_of, log_probs, row_slices
from pgcli.machine.cores import ordered
from pgcli.machine.randomness import Purpose, generator
from pgcli.policies.fused import Rows, divergences
from pgcli.policies.policy import Policy
from pgcli.settings.schema import BehaviourConfig
from pgcli.updates.optimizers import Adam
from pgcli.updates.rule import Clipped, Minibatch, Minibatches, Product

KL_STEPS = 1024  # steps over which a divergence that is only logged is averaged


class Batched:
    """See `updates.rule.Around`: of one batch, estimated at theta [S, P or more].

    Other θ' may come without what observations are normalised by: it is that of theta.
    """

    def __init__(
        self,
        policy: Policy,
        theta: Tensor,
        batch: Batch,
        weights: Tensor | None,
        seeds: Sequence[int] = (),
        done: Sequence[int] | np.ndarray = (),
        entropy_coef: float | Tensor = 0.0,
    ) -> None:
        """weights [S, N, T]: those of the scores whose mean is ĝ; None: there are none.

        Minibatches are drawn from the streams of `seeds` in the iterations after `done`; their
        gradients hold the entropy of the policy as well, by its coefficient, or by each seed's [S].
        """
        self._policy, self._theta, self._batch = policy, theta, batch
        self._weights = weights
        coef = torch.as_tensor(entropy_coef, dtype=torch.float64, device=theta.device)
        self._coef, self._bonus = coef.expand(len(theta)), bool((coef != 0).any())
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
        """Steps per unit, an episode or a slot, [S] float64."""
        return self._batch.steps.double() / self._batch.units

    def surrogate(self, theta: Tensor) -> Tensor:
        """L(θ') [S] float64 (Schulman et al. 2015, equation 14, less its value at θ).

        With an entropy bonus, its part of the objective too.
        """
        theta = self._policy.whole(theta, self._theta)
        log_ratio = log_probs(self._policy, theta, self._batch) - self._log_probs
        gain = (torch.expm1(log_ratio) * self._given_weights).sum((1, 2)) / self._batch.units
        if self._bonus:
            gain = gain + self._coef * (self._entropy(theta) - self._entropy(self._theta))
        return gain

    def divergence(self, theta: Tensor) -> Tensor:
        """D(θ') [S] float64, over every state of the batch."""
        every = int(self._batch.steps.max())
        theta = self._policy.whole(theta, self._theta)
        return mean_kl(self._policy, self._theta, theta, self._batch, steps=every)

    def fisher(self, *, sampled: bool) -> Product:
        """v ↦ F v at θ."""
        return Fisher(self._policy, self._theta, self._batch, sampled=sampled).product

    def minibatches(
        self,
        count: int,
        *,
        of_steps: bool,
        normalize: bool = False,
        among: Sequence[bool] | None = None,
    ) -> Minibatches:
        """One pass: see `rule.Around`."""
        drawn = self._drawn(count, of_steps, among)
        rows, sizes = torch.from_numpy(drawn).to(self._theta.device), (drawn >= 0).sum(2)
        real = rows >= 0
        weights = self._given_weights.flatten(1)[self._index(rows)]
        if normalize:
            for s, width in enumerate(sizes.max(0)):  # as alone: no wider for others' rows
                own = weights[:, s, None, :width], real[:, s, None, :width]
                weights[:, s, :width] = standardized(*(x.contiguous() for x in own)).squeeze(1)
        share = self._share(rows, real, of_steps=of_steps)
        weights = torch.where(real, weights * share, 0.0)
        return Minibatches(rows, share, weights, sizes)

    def _drawn(self, count: int, of_steps: bool, among: Sequence[bool] | None) -> np.ndarray:
        """Rows [K, S, m] of K minibatches, −1 after a seed's last."""
        real, length = self._batch.mask.cpu().numpy(), self._batch.length.cpu().numpy()
        parts: list[list[np.ndarray]] = []  # of each seed K
        for s in range(len(real)):
            if among is not None and not among[s]:
                parts.append([np.zeros(0, np.int64)] * count)
            elif count == 1:  # in their own order: the same calls for old and new probabilities
                parts.append([np.flatnonzero(real[s])])
            elif of_steps:
                order = self._rngs[s].permutation(np.flatnonzero(real[s]))
                parts.append(np.array_split(order, count))
            else:
                order = self._rngs[s].permutation(np.flatnonzero(length[s]))
                drawn = np.array_split(order, count)
                parts.append([self._rows_of(each, length[s]) for each in drawn])
        table = np.full((count, len(parts), max(len(x) for own in parts for x in own)), -1)
        for s, own in enumerate(parts):
            for k, rows in enumerate(own):
                table[k, s, : len(rows)] = rows
        return table

    def _rows_of(self, episodes: np.ndarray, length: np.ndarray) -> np.ndarray:
        steps = self._batch.mask.shape[2]
        rows = [n * steps + np.arange(length[n]) for n in episodes]
        return np.concatenate(rows) if rows else np.zeros(0, np.int64)

    def _share(self, table: Tensor, real: Tensor, *, of_steps: bool) -> Tensor:
        """What each row [K, S, m] counts for: M/(m·N), or one over its minibatch's episodes."""
        if of_steps:
            size = real.sum(2) / self.length
        else:
            first = (table % self._batch.mask.shape[2] == 0) & real
            size = first.sum(2).double()
        return torch.where(real, 1.0 / size.unsqueeze(2), 0.0)

    def clipped(self, theta: Tensor, minibatch: Minibatch, clip: float) -> Clipped:
        """The gradient at θ' of the clipped surrogate on some rows: see `rule.Around`."""
        fused, given = self._fused, minibatch[:3]
        if fused is not None:

            def of_seed(s: int) -> tuple[Tensor, int]:
                rows, share, weights = (x[s] for x in given)
                return fused.gradient(
                    s, theta, self._old[s], rows, weights, self._coef[s] * share, clip
                )

            gradients, counts = zip(*map(of_seed, range(len(theta))), strict=True)
            return Clipped(torch.stack(gradients), torch.tensor(counts))

        def part(index: slice) -> tuple[Tensor, Tensor]:
            rows, share, weights = (x[:, index] for x in given)
            return self._clipped(theta, rows, share, weights, clip)

        parts = zip(*ordered(part, row_slices(*minibatch.rows.shape)), strict=True)
        gradient, count = (torch.stack(x).sum(0) for x in parts)
        return Clipped(gradient, count)

    def climbed(
        self, theta: Tensor, minibatches: Minibatches, clip: float, adam: Sequence[Adam]
    ) -> Tensor | None:
        """A pass in one compiled call a seed, where there is one: see `rule.Around`."""
        fused = self._fused
        if fused is None:
            return None

        def of_seed(s: int) -> int:
            rows, share, weights = (x[:, s] for x in minibatches[:3])
            bonus = self._coef[s] * share
            return fused.steps(s, theta, self._old[s], rows, weights, bonus, clip, adam[s])

        return torch.tensor(list(ordered(of_seed, range(len(theta)))))

    def _clipped(
        self, theta: Tensor, rows: Tensor, share: Tensor, weights: Tensor, clip: float
    ) -> tuple[Tensor, Tensor]:
        """The sum over some rows, and how many of them are clipped [S]."""
        policy = self._policy
        theta = policy.whole(theta, self._theta)
        obs, act = self._seen(rows, theta)
        trace, extra = policy.trace(theta, obs), policy.extra(theta)
        new = policy.head.log_prob(trace.out, extra, act)
        ratio = (new - self._old[self._index(rows)]).exp()
        beyond = ((weights > 0) & (ratio > 1 + clip)) | ((weights < 0) & (ratio < 1 - clip))
        w = torch.where(beyond | (rows < 0), 0.0, ratio * weights).to(obs).unsqueeze(-1)
        score = policy.head.score(trace.out, extra, act)
        gradient = policy.pulled_back(theta, trace, score.out * w, score.extra * w)
        if self._bonus:
            gradient = gradient + entropy_gradient_of(
                policy, theta, obs, self._coef.unsqueeze(1) * share
            )
        return gradient.double(), beyond.sum(1)

    def _entropy(self, theta: Tensor) -> Tensor:
        """(1/N) Σ_n Σ_t H(π_θ(·|s_t)) [S] float64, what a bonus climbs."""
        policy, batch = self._policy, self._batch

        def part(index: slice) -> Tensor:
            obs = batch.obs.flatten(1, 2)[:, index].to(theta.dtype)
            with torch.no_grad():
                entropy = policy.head.entropy(*policy.distribution(theta, obs))
            return (entropy * batch.mask.flatten(1)[:, index]).sum(1, dtype=torch.float64)

        parts = ordered(part, row_slices(*batch.mask.flatten(1).shape))
        return torch.stack(list(parts)).sum(0) / batch.units

    def _index(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Where rows [..., S, m] are in what is [S, N·T, ...]; at the first one that is none."""
        seed = torch.arange(rows.shape[-2], device=rows.device).unsqueeze(1)
        return seed, rows.clamp(min=0)

    def _seen(self, rows: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Observations and actions of rows [S, m], in theta's type."""
        at = self._index(rows)
        return self._batch.obs.flatten(1, 2)[at].to(theta), self._batch.act.flatten(1, 2)[at]

    @cached_property
    def _fused(self) -> Rows | None:
        obs, act = (x.flatten(1, 2) for x in (self._batch.obs, self._batch.act))
        return Rows.of(self._policy, self._theta, obs, act, self._bonus)

    @cached_property
    def _log_probs(self) -> Tensor:
        return log_probs(self._policy, self._theta, self._batch)

    @cached_property
    def _old(self) -> Tensor:
        """log π_θ(a|s) of every row, [S, N·T], by the calls that one pass makes of it."""
        rows = torch.from_numpy(self._drawn(1, False, None)[0]).to(self._theta.device)
        policy, theta, fused = self._policy, self._theta, self._fused
        if fused is not None:
            learned = policy.learned(theta)
            return torch.stack([fused.log_prob(s, learned, own) for s, own in enumerate(rows)])

        def part(index: slice) -> Tensor:
            obs, act = self._seen(rows[:, index], theta)
            return policy.head.log_prob(policy.trace(theta, obs).out, policy.extra(theta), act)

        log_prob = torch.cat(list(ordered(part, row_slices(*rows.shape))), 1)
        old = log_prob.new_zeros(self._batch.mask.flatten(1).shape)
        return old.scatter_add_(1, rows.clamp(min=0), torch.where(rows >= 0, log_prob, 0.0))

    @property
    def _given_weights(self) -> Tensor:
        if self._weights is None:
            raise ValueError("no weights of single steps make this estimate")
        return self._weights


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
    length = batch.length.cpu().numpy()
    chosen = [_spread(own, steps) for own in length]  # of each seed
    most = max(map(len, chosen))
    rows = np.zeros((len(chosen), most), np.int64)
    real = np.zeros((len(chosen), most), bool)
    for s, own in enumerate(chosen):
        ends = length[s].cumsum()
        episode = ends.searchsorted(own, side="right")
        rows[s, : len(own)] = episode * batch.mask.shape[2] + own - (ends - length[s])[episode]
        real[s, : len(own)] = True
    seed = torch.arange(len(rows), device=batch.obs.device).unsqueeze(1)
    seen = batch.obs.flatten(1, 2)[seed, torch.from_numpy(rows).to(batch.obs.device)]
    pieces = seen.split(KL_STEPS, 1)

    def kl_at(obs: Tensor) -> Tensor:
        kl = divergences(policy, p, q, obs) if changed is None else None
        return policy.kl(p, q, obs, changed) if kl is None else kl

    kl = torch.cat(list(ordered(kl_at, pieces)), 1)
    there = torch.from_numpy(real).to(kl.device)
    return (kl * there).sum(1) / there.sum(1)


def _spread(length: np.ndarray, most: int) -> np.ndarray:
    """Which of the steps of episodes of such length [N], at most so many and evenly spread."""
    steps = int(length.sum())
    count = min(steps, most)
    return np.arange(count) * steps // max(count, 1)
