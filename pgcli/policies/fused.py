"""Passes over the rows of a batch in one compiled call each, where there is code: see `kernels`.

Who takes it depends on the network, its type, its optimiser and the device, never on a batch or on
who trains beside; elsewhere torch computes the same.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from pickle import UnpicklingError
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pgcli.policies.heads import Categorical, Gaussian
from pgcli.policies.network import Mlp
from pgcli.policies.policy import Policy
from pgcli.updates.optimizers import Adam, Optimizer, State

Array = np.ndarray


@cache
def _has_numba() -> bool:
    return importlib.util.find_spec("numba") is not None


def knows(net: Mlp, theta: Tensor) -> bool:
    """Whether there is compiled code for this network."""
    if not _has_numba() or theta.device.type != "cpu":
        return False
    from pgcli.policies.kernels import WIDEST

    return net.activation in ("tanh", "relu") and max(net.sizes) <= WIDEST


class Rows(NamedTuple):
    """All rows of a batch, and a policy that is known, in the types that compiled code takes.

    Its methods take θ alone, [S, P]: what the network sees is made.
    """

    policy: Policy
    obs: Array  # [S, R, D]: as the network sees it
    act: Array  # [S, R, A]

    @classmethod
    def of(
        cls, policy: Policy, theta: Tensor, obs: Tensor, act: Tensor, bonus: bool
    ) -> Rows | None:
        """From obs [S, R, D] and act [S, R, ...]; None where there is no code for it.

        `bonus`: whether the entropy is asked for as well.
        """
        if not _written(policy, theta, bonus):
            return None
        seen = policy.inputs(theta, obs.to(theta.dtype))
        rows = seen, act if act.ndim == 3 else act.unsqueeze(2)
        return cls(policy, *(_plain(x) for x in rows))

    def log_prob(self, s: int, theta: Tensor, rows: Tensor) -> Tensor:
        """log π(a|s) [R] of seed s, of its rows [m], as the other two compute it; 0 elsewhere.

        Of a squashed Gaussian: the density of its sample, the same in every ratio.
        """
        from pgcli.policies.kernels import LOG_PROBS

        found = theta.new_zeros(self.obs.shape[1])
        nothing = torch.zeros(1, len(rows), dtype=torch.float64)
        self._climb(LOG_PROBS, s, theta, found.clone(), rows[None], nothing, nothing, 0.0, found)
        return found

    def sums(
        self, s: int, theta: Tensor, weights: Tensor, first: Array, length: Array, group: Array,
        square: Array,
    ) -> tuple[Tensor, float]:  # fmt: skip
        """Σ_k G_k [P] float64 over groups of trajectories of seed s, and their rows' entropy.

        Trajectory k has rows first[k] on, length[k] of them, of weights [R]; it is of group[k], and
        a group's follow each other. ‖G_k‖² comes into square, at the group.
        """
        from pgcli.policies.kernels import scores

        total = np.zeros(self.policy.num_params)
        nats = _called(
            scores, *_kind(self.policy), theta[s].detach().numpy(), self.obs[s], self.act[s],
            _plain(weights), first, length, group, total, square,
        )  # fmt: skip
        return torch.from_numpy(total), float(nats)

    def gradient(
        self, s: int, theta: Tensor, old: Tensor, rows: Tensor, weights: Tensor, bonus: Tensor,
        clip: float,
    ) -> tuple[Tensor, int]:  # fmt: skip
        """Of the clipped surrogate on rows [m] of seed s: [P], and how many ratios are clipped."""
        from pgcli.policies.kernels import GRADIENT

        gradient, seen = torch.empty_like(theta[s]), torch.empty_like(old)
        count = self._climb(
            GRADIENT, s, theta, old, rows[None], weights[None], bonus[None], clip, seen,
            gradient=gradient,
        )  # fmt: skip
        return gradient, count

    def steps(
        self, s: int, theta: Tensor, old: Tensor, rows: Tensor, weights: Tensor, bonus: Tensor,
        clip: float, adam: Adam,
    ) -> int:  # fmt: skip
        """A step of seed s on each minibatch, rows [K, m]; theta [S, P] moves in place.

        Returns how many ratios were clipped.
        """
        from pgcli.policies.kernels import STEPS

        seen = torch.empty_like(old)
        return self._climb(STEPS, s, theta, old, rows, weights, bonus, clip, seen, adam)

    def _climb(
        self, wanted: int, s: int, theta: Tensor, old: Tensor, rows: Tensor, weights: Tensor,
        bonus: Tensor, clip: float, log_prob: Tensor, adam: Adam | None = None,
        gradient: Tensor | None = None,
    ) -> int:  # fmt: skip
        from pgcli.policies.kernels import climb

        own = theta[s].detach().numpy()
        none = np.empty(0, own.dtype)
        gradient = torch.empty_like(theta[s]) if gradient is None else gradient
        return int(_called(
            climb, wanted, *_kind(self.policy), own,
            self.obs[s], self.act[s], *map(_plain, (old, rows, weights, bonus)), float(clip),
            *(adam or Adam(np.empty(0), none, none, np.empty(0))),
            gradient.numpy(), log_prob.numpy(),
        ))  # fmt: skip


def divergences(policy: Policy, p: Tensor, q: Tensor, obs: Tensor) -> Tensor | None:
    """KL(π_p‖π_q) [S, M] in nats at obs [S, M, D], float64; None where there is no code for it."""
    if not _written(policy, p, False) or p.dtype != q.dtype:
        return None
    from pgcli.policies import kernels

    seen = [_plain(policy.inputs(theta, obs.to(theta.dtype))) for theta in (p, q)]
    found = np.empty(obs.shape[:2])
    for s, row in enumerate(found):
        own = (policy.learned(theta)[s].detach().numpy() for theta in (p, q))
        _called(kernels.divergences, *_kind(policy), *own, seen[0][s], seen[1][s], row)
    return torch.from_numpy(found)


def load(policy: Policy, theta: Tensor, bonus: bool, passes: bool) -> None:
    """Have the compiled code for this policy, before anybody's clock runs.

    `passes`: for passes over minibatches too; with `bonus` they climb the entropy as well.
    """
    act = torch.zeros(len(theta), 0, *policy.head.action_shape)
    act = act if isinstance(policy.head, Gaussian) else act.long()
    obs, learned = torch.zeros(len(theta), 0, policy.net.sizes[0]), policy.learned(theta)
    none = np.zeros(0, np.int64)
    if (rows := Rows.of(policy, theta, obs, act, bonus=True)) is not None:
        rows.sums(0, learned, torch.zeros(0, dtype=torch.float64), none, none, none, np.zeros(0))
    divergences(policy, theta, theta, obs)
    if passes and (rows := Rows.of(policy, theta, obs, act, bonus)) is not None:
        rows.log_prob(0, learned, torch.from_numpy(none))


def outputs(net: Mlp, theta: Tensor, x: Tensor) -> Tensor | None:
    """[S, M, outputs] at x [S, M, inputs]; None where there is no code."""
    if not knows(net, theta):
        return None
    from pgcli.policies import kernels

    found = theta.new_empty(*x.shape[:2], net.sizes[-1])
    seen = _plain(x)
    for s, own in enumerate(theta.detach().numpy()):
        _called(kernels.outputs, *_shape(net), own, seen[s], found[s].numpy())
    return found


def fitted(
    net: Mlp, theta: Tensor, x: Tensor, y: Tensor, minibatches: int, optimizer: Optimizer,
    state: State, rate: float,
) -> Callable[[Array], None] | None:  # fmt: skip
    """What makes a pass of least squares in an order [M] of rows; None where there is no code.

    Of one network, theta [P], which moves in place with the optimiser's state [1, ...]; x [M, D]
    and y [M] in its type.
    """
    if optimizer.constants is None or not knows(net, theta):
        return None
    from pgcli.policies.kernels import fit

    own, adam = theta.numpy(), Adam.of(optimizer.constants, state, 0, rate)
    fixed = *_shape(net), own, _plain(x), _plain(y)
    return lambda order: _called(fit, *fixed, order, minibatches, *adam)


def _written(policy: Policy, theta: Tensor, entropy: bool) -> bool:
    """Whether there is compiled code for this policy, and for its entropy where it is asked for."""
    head = policy.head
    if not isinstance(head, (Categorical, Gaussian)) or not knows(policy.net, theta):
        return False
    if isinstance(head, Categorical):
        return True
    return not (head.state_std or head.has_bounds or (entropy and head.squashed))


def _kind(policy: Policy) -> tuple[bool, bool, bool, Array]:
    return isinstance(policy.head, Gaussian), *_shape(policy.net)


def _plain(x: Tensor) -> Array:
    return x.detach().contiguous().numpy()


def _shape(net: Mlp) -> tuple[bool, bool, Array]:
    return net.activation == "relu", net.bias, np.array(net.sizes)


def _called(kernel: Callable[..., Any], *args: object) -> Any:
    """Compiled anew where what an earlier version kept cannot be read."""
    from pgcli.machine.compiling import undisturbed

    try:
        with undisturbed(kernel):
            return kernel(*args)
    except (AttributeError, ImportError, EOFError, UnpicklingError):
        from pgcli.policies import kernels

        kernels.forget()
        return kernel(*args)
