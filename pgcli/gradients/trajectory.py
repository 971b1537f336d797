"""Per-trajectory gradients g_n = Σ_t w_{n,t} ∇log π(a_{n,t}|s_{n,t}), their sum and their spread.

g_n is the central object: its mean is the update, its spread the measurement. Trajectories are
taken in chunks of similar length, so that padding wastes little and a chunk stays in the cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pgcli.collection.batch import Batch
from pgcli.estimators.baselines import sum_of_others
from pgcli.gradients.control import coefficients, moments
from pgcli.machine.cores import ordered
from pgcli.policies.fused import Rows
from pgcli.policies.policy import Factor, Policy
from pgcli.settings.schema import BehaviourConfig, GradientConfig

CHUNK_STEPS = 8192  # steps (rows) at once: their activations fill a few MB of cache
EVERY = slice(None)
PIECE_STEPS = 4000  # about so many for a compiled call, which asks nothing of the cache
CHUNK_NUMBERS = 2**20  # entries of trajectory gradients at once: 4 MB
FEWEST_GROUPS = 8  # fewer would hardly tell a variance


def trajectory_gradients(factors: list[Factor], weights: Tensor, num_params: int) -> Tensor:
    """g_n [S, C, P] of C trajectories, from score factors of S × C·T rows and weights [S, C, T].

    No gradient of a single step is ever formed: a block of g_n is one matrix product over time.
    """
    rows = weights.flatten(1).unsqueeze(-1)
    weighted = [factor._replace(delta=factor.delta * rows) for factor in factors]
    return over_time(weighted, weights.shape[1], num_params)


def score_sums(factors: list[Factor], weights: Tensor, num_params: int) -> Tensor:
    """S_n = Σ_t w_t ∇log π(a_t|s_t) [S, C, P]; what cancels to rounding is 0.

    A baseline divides by these: a table's uniform policy makes scores of a or of −a/(k − 1), whose
    sum is 0 in many an episode and 3e-8 in float32. The limit is the error of a sum of T terms,
    relative to Σ_t |w_t ∇log π(a_t|s_t)|: √T roundings, and those of a softmax before them.
    """
    total = trajectory_gradients(factors, weights, num_params)
    sizes = [
        Factor(f.block, None if f.input is None else f.input.abs(), f.delta.abs()) for f in factors
    ]
    size = trajectory_gradients(sizes, weights.abs(), num_params)
    limit = (16 + math.sqrt(weights.shape[-1])) * torch.finfo(total.dtype).eps
    return torch.where(total.abs() <= limit * size, 0.0, total)


def step_products(factors: list[Factor], x: Tensor) -> tuple[Tensor, Tensor]:
    """⟨x_n, ∇log π(a_t|s_t)⟩ and ‖∇log π(a_t|s_t)‖² [S, C, T] of each step of C trajectories.

    x [S, C, P]; factors of S × C·T rows. No gradient of a single step is formed.
    """
    s, count, _ = x.shape
    along = square = torch.zeros((), dtype=x.dtype, device=x.device)
    for block, inputs, delta in factors:
        delta = delta.unflatten(1, (count, -1))  # [S, C, T, o]
        size = delta.square().sum(-1)
        own = x[..., block].reshape(s, count, -1, delta.shape[-1])  # [S, C, i or 1, o]
        if inputs is None:
            along = along + (delta * own).sum(-1)
        else:
            inputs = inputs.unflatten(1, (count, -1))
            along = along + ((inputs @ own) * delta).sum(-1)
            size = size * inputs.square().sum(-1)
        square = square + size
    return along, square


def over_time(factors: list[Factor], count: int, num_params: int) -> Tensor:
    """The sums [S, count, P] of `count` trajectories' rows, from factors that are weighted."""
    g = factors[0].delta.new_empty(len(factors[0].delta), count, num_params)
    for block, x, delta in factors:
        delta = delta.unflatten(1, (count, -1))  # [S, C, T, o]
        if x is None:
            g[..., block] = delta.sum(2)
        else:
            g[..., block] = (x.unflatten(1, (count, -1)).mT @ delta).flatten(2)  # [S, C, i·o]
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
    eps: float = torch.finfo(torch.float64).eps  # of the type in which the gradients were computed


class _Part(NamedTuple):
    """The sums over some of the groups."""

    gradient: Tensor  # [S, P] float64
    square: Tensor  # [S] float64
    entropy: Tensor  # [S] float64
    groups: Tensor  # [S]


