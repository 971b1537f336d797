"""A minibatch's gradient in one compiled call, where there is compiled code: see `kernels`.

Who takes it depends on the network, its type and the device alone, never on a batch or on who
trains beside; elsewhere torch computes the same.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pickle import UnpicklingError
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pgcli.policies.heads import Categorical, Gaussian
from pgcli.policies.network import Mlp
from pgcli.policies.policy import Policy

Array = np.ndarray


def knows(net: Mlp, theta: Tensor) -> bool:
    """Whether there is compiled code for this network."""
    if importlib.util.find_spec("numba") is None or theta.device.type != "cpu":
        return False
    from pgcli.policies.kernels import WIDEST

    return net.activation in ("tanh", "relu") and max(net.sizes) <= WIDEST


class Rows(NamedTuple):
    """All rows of a batch, and a policy that is known, in the types that compiled code takes."""

    policy: Policy
    obs: Array  # [S, R, D]
    act: Array  # [S, R, A]

    @classmethod
    def of(cls, policy: Policy, theta: Tensor, obs: Tensor, act: Tensor) -> Rows | None:
        """From obs [S, R, D] and act [S, R, ...]; None where there is no code for it."""
        if not isinstance(policy.head, (Categorical, Gaussian)) or not knows(policy.net, theta):
            return None
        rows = [obs.to(theta.dtype), act if act.ndim == 3 else act.unsqueeze(2)]
        return cls(policy, *(x.contiguous().numpy() for x in rows))

    def clipped(
        self, theta: Tensor, old: Tensor, rows: Tensor, weights: Tensor, bonus: Tensor, clip: float
    ) -> tuple[Tensor, Tensor]:
        """Of rows [S, m]: the gradient [S, P], and how many of them are clipped [S]."""
        gradient = torch.empty_like(theta)
        return gradient, self._call(theta, old, rows, weights, bonus, clip, gradient)[1]

    def log_prob(self, theta: Tensor, rows: Tensor) -> Tensor:
        """log π(a|s) [S, m] of rows [S, m], as `clipped` computes it; 0 where there is none."""
        old = theta.new_zeros(self.obs.shape[:2])
        nothing = theta.new_zeros(rows.shape, dtype=torch.float64)
        return self._call(theta, old, rows, nothing, nothing, 0.0, theta[:, :0])[0]

    def _call(
        self, theta: Tensor, old: Tensor, rows: Tensor, weights: Tensor, bonus: Tensor, clip: float,
        gradient: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        from pgcli.policies.kernels import clipped

        log_prob = theta.new_zeros(rows.shape)
        count = torch.zeros(len(rows), dtype=torch.int64)
        arrays = [_plain(x) for x in (old, rows, weights, bonus)]
        _called(
            clipped, isinstance(self.policy.head, Gaussian), *_shape(self.policy.net),
            _plain(theta), self.obs, self.act, *arrays, float(clip), _plain(gradient),
            log_prob.numpy(), count.numpy(),
        )  # fmt: skip
        return log_prob, count


def load(policy: Policy, theta: Tensor) -> None:
    """Have the compiled code for minibatches of this policy, before anybody's clock runs."""
    shape = (len(theta), 0)
    act = torch.zeros(*shape, *policy.head.action_shape)
    act = act if isinstance(policy.head, Gaussian) else act.long()
    rows = Rows.of(policy, theta, torch.zeros(*shape, policy.net.sizes[0]), act)
    if rows is not None:
        rows.log_prob(theta, torch.zeros(shape, dtype=torch.int64))


def squared(net: Mlp, theta: Tensor, x: Tensor, y: Tensor) -> Callable[[Tensor], Tensor] | None:
    """Rows [m] to the gradient [1, P] of their mean of (net(x) − y)²; None where there is no code.

    Of one network, theta [1, P], live; x [M, D] and y [M] in its type.
    """
    if not knows(net, theta):
        return None
    from pgcli.policies import kernels

    gradient = torch.empty_like(theta)
    fixed = [*_shape(net), *(_plain(each) for each in (theta[0], x, y))]

    def of(rows: Tensor) -> Tensor:
        _called(kernels.squared, *fixed, rows.numpy(), gradient[0].numpy())
        return gradient

    return of


def _plain(x: Tensor) -> Array:
    """Live where it lies in one piece."""
    return x.detach().contiguous().numpy()


def _shape(net: Mlp) -> tuple[bool, bool, Array]:
    return net.activation == "relu", net.bias, np.array(net.sizes)


def _called(kernel: Callable[..., None], *args: object) -> None:
    """Compiled anew where what an earlier version kept cannot be read."""
    try:
        kernel(*args)
    except (AttributeError, ImportError, EOFError, UnpicklingError):
        from pgcli.policies import kernels

        kernels.forget()
        kernel(*args)
