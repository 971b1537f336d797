"""What one training iteration logs: tags and one number per seed, [S]."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pgcli.collection.batch import Batch, Ended
from pgcli.environments.info import logged, names
from pgcli.estimators.estimator import Terms
from pgcli.estimators.importance import effective_sample_size, log_prefix
from pgcli.estimators.returns import difference
from pgcli.gradients.statistics import Measurement, NoiseScale
from pgcli.runs import tags


def rollout(ended: Ended, before: np.ndarray) -> dict[str, Tensor]:
    """Means over the episodes that ended in a batch.

    `before` [S]: the mean return of those that ended earlier, which stands where none did; their
    length is NaN there.
    """
    there = ended.length > 0
    episodes = there.sum(1)
    known = torch.from_numpy(before).to(ended.returns.device)
    mean = torch.where(there, ended.returns, 0.0).sum(1) / episodes.clamp(min=1)
    return {
        tags.RETURN: torch.where(episodes > 0, mean, known),
        tags.LENGTH: ended.length.sum(1) / torch.where(episodes > 0, episodes, torch.nan),
        tags.EPISODES: episodes,
    }


def info(batch: Batch, entries: Sequence[str]) -> dict[str, Tensor]:
    """What `env.info` asks for; NaN where there is nothing to take it from.

    mean: over the steps at which the entry is there; end: over the episodes that ended, of its
    value at their last step; sum: over episodes, of its sum over their steps.
    """
    if batch.info is None:
        return {}
    figures, known = {}, names(entries)
    there = batch.length > 0
    ended = batch.ended().length > 0
    final = (batch.length - 1).clamp(min=0)
    for one in logged(entries):
        x = batch.info[..., known.index(one.name)]  # [S, N, T]
        if one.way == "mean":
            figure = x.flatten(1).nanmean(1)
        elif one.way == "end":
            last = x.gather(-1, final.unsqueeze(-1)).squeeze(-1)
            figure = torch.where(ended, last, torch.nan).nanmean(1)
        else:
            figure = torch.where(there, x.nansum(-1), torch.nan).nanmean(1)
        figures[tags.info(one.name, one.way if "@" in one.text else None)] = figure
    return figures


def gradient(measured: Measurement, noise: NoiseScale, episodes: Tensor) -> dict[str, Tensor]:
    """The estimate and its noise; the ratios from smoothed signal and noise."""
    return {
        tags.NORM: measured.norm,
        tags.NORM_SQ: measured.norm_sq,
        tags.TRACE_COV: measured.trace_cov,
        tags.VARIANCE: measured.variance,
        tags.SNR: noise.snr(episodes.cpu()),
        tags.NOISE_SCALE: noise.noise_scale,
    }


def critic(name: str, value: Tensor | None, target: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """How well a critic, as it was BEFORE this batch's fit, predicts the targets; all [S, N, T]."""
    assert value is not None
    error = target - value
    spread = _variance(target, mask)
    explained = torch.where(spread > 0, 1 - _variance(error, mask) / spread, 0.0)
    return {tags.loss(name): _mean(error.square(), mask), tags.explained_variance(name): explained}


def importance(terms: Terms, log_ratio: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """How far the data's policy is, whatever form the weights have; log_ratio, mask [S, N, T].

    Effective sample sizes, in episodes, of ρ_{0:t} for prefixes of so many steps (an ended episode
    keeps its weight), the largest weight that the estimate used, and how many had to be clamped.
    """
    drawn = mask.any(-1, keepdim=True).expand_as(mask)
    ess = effective_sample_size(log_prefix(log_ratio), drawn)  # [S, T]
    last = mask.shape[-1] - 1
    prefixes = {"1": 0, "10": 9, "100": 99, "whole": last}
    return {
        **{tags.ess(name): ess[:, min(t, last)] for name, t in prefixes.items()},
        tags.MAX_WEIGHT: terms.importance.amax((1, 2)),
        tags.CLAMPED: terms.clamped,
    }


def score(measured: Measurement) -> dict[str, Tensor]:
    """‖(1/N) Σ_n S_n‖, zero in expectation (the EGLP lemma), and its standard error."""
    return {tags.SCORE: measured.norm, tags.SCORE_ERROR: measured.variance.sqrt()}


def _mean(x: Tensor, mask: Tensor) -> Tensor:
    return (x * mask).sum((1, 2)) / mask.sum((1, 2))


def _variance(x: Tensor, mask: Tensor) -> Tensor:
    return _mean(difference(x, _mean(x, mask)[:, None, None]).square(), mask)
