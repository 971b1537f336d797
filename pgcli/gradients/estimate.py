"""From the weights of single scores to the sums of a batch, whatever fits the baseline."""

from __future__ import annotations

from torch import Tensor

from pgcli.collection.batch import Batch
from pgcli.estimators.estimator import Terms
from pgcli.gradients.control import time_coefficients
from pgcli.gradients.trajectory import Sums, fitted_gradient_sums, gradient_sums, time_products
from pgcli.policies.policy import Policy


def weighted_sums(
    policy: Policy, theta: Tensor, batch: Batch, terms: Terms, fitted: str | None, group: int = 1
) -> tuple[Sums, Tensor | None]:
    """One pass over the batch at theta [S, P], and the weights of single steps that make it.

    `fitted`: what the baseline fits on gradients, see `baselines.Baseline`. Weights [S, N, T];
    None where there are none such. `group`: trajectories that stand for one in the variance.
    """
    if fitted is None:
        return gradient_sums(policy, theta, batch, terms.weights, group), terms.weights
    if fitted == "time":
        products = time_products(policy, theta, batch, terms.weights, terms.control)
        weights = terms.weights - time_coefficients(*products) * terms.control
        return gradient_sums(policy, theta, batch, weights, group), weights
    sums, b = fitted_gradient_sums(
        policy,
        theta,
        batch,
        terms.weights,
        terms.control,
        per_parameter=fitted == "per_parameter",
    )
    return sums, None if b is None else terms.weights - b.unsqueeze(-1) * terms.control