def _part(gradients: Tensor, sizes: Tensor, entropy: Tensor) -> _Part:
    """Of groups with gradients G_k [S, K, P] of sizes m_k [S, K], 0 for one without a trajectory.

    Squares in the gradients' own precision, their sums in double.
    """
    each = gradients.square().sum(-1) / sizes.clamp(min=1)
    return _Part(
        gradients.sum(1, dtype=torch.float64),
        each.sum(1, dtype=torch.float64),
        entropy,
        (sizes > 0).sum(1),
    )


def squared_norms(factors: list[Factor], count: int) -> Tensor:
    """‖g_n‖² [S, count] from factors that are weighted, without any g_n.

    ‖Σ_t x_t ⊗ δ_t‖² = Σ_{t,t'} ⟨x_t, x_t'⟩⟨δ_t, δ_t'⟩ (Goodfellow 2015, arXiv:1510.01799, summed
    over time): cheaper than g_n where an episode is short beside the width of the layers.
    """
    total = factors[0].delta.new_zeros(len(factors[0].delta), count)
    for _, x, delta in factors:
        delta = delta.unflatten(1, (count, -1))  # [S, C, T, o]
        gram = delta @ delta.mT  # [S, C, T, T]
        if x is not None:
            x = x.unflatten(1, (count, -1))
            gram *= x @ x.mT
        total += gram.sum((2, 3))
    return total


def gradient_sums(
    policy: Policy, theta: Tensor, batch: Batch, weights: Tensor, group: int = 1
) -> Sums:
    """Pass once over the batch with score weights [S, N, T], at parameters theta [S, P].

    `group` trajectories share one sum, or all parts of a slot; the whole batch as one group
    measures no variance and costs the same as an ordinary backward pass.
    """
    if (rows := _rows(policy, theta, batch)) is not None:
        return _compiled(rows, policy.learned(theta), batch, weights, group)
    if batch.unit is not None and group < batch.length.shape[1]:
        parts = _by_unit(policy, theta, batch, batch.unit, weights)
    elif group == 1:
        parts = _alone(policy, theta, batch, weights)
    else:
        parts = _grouped(policy, theta, batch, weights, group)
    return _summed(parts, batch, theta)


def fitted_gradient_sums(
    policy: Policy,
    theta: Tensor,
    batch: Batch,
    weights: Tensor,
    control: Tensor,
    *,
    per_parameter: bool,
) -> tuple[Sums, Tensor | None]:
    """The same with the constant baseline of least variance, fitted leave-one-out.

    And that baseline b_n [S, N]: weights − b_n · control make the same estimate; None where each
    parameter has one of its own.

    `control` [S, N, T]: what one unit of the baseline subtracts from the weights. Needs memory
    for the gradients of all trajectories, twice, in double precision: what a baseline divides by
    may be the small rest of scores that nearly cancel.
    """
    theta = theta.detach().double()
    parts: list[_Part] = []
    baseline = None if per_parameter else torch.zeros_like(batch.length, dtype=theta.dtype)
    for index, part, b in _fitted(policy, theta, batch, weights, control, per_parameter):
        parts.append(part)
        if baseline is not None:
            baseline.scatter_(1, index, b.squeeze(-1))
    return _summed(parts, batch, theta), baseline


def time_products(
    policy: Policy, theta: Tensor, batch: Batch, weights: Tensor, control: Tensor
) -> tuple[Tensor, Tensor]:
    """⟨X_n, s_{n,t}⟩ and ‖s_{n,t}‖² [S, N, T] float64: what a baseline of each time is fitted on.

    X_n: a trajectory's gradient with these weights [S, N, T]; s: its scores, weighted by `control`.
    """
    theta = theta.detach().double()

    def pair(index: Tensor) -> tuple[Tensor, Tensor]:
        piece = chunk(policy, theta, batch, index)
        w, c = (x.to(theta) for x in taken(batch, index, weights, control))
        x = trajectory_gradients(piece.factors, w, policy.num_params)
        along, square = step_products(piece.factors, x)
        return along * c, square * c.square()

    numbers = policy.num_params
    chunks = list(chunks_of(batch.length, _by_length(batch), lambda steps: numbers))
    found = torch.zeros(2, *batch.mask.shape, dtype=torch.float64, device=theta.device)
    seed = torch.arange(len(theta), device=theta.device).unsqueeze(1)
    for index, both in zip(chunks, ordered(pair, chunks), strict=True):
        for table, own in zip(found, both, strict=True):
            table[seed, index, : own.shape[2]] = own
    return found[0], found[1]


def _rows(policy: Policy, theta: Tensor, batch: Batch) -> Rows | None:
    obs, act = batch.obs.flatten(1, 2), batch.act.flatten(1, 2)
    return Rows.of(policy, theta, obs, act, bonus=True)


