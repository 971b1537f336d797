"""The natural gradient: steepest ascent in KL divergence (Amari 1998; Kakade 2001)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from pgcli.errors import ConfigError
from pgcli.settings.schema import FisherKind, StepLength, UpdateConfig
from pgcli.updates.ascent import learning_rates
from pgcli.updates.rule import Around, Product, Start, register


class Solved(NamedTuple):
    """What conjugate gradients came to, each seed for itself."""

    x: Tensor  # [S, P] float64: of least residual among the iterates
    residual: Tensor  # [S]: ‖b − A x‖/‖b‖
    iterations: Tensor  # [S]
    usable: Tensor  # [S] bool: it is better than nothing, every curvature was positive and finite


def conjugate_gradients(
    product: Product, b: Tensor, iterations: int, tolerance: float = 0.0
) -> Solved:
    """A x = b for a positive definite A, b [S, P], by products alone (Hestenes & Stiefel 1952).

    A seed ends where its residual is below tolerance · ‖b‖, and where a curvature pᵀAp is not
    positive or not finite: A is no such matrix, or rounding has made it none.
    """
    b = b.double()
    enough = max(tolerance, 10 * torch.finfo(b.dtype).eps) ** 2  # beyond it all is rounding
    x, r, p = torch.zeros_like(b), b.clone(), b.clone()
    start = rr = (r * r).sum(1)
    best_x, best = x, rr
    count = torch.zeros(len(b), dtype=torch.int64, device=b.device)
    sound = torch.isfinite(start)
    running = sound & (start > 0)
    for _ in range(iterations):
        if not running.any():
            break
        ap = product(p).double()
        curvature = (p * ap).sum(1)
        fine = torch.isfinite(curvature) & (curvature > 0)
        sound = sound & (fine | ~running)
        running = running & fine
        alpha = torch.where(running, rr / torch.where(running, curvature, 1.0), 0.0).unsqueeze(1)
        x = x + alpha * torch.where(running.unsqueeze(1), p, 0.0)
        r = r - alpha * torch.where(running.unsqueeze(1), ap, 0.0)
        new = (r * r).sum(1)
        count += running
        better = running & (new < best)
        best_x = torch.where(better.unsqueeze(1), x, best_x)
        best = torch.where(better, new, best)
        p = r + torch.where(rr > 0, new / torch.where(rr > 0, rr, 1.0), 0.0).unsqueeze(1) * p
        rr = new
        running = running & (new > enough * start)
    norm = torch.where(start > 0, start, 1.0)
    return Solved(best_x, (best / norm).sqrt(), count, sound & ((best < start) | (start == 0)))


class Direction(NamedTuple):
    """Where the natural gradient points, and what the quadratic model says of it."""

    way: Tensor  # [S, P] float64: d = (F + T̄ · damping · I)⁻¹ ĝ; 0 where nothing can be said
    curvature: Tensor  # [S]: dᵀFd, exact in the action and undamped
    solved: Solved


def direction(
    estimate: Tensor,
    around: Around,
    fisher: FisherKind,
    damping: float,
    cg_iterations: int,
    cg_tolerance: float,
) -> Direction:
    """The natural gradient of an estimate [S, P].

    F is of sums over an episode, `damping` of a mean over its steps: T̄ of them.
    """
    g = estimate.double()
    exact = around.fisher(sampled=False)
    product = around.fisher(sampled=True) if fisher is FisherKind.sampled else exact
    diagonal = damping * around.length.unsqueeze(1)
    solved = conjugate_gradients(
        lambda v: product(v) + diagonal * v, g, cg_iterations, cg_tolerance
    )
    d = solved.x
    curvature = (d * exact(d)).sum(1)
    fine = solved.usable & torch.isfinite(curvature) & (curvature > 0)
    d = torch.where(fine.unsqueeze(1), d, 0.0)
    return Direction(d, torch.where(fine, curvature, 0.0), solved)


def length_of(delta: float, natural: Direction, around: Around) -> Tensor:
    """β [S] with which the quadratic model of D(θ + βd) is `delta`: √(2·delta/(dᵀFd/T̄)).

    F is of sums over an episode, D a mean over its steps: T̄ of them.
    """
    per_step = natural.curvature / around.length
    fine = per_step > 0
    return torch.where(fine, (2 * delta / torch.where(fine, per_step, 1.0)).sqrt(), 0.0)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Of the rows of a and b [S, P], float64 [S]; 0 where one of them is nothing."""
    a, b = a.double(), b.double()
    norms = (a.norm(dim=1) * b.norm(dim=1)).clamp(min=torch.finfo(a.dtype).tiny)
    return (a * b).sum(1) / norms


def told(
    natural: Direction, step: Tensor, estimate: Tensor, around: Around, theta: Tensor
) -> dict[str, Tensor]:
    """What every natural step has to tell, by seed."""
    figures = {
        "step_norm": step.norm(dim=1),
        "cg_residual": natural.solved.residual,
        "cg_iterations": natural.solved.iterations,
        "cos_step_gradient": cosine(step, estimate),
    }
    if around.has_surrogate:
        figures["surrogate_gain"] = around.surrogate(theta)
    return figures


def notes(config: UpdateConfig) -> list[str]:
    """What a step by F̂⁻¹ĝ is, beside the estimate that is measured."""
    lines = [
        f"update={config.name}: F and ĝ are of the same batch, so the mean of its steps is not "
        "along F⁻¹∇J, O(1/N); what is measured is ĝ"
    ]
    if config.fisher is FisherKind.sampled:
        lines.append("update.fisher=sampled: of the actions that were taken, noisier than exact")
    return lines


@register("natural", rated=lambda config: config.step is StepLength.lr, notes=notes)
class Natural:
    """θ' = θ + β d, d = (F + T̄ · damping · I)⁻¹ ĝ; see `rule.Rule`.

    β is the learning rate, or that with which D(θ') is `delta` where D is quadratic.
    """

    def __init__(
        self,
        start: Start,
        *,
        step: StepLength,
        fisher: FisherKind,
        damping: float,
        cg_iterations: int,
        cg_tolerance: float,
        delta: float | None = None,
    ) -> None:
        self._config, self._step, self._delta = start.optimizer, step, delta
        if step is StepLength.delta and delta is None:
            raise ConfigError("update.delta", "null", "update.step=delta needs one")
        self._solver = fisher, damping, cg_iterations, cg_tolerance

    def step(
        self, theta: Tensor, estimate: Tensor, progress: ArrayLike, around: Around
    ) -> Mapping[str, Tensor]:
        """One step, of each seed for itself; none where F's curvature is not positive."""
        natural = direction(estimate, around, *self._solver)
        if self._step is StepLength.delta:
            assert self._delta is not None
            size = length_of(self._delta, natural, around)
        else:
            rates = learning_rates(self._config, progress)
            size = torch.tensor(rates, dtype=torch.float64, device=theta.device)
        moved = size.expand(len(theta)).unsqueeze(1) * natural.way
        theta.add_(moved.to(theta))
        return told(natural, moved, estimate, around, theta)

    def state(self) -> Mapping[str, Tensor]:
        """Nothing is remembered."""
        return {}
