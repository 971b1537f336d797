"""Per-trajectory gradients g_n = Σ_t w_{n,t} ∇log π(a_{n,t}|s_{n,t}), their sum and their spread.

g_n is the central object: its mean is the update, its spread the measurement. Trajectories are
taken in chunks of similar length, so that padding wastes little and a chunk stays in the cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from pgcli.agents.policy import Factor, Policy
from pgcli.config.schema import GradientConfig
from pgcli.environments.batch import Batch

CHUNK_STEPS = 8192  # steps (rows) at once: their activations fill a few MB of cache


def trajectory_gradients(factors: list[Factor], weights: Tensor, num_params: int) -> Tensor:
    """g_n [S, C, P] of C trajectories, from score factors of S × C·T rows and weights [S, C, T].

    No gradient of a single step is ever formed: a block of g_n is one matrix product over time.
    """
    s, c, t = weights.shape
    g = weights.new_empty(s, c, num_params)
    for block, x, delta in factors:
        weighted = delta.unflatten(1, (c, t)) * weights.unsqueeze(-1)  # [S, C, T, o]
        if x is None:
            g[..., block] = weighted.sum(2)
        else:
            g[..., block] = (x.unflatten(1, (c, t)).mT @ weighted).flatten(2)  # [S, C, i·o]
    return g


class Sums(NamedTuple):
    """Sums over the trajectories of a batch, taken in groups k of m_k, with G_k = Σ_{n∈k} g_n.

    A trajectory by itself is a group of one.
    """

    gradient: Tensor  # [S, P] float64: Σ_k G_k
    square: Tensor  # [S] float64: Σ_k ‖G_k‖² / m_k
    entropy: Tensor  # [S] float64: of the policy, summed over the steps, in nats
    groups: Tensor  # [S]: how many groups hold a trajectory
    episodes: Tensor  # [S]: N


def gradient_sums(
    policy: Policy, theta: Tensor, batch: Batch, weights: Tensor, group: int = 1
) -> Sums:
    """Pass once over the batch with score weights [S, N, T], at parameters theta [S, P].

    `group` trajectories share one sum; the whole batch as one group measures no variance and
    costs the same as an ordinary backward pass.
    """
    s, n = batch.length.shape
    zeros = torch.zeros(s, dtype=torch.float64, device=theta.device)
    gradient, square, entropy = zeros.new_zeros(s, policy.num_params), zeros.clone(), zeros.clone()
    groups = batch.episodes.new_zeros(s)
    if group == 1 or group >= n:
        members = [batch.length.argsort(dim=1, descending=True)]
    else:  # in the order of collection: sorted by length, the groups would not be exchangeable
        members = list(torch.arange(n, device=theta.device).expand(s, n).split(group, dim=1))
    for member in members:  # [S, M]
        shared = torch.zeros_like(gradient)
        for index in _chunks(batch.length, member):  # [S, C]
            factors, ent, w = _chunk(policy, theta, batch, weights, index)
            entropy += ent
            if group == 1:
                g = trajectory_gradients(factors, w, policy.num_params)  # [S, C, P]
                square += g.square().sum(-1).sum(-1, dtype=torch.float64)
            else:  # the chunk's rows as if they were one long trajectory
                g = trajectory_gradients(factors, w.flatten(1).unsqueeze(1), policy.num_params)
            shared += g.sum(1, dtype=torch.float64)
        gradient += shared
        if group == 1:
            groups = batch.episodes
        else:
            real = (batch.length.gather(1, member) > 0).sum(1)  # [S]: m_k
            square += shared.square().sum(-1) / real.clamp(min=1)
            groups = groups + (real > 0)
    return Sums(gradient, square, entropy, groups, batch.episodes)


def _chunks(length: Tensor, member: Tensor) -> Iterator[Tensor]:
    """Cut the episodes `member [S, M]` into runs [S, C] of at most CHUNK_STEPS padded steps."""
    longest = length.gather(1, member).amax(0).tolist()  # [M], over seeds
    start, reach = 0, 0
    for stop, steps in enumerate(longest):
        reach = max(reach, steps)
        if stop > start and len(member) * (stop + 1 - start) * reach > CHUNK_STEPS:
            yield member[:, start:stop]
            start, reach = stop, steps
    yield member[:, start:]


def _chunk(
    policy: Policy, theta: Tensor, batch: Batch, weights: Tensor, index: Tensor
) -> tuple[list[Factor], Tensor, Tensor]:
    """Score factors of the episodes index [S, C], summed entropy [S], weights [S, C, T]."""
    seed = torch.arange(len(index), device=index.device).unsqueeze(1)
    steps = max(1, int(batch.length[seed, index].max()))

    def take(x: Tensor) -> Tensor:
        return x[:, :, :steps][seed, index]

    obs, act = take(batch.obs).flatten(1, 2), take(batch.act).flatten(1, 2)
    factors, _, entropy = policy.score_factors(theta, obs, act)
    real = take(batch.mask).flatten(1)
    return factors, (entropy * real).sum(1, dtype=torch.float64), take(weights).to(obs.dtype)


def group_size(episodes: int, num_params: int, config: GradientConfig) -> int:
    """How many trajectories share one sum, for so many `episodes` of all seeds together.

    1 where the gradients of all trajectories fit the memory, else as few as do; all where nothing
    is to be measured.
    """
    if not config.measure:
        return episodes
    needed = episodes * num_params * 4 / 2**20  # MB of float32
    return max(1, math.ceil(needed / config.memory_mb))
