"""Many estimators on the same trajectories of one frozen policy: one pass, paired figures.

Forward and backward happen once; each estimator then only weighs the scores. What is kept of an
estimator are the mean gradients of its units: single trajectories or small groups of them, or a
whole batch where the estimator couples the trajectories of a batch.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pgcli.collection.batch import Batch
from pgcli.estimators.baselines import baseline
from pgcli.estimators.estimator import couples, terms
from pgcli.estimators.phi import Episodes
from pgcli.gradients.control import controlled, less_in_time
from pgcli.gradients.trajectory import (
    Piece,
    chunk,
    chunks_of,
    score_sums,
    step_products,
    trajectory_gradients,
)
from pgcli.machine.cores import ordered
from pgcli.policies.policy import Policy
from pgcli.settings.schema import EstimatorConfig

MOST_UNITS = 256  # per estimator: the inner products of all pairs are resampled


class Sample(NamedTuple):
    """What one estimator made of R batches of n trajectories each."""

    mean: Tensor  # [R, u, P]: mean gradients of the u units of each batch
    square: Tensor  # [R, u]: mean ‖g_n‖² of their trajectories; ‖ĝ‖² where coupled
    size: int  # trajectories that one such square stands for: 1, or n where coupled
    seconds: float  # of one core, alone: forward, backward and its own weights


def samples(
    policy: Policy,
    theta: Tensor,
    batch: Batch,
    cases: Mapping[str, tuple[EstimatorConfig, Episodes]],
    batch_size: int,
    units: int,
) -> dict[str, Sample]:
    """Every estimator on the R · n episodes of `batch` (one seed), in batches of n = batch_size.

    `cases`: each estimator with what it may look at, [1, R · n, T] each. `units`: at most so many
    per batch; the number taken divides n.
    """
    rounds = batch.length.shape[1] // batch_size
    most = max(u for u in range(1, min(units, batch_size) + 1) if batch_size % u == 0)
    spent = dict.fromkeys(cases, 0.0)
    weights: dict[str, tuple[Tensor, Tensor]] = {}
    for name, (config, episodes) in cases.items():
        clock = time.thread_time()
        weighted = terms(config, in_batches(episodes, rounds))
        flat = (1, rounds * batch_size, -1)
        weights[name] = weighted.weights.reshape(flat), weighted.control.reshape(flat)
        spent[name] += time.thread_time() - clock

    fit = {name: baseline(config).fitted for name, (config, _) in cases.items()}

    def one_batch(r: int) -> tuple[dict[str, tuple[Tensor, Tensor, float]], float]:
        clock = time.thread_time()
        member = torch.arange(r * batch_size, (r + 1) * batch_size, device=theta.device)[None]
        by_length = batch.length.gather(1, member).argsort(dim=1, descending=True)
        indices = list(chunks_of(batch.length, member.gather(1, by_length)))
        pieces = [(i, chunk(policy, theta, batch, i)) for i in indices]
        # A fitted baseline may divide by the small rest of scores that nearly cancel.
        precise = (
            [(i, chunk(policy, theta.double(), batch, i)) for i in indices]
            if any(fit.values())
            else []
        )
        shared = time.thread_time() - clock
        measured = {}
        for name, (config, _) in cases.items():
            clock = time.thread_time()
            # Sums over trajectories in their own precision, what becomes of them in double.
            is_fitted = fit[name] is not None
            g = torch.empty(batch_size, policy.num_params, dtype=torch.float64)
            g = g if is_fitted else g.to(batch.obs.dtype)
            s = torch.empty_like(g) if is_fitted else None
            for index, piece in precise if is_fitted else pieces:
                rows = index[0] - r * batch_size
                w, c = (x[:, index[0], : piece.steps].to(g.dtype) for x in weights[name])
                g[rows] = trajectory_gradients(piece.factors, w, policy.num_params)[0]
                if s is not None:
                    s[rows] = score_sums(piece.factors, c, policy.num_params)[0]
            if fit[name] == "time":
                g = _by_time(g, precise, weights[name], r * batch_size, policy.num_params)
            elif s is not None:
                g = controlled(g, s, per_parameter=fit[name] == "per_parameter")
            if couples(config):
                mean = g.mean(0, keepdim=True)
                square = mean.double().square().sum(-1)
            else:
                mean = g.reshape(most, -1, policy.num_params).mean(1)
                square = g.square().sum(-1, dtype=torch.float64).reshape(most, -1).mean(1)
            measured[name] = mean, square, time.thread_time() - clock
        return measured, shared

    parts = list(ordered(one_batch, range(rounds)))
    shared = sum(seconds for _, seconds in parts)
    return {
        name: Sample(
            torch.stack([measured[name][0] for measured, _ in parts]),
            torch.stack([measured[name][1] for measured, _ in parts]),
            batch_size if couples(config) else 1,
            shared + spent[name] + sum(measured[name][2] for measured, _ in parts),
        )
        for name, (config, _) in cases.items()
    }


def _by_time(
    x: Tensor,
    pieces: list[tuple[Tensor, Piece]],
    weights: tuple[Tensor, Tensor],
    first: int,
    num_params: int,
) -> Tensor:
    """g_n [n, P] with the baseline of each time, from X_n and the factors of one batch."""
    w, c = (one[0, first : first + len(x)].to(x.dtype) for one in weights)
    products = torch.zeros(2, *w.shape, dtype=x.dtype)
    for index, piece in pieces:
        rows = index[0] - first
        for table, own in zip(products, step_products(piece.factors, x[rows][None]), strict=True):
            table[rows, : piece.steps] = own[0]
    w = less_in_time(w, c, *products)
    g = torch.empty_like(x)
    for index, piece in pieces:
        rows = index[0] - first
        own = w[rows, : piece.steps][None]
        g[rows] = trajectory_gradients(piece.factors, own, num_params)[0]
    return g


def joined(parts: list[dict[str, Sample]]) -> dict[str, Sample]:
    """Several rounds of batches as one."""
    return {
        name: Sample(
            torch.cat([part[name].mean for part in parts]),
            torch.cat([part[name].square for part in parts]),
            first.size,
            sum(part[name].seconds for part in parts),
        )
        for name, first in parts[0].items()
    }


def in_batches(episodes: Episodes, rounds: int) -> Episodes:
    """Fields [1, R · n, ...] as [R, n, ...]: batches are coupled within, never across."""
    fields: dict[str, Any] = {
        name: None if x is None else x[0].unflatten(0, (rounds, -1))
        for name, x in vars(episodes).items()
    }
    return Episodes(**fields)
