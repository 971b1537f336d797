"""The measurement by exact enumeration, and the smoothed ratios."""

import pytest
import torch

from pgcli.estimators.returns import reward_to_go
from pgcli.gradients.statistics import Measurement, NoiseScale, measure
from pgcli.gradients.trajectory import Sums, trajectory_gradients
from pgcli.proof.listed import TinyMdp


@pytest.mark.parametrize("seed", [0, 1])
def test_trace_and_squared_norm_are_unbiased_exactly(seed):
    """E over all pairs of trajectories (N = 2) of tr Σ̂ and of ‖ĝ‖² − tr Σ̂/N: no sampling."""
    mdp = TinyMdp.random(seed)
    policy = mdp.policy()
    theta = torch.randn(
        1, policy.num_params, dtype=torch.float64, generator=torch.Generator().manual_seed(7)
    )
    b, p = mdp.batch, mdp.probabilities(policy, theta).detach()
    factors, _ = policy.score_factors(theta, b.obs.flatten(1, 2), b.act.flatten(1, 2))
    g = trajectory_gradients(factors, reward_to_go(b.rew, 1.0) * b.mask, policy.num_params)[0]
    mean = (p[:, None] * g).sum(0)
    trace = (p * (g - mean).square().sum(1)).sum()

    i, j = (x.flatten() for x in torch.meshgrid(*[torch.arange(len(p))] * 2, indexing="ij"))
    two = torch.full((len(i),), 2)
    square = g.square().sum(1)
    found = measure(Sums(g[i] + g[j], square[i] + square[j], torch.zeros(len(i)), two, two))
    chance = p[i] * p[j]
    torch.testing.assert_close((chance * found.trace_cov).sum(), trace, rtol=1e-10, atol=0)
    torch.testing.assert_close(
        (chance * found.norm_sq).sum(), mean.square().sum(), rtol=1e-10, atol=1e-12
    )
    torch.testing.assert_close(mean, mdp.gradient(policy, theta, 1.0)[0], rtol=1e-10, atol=1e-10)


def one_measurement(trace_cov, norm_sq):
    trace, norm = (torch.tensor([x], dtype=torch.float64) for x in (trace_cov, norm_sq))
    return Measurement(torch.zeros(1, 1).double(), norm.abs().sqrt(), trace, trace / 10, norm)


def test_noise_scale_smooths_numerator_and_denominator_apart():
    noise = NoiseScale.start(0.5, seeds=1)
    noise.update(one_measurement(8.0, 1.0))
    assert noise.noise_scale.item() == pytest.approx(8)
    assert noise.snr(torch.tensor([4])).item() == pytest.approx(0.5)
    noise.update(one_measurement(2.0, -0.25))  # one unresolved norm does not turn the ratio
    # Weights of the two iterations: 1/4 and 1/2, before normalisation.
    assert noise.noise_scale.item() == pytest.approx((8 / 4 + 2 / 2) / (1 / 4 - 0.25 / 2))
    before = noise.trace_cov.clone()
    noise.update(one_measurement(float("nan"), 1.0))  # no measurement, no change
    torch.testing.assert_close(noise.trace_cov, before)
