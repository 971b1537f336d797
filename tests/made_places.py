"""A policy of every kind, at two seeds' parameters, with a small batch in double precision."""

import pytest
import torch

from pgcli.collection.batch import Batch
from pgcli.policies.heads import Bernoulli, Categorical, Gaussian, MultiCategorical
from pgcli.policies.network import Mlp
from pgcli.policies.policy import Normalized, Policy

HEADS = {
    "categorical": Categorical(3),
    "multi_categorical": MultiCategorical((2, 3)),
    "bernoulli": Bernoulli(2),
    "gaussian": Gaussian(2),
    "normalized": Categorical(3),  # its observations are
}
S, N, T, D = 2, 3, 4, 3


@pytest.fixture(params=HEADS)
def place(request):
    head = HEADS[request.param]
    normalized = Normalized(1.5) if request.param == "normalized" else None
    policy = Policy(Mlp((D, 4, head.num_outputs), "elu"), head, normalized)
    rng = torch.Generator().manual_seed(5)
    theta, v = torch.randn(2, S, policy.width, dtype=torch.float64, generator=rng)
    v = policy.learned(v)
    length = torch.tensor([[4, 2, 3], [1, 4, 0]])  # a seed of two episodes
    mask = torch.arange(T) < length.unsqueeze(-1)
    obs = torch.randn(S, N, T, D, dtype=torch.float64, generator=rng)
    shape = (S, N, T, *head.action_shape)
    if request.param == "gaussian":
        act = torch.randn(shape, dtype=torch.float64, generator=rng)
    else:
        act = torch.randint(2, shape, generator=rng)
    nothing = torch.zeros(S, N, dtype=torch.bool)
    batch = Batch(obs, act, torch.zeros(S, N, T), mask, nothing, nothing, obs[:, :, 0], length)
    return policy, theta, batch, v


def scores(policy, theta, batch, s):
    """ψ of every real step of seed s, [M, P], by autograd."""
    obs, act = batch.obs[s][batch.mask[s]], batch.act[s][batch.mask[s]]

    def logp(x):
        return policy.log_prob(x[None], obs[None], act[None])[0]

    return policy.learned(torch.autograd.functional.jacobian(logp, theta[s]))
