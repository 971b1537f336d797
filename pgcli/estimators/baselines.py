"""Baselines: what is subtracted from Φ_t without changing the mean of the estimate.

They look across the trajectories of one batch, so their last two axes are `[..., N, T]`.
"""

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
    mean = (average.sum(-1, keepdim=True) - average) / others.clamp(min=1)
    return (mean * (others > 0)).unsqueeze(-1)
