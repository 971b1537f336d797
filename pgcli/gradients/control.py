"""Baselines that are fitted on trajectory gradients: the constant of least variance.

With X_n the gradient estimate of a trajectory without a baseline and S_n its (weighted) score, a
constant b gives g_n = X_n − b S_n, and E‖g − E g‖² is least at b* = E⟨X, S⟩/E‖S‖²; coordinate by
coordinate, b*_j = E[X_j S_j]/E[S_j²]. For the total return that is the textbook's E[‖S‖²R]/E‖S‖²
(Greensmith et al. 2004); for reward-to-go it holds the cross terms that E[‖g_t‖²G_t] leaves out.

With a number for each time, g_n = X_n − Σ_t b_t s_{n,t}, it is b*_t = E⟨X, s_t⟩/E‖s_t‖²: scores of
different times are uncorrelated, so each time is fitted by itself.

Each trajectory's b is fitted on the OTHERS, so the estimate stays unbiased.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pgcli.estimators.baselines import sum_of_others


def moments(x: Tensor, s: Tensor, per_parameter: bool) -> tuple[Tensor, Tensor]:
    """⟨X_n, S_n⟩ and ‖S_n‖² of x, s [..., N, P]: [..., N, 1], or [..., N, P] per parameter."""
    if per_parameter:
        return x * s, s * s
    return (x * s).sum(-1, keepdim=True), (s * s).sum(-1, keepdim=True)


def coefficients(
    x: Tensor,
    s: Tensor,
    *,
    per_parameter: bool,
    elsewhere: tuple[Tensor, Tensor] | tuple[float, float] = (0.0, 0.0),
) -> Tensor:
    """b_{−n} [..., N, 1], or [..., N, P] per parameter; 0 where the others' scores vanish.

    `elsewhere`: the moments summed over the trajectories of the batch that are not among these N.
    """
    xs, ss = moments(x, s, per_parameter)
    others_xs = elsewhere[0] + sum_of_others(xs)
    others_ss = elsewhere[1] + sum_of_others(ss)
    vanished = others_ss == 0  # exactly: see `score_sums`
    return torch.where(vanished, 0.0, others_xs / torch.where(vanished, 1.0, others_ss))


def time_coefficients(xs: Tensor, ss: Tensor) -> Tensor:
    """b_{−n,t} [..., N, T] of ⟨X_n, s_{n,t}⟩ and ‖s_{n,t}‖² [..., N, T]; 0 where no other runs."""
    others_xs, others_ss = sum_of_others(xs), sum_of_others(ss)
    there = others_ss > 0
    return torch.where(there, others_xs / torch.where(there, others_ss, 1.0), 0.0)


def less_in_time(weights: Tensor, control: Tensor, along: Tensor, square: Tensor) -> Tensor:
    """Weights [..., N, T] less b_{−n,t} · control.

    `along`, `square`: ⟨X_n, ∇log π_t⟩ and ‖∇log π_t‖² [..., N, T], as `trajectory.step_products`.
    """
    return weights - time_coefficients(along * control, square * control.square()) * control


def controlled(x: Tensor, s: Tensor, *, per_parameter: bool) -> Tensor:
    """g_n = X_n − b_{−n} S_n, [..., N, P]."""
    return x - coefficients(x, s, per_parameter=per_parameter) * s
