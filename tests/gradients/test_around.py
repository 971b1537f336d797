"""What update rules may ask of the objective around an estimate, in float64."""

from dataclasses import fields, replace

import pytest
import torch

from pgcli.gradients.around import Batched
from pgcli.gradients.statistics import measure
from pgcli.gradients.trajectory import entropy_gradient, gradient_sums
from pgcli.policies import fused
from pgcli.policies.heads import Categorical, Gaussian
from pgcli.policies.network import Mlp
from pgcli.policies.policy import Normalized, Policy
from pgcli.proof.listed import TinyMdp


@pytest.fixture
def place():
    mdp = TinyMdp.random(0)
    policy, rng = mdp.policy(), torch.Generator().manual_seed(3)
    theta, way = torch.randn(2, 1, policy.num_params, dtype=torch.float64, generator=rng)
    weights = torch.randn(mdp.batch.mask.shape, dtype=torch.float64, generator=rng)
    return mdp, policy, theta, way, weights * mdp.batch.mask


def test_the_gradient_of_the_surrogate_is_the_estimate(place):
    mdp, policy, theta, way, weights = place
    around = Batched(policy, theta, mdp.batch, weights)
    estimate = measure(gradient_sums(policy, theta, mdp.batch, weights)).gradient
    assert around.surrogate(theta).item() == 0
    size = 1e-5
    slope = (around.surrogate(theta + size * way) - around.surrogate(theta - size * way)) / 2 / size
    torch.testing.assert_close(slope, (estimate * way).sum(1), rtol=1e-8, atol=1e-10)


def test_with_a_bonus_its_gradient_is_the_step_that_a_rule_is_given(place):
    mdp, policy, theta, way, weights = place
    around = Batched(policy, theta, mdp.batch, weights, entropy_coef=0.7)
    estimate = measure(gradient_sums(policy, theta, mdp.batch, weights)).gradient
    step = estimate + 0.7 * entropy_gradient(policy, theta, mdp.batch)
    size = 1e-5
    slope = (around.surrogate(theta + size * way) - around.surrogate(theta - size * way)) / 2 / size
    torch.testing.assert_close(slope, (step * way).sum(1), rtol=1e-7, atol=1e-9)


def test_each_seed_has_its_own_bonus(place):
    mdp, policy, theta, way, weights = place
    tensors = {f.name: getattr(mdp.batch, f.name) for f in fields(mdp.batch)}
    two = replace(
        mdp.batch, **{k: torch.cat([x, x]) for k, x in tensors.items() if x is not None and x.ndim}
    )
    both, ways, own = (torch.cat([x, x]) for x in (theta, way, weights))
    coef = torch.tensor([0.7, 0.0])
    gain = Batched(policy, both, two, own, entropy_coef=coef).surrogate(both + ways)
    for s in range(2):
        alone = Batched(policy, theta, mdp.batch, weights, entropy_coef=float(coef[s]))
        torch.testing.assert_close(gain[s : s + 1], alone.surrogate(theta + way))


def test_surrogate_and_divergence_are_what_they_say_far_away(place):
    mdp, policy, theta, way, weights = place
    batch, other = mdp.batch, theta + way
    around = Batched(policy, theta, batch, weights)
    rows = batch.obs.flatten(1, 2), batch.act.flatten(1, 2)
    ratio = (policy.log_prob(other, *rows) - policy.log_prob(theta, *rows)).exp()
    gain = ((ratio.reshape(weights.shape) - 1) * weights).sum((1, 2)) / batch.mask.shape[1]
    torch.testing.assert_close(around.surrogate(other), gain.detach(), rtol=1e-10, atol=1e-12)
    obs = batch.obs[batch.mask][None]
    p, q = (policy.distribution(x, obs)[0].log_softmax(-1) for x in (theta, other))
    kl = (p.exp() * (p - q)).sum(-1).mean(1)
    torch.testing.assert_close(around.divergence(other), kl.detach(), rtol=1e-10, atol=1e-12)


def test_a_baseline_fitted_on_gradients_has_no_surrogate(place):
    mdp, policy, theta, way, _ = place
    around = Batched(policy, theta, mdp.batch, None)
    with pytest.raises(ValueError, match="no weights"):
        around.surrogate(theta + way)
    assert around.divergence(theta + way).item() > 0


@pytest.mark.parametrize("size", [1e-4, 1.0])
@pytest.mark.parametrize(
    "head", [Categorical(3), Gaussian(2), Gaussian(2, (True, False))], ids=repr
)
def test_compiled_divergences_are_those_of_the_heads(head, size, monkeypatch):
    """Near, where terms must not cancel, and far; each policy normalising by its own."""
    pytest.importorskip("numba")
    policy = Policy(Mlp((3, 8, head.num_outputs)), head, Normalized(2.0))
    rng = torch.Generator().manual_seed(2)
    p, way = 0.7 * torch.randn(2, 2, policy.width, dtype=torch.float64, generator=rng)
    obs = torch.randn(2, 70, 3, generator=rng, dtype=torch.float64)
    found = fused.divergences(policy, p, p + size * way, obs)
    expected = policy.kl(p, p + size * way, obs)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-18)
    near = fused.divergences(policy, p.float(), (p + size * way).float(), obs)
    torch.testing.assert_close(near, expected, rtol=1e-2, atol=1e-12)
