"""The clipped surrogate beside an independent implementation's, on the same numbers."""

import warnings

import pytest
import torch

from pgcli.collection.batch import Batch
from pgcli.gradients.around import Batched
from pgcli.policies.heads import Categorical, Gaussian
from pgcli.policies.network import Mlp
from pgcli.policies.policy import Policy

with warnings.catch_warnings():  # of its own imports
    warnings.simplefilter("ignore")
    pytest.importorskip("torchrl")
    from tensordict import TensorDict
    from tensordict.nn import ProbabilisticTensorDictModule as Sampled
    from tensordict.nn import ProbabilisticTensorDictSequential as Actor
    from tensordict.nn import TensorDictModule
    from torchrl.objectives import ClipPPOLoss

N, T, D = 6, 9, 4


class Network(torch.nn.Module):
    """Ours, one seed's parameters its only ones."""

    def __init__(self, policy, theta):
        super().__init__()
        self.policy, self.theta = policy, torch.nn.Parameter(theta.clone())

    def forward(self, obs):
        theta = self.theta.unsqueeze(0)
        out, extra = self.policy.distribution(theta, obs.unsqueeze(0))
        if isinstance(self.policy.head, Categorical):
            return out[0]
        return out[0], extra[0].exp().expand_as(out[0])


class IndependentNormal(torch.distributions.Independent):
    def __init__(self, loc, scale):
        super().__init__(torch.distributions.Normal(loc, scale), 1)


def actor_of(policy, theta):
    discrete = isinstance(policy.head, Categorical)
    keys = ["logits"] if discrete else ["loc", "scale"]
    kind = torch.distributions.Categorical if discrete else IndependentNormal
    network = Network(policy, theta)
    head = Sampled(in_keys=keys, out_keys=["action"], distribution_class=kind, return_log_prob=True)
    return network, Actor(TensorDictModule(network, ["observation"], keys), head)


@pytest.mark.parametrize("coef", [0.0, 0.02])
@pytest.mark.parametrize("head", [Categorical(3), Gaussian(2)], ids=["categorical", "gaussian"])
@pytest.mark.filterwarnings("ignore")  # torchrl's own
def test_the_gradient_is_torchrls(head, coef):
    policy = Policy(Mlp((D, 8, 8, head.num_outputs)), head)
    rng = torch.Generator().manual_seed(2)
    theta, other = 0.3 * torch.randn(2, policy.num_params, dtype=torch.float64, generator=rng)
    length = torch.full((1, N), T)
    mask = torch.ones(1, N, T, dtype=torch.bool)
    obs = torch.randn(1, N, T, D, dtype=torch.float64, generator=rng)
    act = torch.randn(1, N, T, *head.action_shape, dtype=torch.float64, generator=rng)
    act = act.abs().long().clamp(max=2) if isinstance(head, Categorical) else act
    no = torch.zeros(1, N, dtype=torch.bool)
    batch = Batch(obs, act, torch.zeros(1, N, T), mask, no, no, obs[:, :, 0], length)
    weights = torch.randn(1, N, T, dtype=torch.float64, generator=rng)
    where = Batched(policy, theta[None], batch, weights, (3,), (0,), coef)
    (whole,) = where.minibatches(1, of_steps=True).each()
    ours = where.clipped(other[None], whole, 0.2)
    assert 0 < ours.beyond < N * T

    flat = obs[0].flatten(0, 1), act[0].flatten(0, 1)
    network, actor = actor_of(policy, other)
    loss = ClipPPOLoss(actor, None, clip_epsilon=0.2, entropy_bonus=coef > 0, entropy_coeff=coef,
                       critic_coeff=None, normalize_advantage=False)  # fmt: skip
    old = policy.log_prob(theta[None], flat[0][None], flat[1][None])[0]
    data = TensorDict(
        {"observation": flat[0], "action": flat[1], "advantage": weights[0].reshape(-1, 1)},
        batch_size=N * T,
    )
    data[loss.tensor_keys.sample_log_prob] = old
    found = loss(data)
    total = found["loss_objective"] + (found["loss_entropy"] if coef else 0)
    total.backward()
    theirs = -network.theta.grad * T  # their mean is over rows, ours over episodes
    torch.testing.assert_close(ours.gradient[0], theirs, rtol=1e-7, atol=1e-8)
