"""First-order optimisers of one tensor theta [S, P], as their papers have them.

Written here because constructing one of torch's takes longer than importing Gymnasium.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pgcli.settings.schema import OptimizerName

BETA1, BETA2, ALPHA, EPSILON = 0.9, 0.999, 0.99, 1e-8
ALL = slice(None)


class Optimizer:
    """Descends in `theta`, in place; `state` holds what it remembers, by torch's names for it.

    Adam: Kingma and Ba 2015, algorithm 1. AdamW: Loshchilov and Hutter 2019, algorithm 2. RMSprop:
    Hinton 2012, lecture 6e. SGD with Polyak's momentum. Weight decay is an L2 penalty but in AdamW.
    """

    def __init__(
        self, name: OptimizerName, theta: Tensor, momentum: float = 0.0, weight_decay: float = 0.0
    ) -> None:
        self._name, self._theta = name, theta
        self._momentum, self._decay = momentum, weight_decay
        moments = {"adam": ("exp_avg", "exp_avg_sq"), "rmsprop": ("square_avg",)}
        names = moments.get(name.name.removesuffix("w"), ())
        if momentum:
            names += ("momentum_buffer",)
        self.state = {key: torch.zeros_like(theta) for key in names}
        self.state["step"] = torch.zeros(len(theta), 1, dtype=torch.float64)

    def step(self, gradient: Tensor, lr: float, rows: slice = ALL) -> None:
        """One step of theta[rows] down `gradient`, of its shape and type."""
        theta, g = self._theta[rows], gradient
        state = {key: x[rows] for key, x in self.state.items()}
        t = state["step"].add_(1)
        if self._name is OptimizerName["adamw"]:
            theta.mul_(1 - lr * self._decay)
        elif self._decay:
            g = g + self._decay * theta
        if "exp_avg" in state:
            m = state["exp_avg"].lerp_(g, 1 - BETA1)
            v = state["exp_avg_sq"].mul_(BETA2).addcmul_(g, g, value=1 - BETA2)
            root = (v / (1 - BETA2**t).to(v)).sqrt_().add_(EPSILON)
            theta.sub_((lr / (1 - BETA1**t)).to(m) * m / root)
            return
        if "square_avg" in state:
            v = state["square_avg"].mul_(ALPHA).addcmul_(g, g, value=1 - ALPHA)
            g = g / v.sqrt().add_(EPSILON)
        if "momentum_buffer" in state:
            g = state["momentum_buffer"].mul_(self._momentum).add_(g)
        theta.add_(g, alpha=-lr)


def copy_into(old: Tensor, new: np.ndarray) -> None:
    """Overwrite `old` with an array of its shape; ValueError where it has another."""
    if tuple(new.shape) != tuple(old.shape):
        raise ValueError(f"shape {tuple(new.shape)} where {tuple(old.shape)} is needed")
    old.copy_(torch.from_numpy(new))
