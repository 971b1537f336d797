"""Returns, TD residuals and advantages of whole episodes: the raw Φ_t.

Time is the last axis. `rew` and every residual must be zero where an episode has ended, so that
nothing crosses into another episode: each row of `[..., T]` is one episode.
"""

import torch
from torch import Tensor


def discounted_sum(x: Tensor, discount: float) -> Tensor:
    """y_t = Σ_{k≥0} discount^k x_{t+k}, for x at times [0, T) in `[..., T]`.

    By recursive doubling: after i rounds y_t sums the 2^i terms from t on, so log2(T) vector
    operations replace the backward recursion y_t = x_t + discount · y_{t+1}.
    """
    y, reach, weight = x, 1, discount
    while reach < x.shape[-1] and weight != 0.0:
        further = y.clone()
        further[..., :-reach].add_(y[..., reach:], alpha=weight)
        y, reach, weight = further, 2 * reach, weight * weight
    return y


def windowed_sum(x: Tensor, discount: float, n: int) -> Tensor:
    """y_t = Σ_{0≤k<n} discount^k x_{t+k}, `[..., T]`.

    From windows of 1, 2, 4, ... terms, so that no large sum is taken away from another.
    """
    n = min(n, x.shape[-1])
    y, offset = torch.zeros_like(x), 0
    window, size = x, 1  # sums of `size` terms from t on
    while offset < n:
        if n & size:
            y = y + discount**offset * _ahead(window, offset)
            offset += size
        window, size = window + discount**size * _ahead(window, size), 2 * size
    return y


def _ahead(x: Tensor, steps: int) -> Tensor:
    """x_{t+steps}, zero beyond the end."""
    return torch.nn.functional.pad(x[..., steps:], (0, min(steps, x.shape[-1])))


def returns_so_far(rew: Tensor, gamma: float, before: Tensor | None = None) -> Tensor:
    """Σ_{k≤t} γ^{t−k} r_k, `[..., T]`: what the deviation of a discounted return is taken of.

    `before` [...]: the same of the step before the first, where that is not the episode's first.
    (Engstrom et al. 2020, algorithm 1.)
    """
    own = discounted_sum(rew.flip(-1), gamma).flip(-1)
    if before is None:
        return own
    return own + gamma * powers(gamma, rew) * before.unsqueeze(-1)


def powers(discount: float, like: Tensor) -> Tensor:
    """discount^t at times [0, T) of `like [..., T]`."""
    return discount ** torch.arange(like.shape[-1], dtype=like.dtype, device=like.device)


def difference(a: Tensor, b: Tensor) -> Tensor:
    """a − b; 0 where no more is left than the rounding of two sums, each of many terms.

    A Φ whose baseline explains it wholly is 0: what rounding leaves would be divided by its own
    size, by a standard deviation, by Adam, in a cosine.
    """
    diff = a - b
    limit = 2**10 * torch.finfo(diff.dtype).eps
    return torch.where(diff.abs() <= limit * (a.abs() + b.abs()), 0.0, diff)


def total_return(rew: Tensor, gamma: float) -> Tensor:
    """R = Σ_k γ^k r_k, the same at every t: `[..., T]` to `[..., T]` (Williams 1992)."""
    return (powers(gamma, rew) * rew).sum(-1, keepdim=True).expand_as(rew)


def reward_to_go(rew: Tensor, gamma: float) -> Tensor:
    """G_t = Σ_{k≥t} γ^{k−t} r_k, `[..., T]` (Sutton & Barto 2018, eq. 3.8)."""
    return discounted_sum(rew, gamma)


def next_values(value: Tensor, last: Tensor, mask: Tensor) -> Tensor:
    """V(s_{t+1}) at times [0, T), given V(s_t) at times [0, T) and what follows the last step.

    `last [...]` is V(final_obs) where an episode was cut and is to be continued, else 0.
    """
    is_last = mask & ~torch.nn.functional.pad(mask[..., 1:], (0, 1))  # [..., T]
    shifted = torch.nn.functional.pad(value[..., 1:], (0, 1))
    return torch.where(is_last, last.unsqueeze(-1), shifted) * mask


def td_residual(rew: Tensor, value: Tensor, next_value: Tensor, gamma: float) -> Tensor:
    """δ_t = r_t + γ V(s_{t+1}) − V(s_t), `[..., T]` (Sutton & Barto 2018, eq. 6.5)."""
    return difference(rew + gamma * next_value, value)


def gae(delta: Tensor, gamma: float, lam: float) -> Tensor:
    """A_t = Σ_{l≥0} (γλ)^l δ_{t+l}, `[..., T]` (Schulman et al. 2016, eq. 16)."""
    return discounted_sum(delta, gamma * lam)
