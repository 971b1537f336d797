"""Baselines: what is subtracted from Φ_t without changing the mean of the estimate.

They look across the trajectories of one batch, so their last two axes are `[..., N, T]`.
"""

import torch
from torch import Tensor


def leave_one_out_mean(phi: Tensor, mask: Tensor) -> Tensor:
    """b_n: the mean over the OTHER trajectories of the time average of Φ.

    `[..., N, T]` to `[..., N, 1]`. Independent of trajectory n, hence unbiased at every N ≥ 2; a
    mean that includes n itself shrinks the gradient of the total return by 1 − 1/N. Where there is
    no other trajectory, 0.
    """
    length = mask.sum(-1)  # [..., N]
    average = (phi * mask).sum(-1) / length.clamp(min=1)
    others = (length > 0).sum(-1, keepdim=True) - 1  # [..., 1]
    return sum_of_others(average.unsqueeze(-1)) / others.clamp(min=1).unsqueeze(-1)


def own_mean(phi: Tensor, mask: Tensor) -> Tensor:
    """The batch mean that includes the own trajectory, `[..., 1, 1]`: biased, for teaching."""
    length = mask.sum(-1)  # [..., N]
    average = (phi * mask).sum(-1) / length.clamp(min=1)
    mean = average.sum(-1) / (length > 0).sum(-1).clamp(min=1)
    return mean[..., None, None]


def leave_one_out_time_mean(phi: Tensor, mask: Tensor) -> Tensor:
    """b_{n,t}: the mean of Φ_t over the OTHER trajectories that still run at t, `[..., N, T]`.

    Where none runs, 0.
    """
    real = phi * mask
    others = mask.sum(-2, keepdim=True) - mask.to(torch.int64)
    return sum_of_others(real) / others.clamp(min=1)


def sum_of_others(x: Tensor) -> Tensor:
    """Σ_{m≠n} x_m along the axis of trajectories, [..., N, ·]; 0 where there are none.

    From both ends: the total minus the own would cancel where the own is large.
    """
    before = torch.nn.functional.pad(x[..., :-1, :].cumsum(-2), (0, 0, 1, 0))
    after = torch.nn.functional.pad(x[..., 1:, :].flip(-2).cumsum(-2).flip(-2), (0, 0, 0, 1))
    return before + after