def _compiled(rows: Rows, theta: Tensor, batch: Batch, weights: Tensor, group: int) -> Sums:
    """The same by compiled code, in pieces of whole groups of a seed: one pass over memory."""
    length, steps = batch.length.numpy(), batch.mask.shape[2]
    s, n = length.shape
    together = group >= n  # one group, which may be cut anywhere
    if batch.unit is None or together:
        of = np.broadcast_to(np.arange(n) // (1 if together else group), (s, n))
    else:
        of = batch.unit.numpy()
    sizes = np.zeros((s, n), np.int64)  # trajectories of each group
    for seed, row in enumerate(of):
        np.add.at(sizes[seed], row, length[seed] > 0)
    square = np.zeros((s, n))

    def work(piece: tuple[int, np.ndarray]) -> tuple[Tensor, float]:
        seed, own = piece
        given = own * steps, length[seed, own], of[seed, own]
        return rows.sums(seed, theta, weights[seed].flatten(), *given, square[seed])

    pieces = [(seed, own) for seed in range(s) for own in _cut(length[seed], of[seed])]
    gradient = torch.zeros(s, theta.shape[1], dtype=torch.float64)
    entropy = torch.zeros(s, dtype=torch.float64)
    for (seed, _), (total, nats) in zip(pieces, ordered(work, pieces), strict=True):
        gradient[seed] += total
        entropy[seed] += nats
    if together:
        each = gradient.square().sum(1) / batch.units.clamp(min=1)
        groups = batch.units.clamp(max=1)
    elif batch.unit is not None:
        each, groups = torch.from_numpy(square.sum(1)), batch.units.max().expand(s)
    else:
        each = torch.from_numpy((square / sizes.clip(1)).sum(1))
        groups = torch.from_numpy((sizes > 0).sum(1))
    return Sums(gradient, each, entropy, groups, batch.units, torch.finfo(theta.dtype).eps)


def _cut(length: np.ndarray, of: np.ndarray) -> list[np.ndarray]:
    """The trajectories [N] group by group, cut between groups into pieces of about equal steps."""
    order = of.argsort(kind="stable")
    begun = length[order].cumsum() - length[order]  # steps before each
    parts = max(1, round(length.sum() / PIECE_STEPS))
    first = np.flatnonzero(np.diff(of[order], prepend=-1))  # of each group
    wanted = np.arange(1, parts) * (length.sum() / parts)
    cuts = np.unique(first[np.searchsorted(begun[first], wanted).clip(max=len(first) - 1)])
    return np.split(order, cuts[cuts > 0])


def _summed(parts: Iterable[_Part], batch: Batch, theta: Tensor) -> Sums:
    gradient, square, entropy, groups = (torch.stack(x).sum(0) for x in zip(*parts, strict=True))
    eps = torch.finfo(theta.dtype).eps
    return Sums(gradient, square, entropy, groups, batch.units, eps)


def _alone(policy: Policy, theta: Tensor, batch: Batch, weights: Tensor) -> Iterator[_Part]:
    def part(index: Tensor) -> _Part:
        length = batch.length.gather(1, index)
        present = length.clamp(max=1)
        if _numbers(policy, int(length.max())) == policy.num_params:
            g, entropy = _in_windows(policy, theta, batch, index, weights, index.shape[1])
            return _part(g, present, entropy)
        piece = chunk(policy, theta, batch, index, weights)
        total = over_time(piece.factors, 1, policy.num_params).squeeze(1).double()
        square = squared_norms(piece.factors, index.shape[1]).sum(1, dtype=torch.float64)
        return _Part(total, square, piece.entropy, present.sum(1))

    numbers = partial(_numbers, policy)
    return ordered(part, chunks_of(batch.length, _by_length(batch), numbers))


def _by_unit(
    policy: Policy, theta: Tensor, batch: Batch, unit: Tensor, weights: Tensor
) -> Iterator[_Part]:
    """A slot's parts of episodes make one gradient: they are not independent of each other."""

    def pieces(index: Tensor) -> tuple[Tensor, Tensor]:
        return _in_windows(policy, theta, batch, index, weights, index.shape[1])

    numbers = policy.num_params
    chunks = list(chunks_of(batch.length, _by_length(batch), lambda steps: numbers))
    total = theta.new_zeros(len(theta), int(batch.units.max()), policy.num_params)
    entropy = torch.zeros(len(theta), dtype=torch.float64, device=theta.device)
    for index, (g, nats) in zip(chunks, ordered(pieces, chunks), strict=True):
        place = unit.gather(1, index).unsqueeze(-1)
        total.scatter_add_(1, place.expand_as(g), g)
        entropy += nats
    yield _part(total, torch.ones_like(total[..., 0], dtype=torch.int64), entropy)


def _in_windows(
    policy: Policy, theta: Tensor, batch: Batch, index: Tensor, weights: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """Weighted scores of the episodes index [S, C] summed to `count` sums [S, count, P]; entropy.

    So many steps at once that the activations of the longest episode take no more memory than
    those of others.
    """
    longest = max(1, int(batch.length.gather(1, index).max()))
    width = max(1, CHUNK_STEPS // index.numel())
    total: Tensor | None = None
    nats: Tensor | None = None
    for start in range(0, longest, width):
        window = slice(start, start + width)
        piece = chunk(policy, theta, batch, index, weights, window=window)
        g = over_time(piece.factors, count, policy.num_params)
        total = g if total is None else total + g
        nats = piece.entropy if nats is None else nats + piece.entropy
    assert total is not None
    assert nats is not None
    return total, nats


def _numbers(policy: Policy, steps: int) -> int:
    """The size of what tells ‖g_n‖² of an episode of so many steps: g_n, or products of its steps.

    Where they are as many, the products cost three times as much.
    """
    return min(policy.num_params, 3 * len(policy.net.layers) * steps * steps)


def _grouped(
    policy: Policy, theta: Tensor, batch: Batch, weights: Tensor, group: int
) -> Iterator[_Part]:
    s, n = batch.length.shape
    if group >= n:
        members = [_by_length(batch)]
    else:  # in the order of collection: sorted by length, the groups would not be exchangeable
        members = list(torch.arange(n, device=theta.device).expand(s, n).split(group, dim=1))

    def whole(index: Tensor) -> tuple[Tensor, Tensor]:
        # The chunk's rows as if they were one long trajectory.
        return _in_windows(policy, theta, batch, index, weights, 1)

    for member in members:  # [S, M]
        sums = list(ordered(whole, chunks_of(batch.length, member)))
        total = torch.stack([g.double() for g, _ in sums]).sum(0)  # [S, 1, P]
        entropy = torch.stack([entropy for _, entropy in sums]).sum(0)
        sizes = (batch.length.gather(1, member) > 0).sum(1, keepdim=True)
        yield _part(total, sizes, entropy)


def _fitted(
    policy: Policy,
    theta: Tensor,
    batch: Batch,
    weights: Tensor,
    control: Tensor,
    per_parameter: bool,
) -> Iterator[tuple[Tensor, _Part, Tensor]]:
    """By chunks of episodes [S, C]: which, their part, and their baselines [S, C, 1 or P]."""

    def pair(index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        piece = chunk(policy, theta, batch, index)
        w, c = (x.to(theta) for x in taken(batch, index, weights, control))
        x = trajectory_gradients(piece.factors, w, policy.num_params)
        return x, score_sums(piece.factors, c, policy.num_params), piece.entropy

    numbers = policy.num_params
    chunks = list(chunks_of(batch.length, _by_length(batch), lambda steps: numbers))
    pairs = list(ordered(pair, chunks))
    sums = [
        [m.sum(1, dtype=torch.float64) for m in moments(x, s, per_parameter)] for x, s, _ in pairs
    ]
    elsewhere = [sum_of_others(torch.stack(m, 1)) for m in zip(*sums, strict=True)]
    for i, (index, (x, s, entropy)) in enumerate(zip(chunks, pairs, strict=True)):
        other_chunks = elsewhere[0][:, i : i + 1], elsewhere[1][:, i : i + 1]  # [S, 1, ·]
        b = coefficients(x, s, per_parameter=per_parameter, elsewhere=other_chunks)
        yield index, _part(x - b * s, batch.length.gather(1, index).clamp(max=1), entropy), b


def _by_length(batch: Batch) -> Tensor:
    """All episodes [S, N], the longest first."""
    return batch.length.argsort(dim=1, descending=True)


def chunks_of(
    length: Tensor, member: Tensor, numbers: Callable[[int], int] | None = None
) -> Iterator[Tensor]:
    """Cut the episodes `member [S, M]` into runs [S, C] of at most CHUNK_STEPS padded steps.

    And of at most CHUNK_NUMBERS, where an episode of T steps makes numbers(T).
    """
    longest = length.gather(1, member).amax(0).tolist()  # [M], over seeds
    start, reach = 0, 0
    for stop, steps in enumerate(longest):
        reach = max(reach, steps)
        count = (stop + 1 - start) * len(member)  # with this one
        too_many = numbers is not None and count * numbers(reach) > CHUNK_NUMBERS
        if stop > start and (count * reach > CHUNK_STEPS or too_many):
            yield member[:, start:stop]
            start, reach = stop, steps
    yield member[:, start:]


class Piece(NamedTuple):
    """One forward and backward pass over some episodes."""

    factors: list[Factor]  # of S × C·T rows
    entropy: Tensor  # [S]: summed over the steps, in nats
    steps: int  # T of these episodes


def chunk(
    policy: Policy, theta: Tensor, batch: Batch, index: Tensor, *weights: Tensor,
    window: slice = EVERY,
) -> Piece:  # fmt: skip
    """Score factors of the episodes index [S, C], padded to the longest of them, in theta's type.

    With weights [S, N, T], those of the weighted scores; of the steps in `window`.
    """
    fields = (x[:, :, window] for x in (batch.obs, batch.act, batch.mask, *weights))
    obs, act, mask, *given = taken(batch, index, *fields)
    obs = obs.to(theta.dtype)
    weight = given[0].to(obs).flatten(1) if given else None
    factors, entropy = policy.score_factors(theta, obs.flatten(1, 2), act.flatten(1, 2), weight)
    total = (entropy * mask.flatten(1)).sum(1, dtype=torch.float64)
    return Piece(factors, total, mask.shape[2])


def taken(batch: Batch, index: Tensor, *fields: Tensor) -> list[Tensor]:
    """Each x [S, N, T, ...] of the episodes index [S, C], up to their longest."""
    seed = torch.arange(len(index), device=index.device).unsqueeze(1)
    steps = max(1, int(batch.length[seed, index].max()))
    return [x[:, :, :steps][seed, index] for x in fields]


def group_size(episodes: int, num_params: int, config: GradientConfig) -> int:
    """How many of a seed's `episodes` share one sum.

    1 where the gradients of all of them fit the memory, else as few as do, but FEWEST_GROUPS groups
    remain; all of them where nothing is to be measured.
    """
    if not config.measure:
        return episodes
    needed = episodes * num_params * 4 / 2**20  # MB of float32
    return max(1, min(math.ceil(needed / config.memory_mb), episodes // FEWEST_GROUPS))


def log_probs(
    policy: Policy, theta: Tensor, batch: Batch, behaviour: BehaviourConfig | None = None
) -> Tensor:
    """log π_θ(a_t|s_t), or the log-probability of the behaviour made from it, [S, N, T] float64.

    Zero where padded.
    """

    def log_prob(obs: Tensor, act: Tensor) -> Tensor:
        with torch.no_grad():
            if behaviour is None:
                return policy.log_prob(theta, obs, act)
            return policy.behaviour_log_prob(theta, obs, act, behaviour)

    return row_by_row(log_prob, batch)


def row_by_row(function: Callable[[Tensor, Tensor], Tensor], batch: Batch) -> Tensor:
    """A number of every step [S, N, T] float64, zero where padded, from its row.

    `function`: of some rows obs [S, M, D] and act [S, M, ...], to [S, M].
    """
    obs, act = batch.obs.flatten(1, 2), batch.act.flatten(1, 2)
    pieces = ordered(lambda i: function(obs[:, i], act[:, i]), row_slices(*obs.shape[:2]))
    return torch.cat(list(pieces), 1).reshape(batch.mask.shape).double() * batch.mask


def row_slices(seeds: int, rows: int) -> list[slice]:
    """Of rows [S, M]: so many at once as fit the cache."""
    width = max(1, CHUNK_STEPS // seeds)
    return [slice(i, i + width) for i in range(0, rows, width)]


def entropy_gradient(policy: Policy, theta: Tensor, batch: Batch) -> Tensor:
    """∇ (1/N) Σ_n Σ_t H(π_θ(·|s_t)) at the batch's states, [S, P]: the direction of a bonus."""
    total = torch.zeros_like(policy.learned(theta))
    per_episode = 1.0 / batch.units.clamp(min=1).unsqueeze(-1)
    fields = (batch.obs.flatten(1, 2), batch.mask.flatten(1) * per_episode)
    for obs, weight in zip(*(x.split(CHUNK_STEPS, 1) for x in fields), strict=True):
        total += entropy_gradient_of(policy, theta, obs, weight)
    return total


def entropy_gradient_of(policy: Policy, theta: Tensor, obs: Tensor, weight: Tensor) -> Tensor:
    """∇ Σ_m weight_m H(π_θ(·|s_m)) over rows obs [S, M, D] with weights [S, M]: [S, P]."""
    theta = theta.detach().requires_grad_()
    entropy = policy.head.entropy(*policy.distribution(theta, obs))
    return policy.learned(torch.autograd.grad((entropy * weight).sum(), theta)[0])
