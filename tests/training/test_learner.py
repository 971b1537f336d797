"""Optimisers, schedules and clipping, against what they say."""

import math

import numpy as np
import pytest
import torch
from settings import train_config

from pgcli.policies.heads import Categorical
from pgcli.policies.network import Mlp
from pgcli.policies.policy import Policy
from pgcli.training.learner import Learner
from pgcli.training.loop import entropy_coefs
from pgcli.updates.ascent import learning_rates
from pgcli.updates.optimizers import OPTIMIZERS, optimizer

CPU = torch.device("cpu")


def learner(*overrides, seeds=(0, 1)):
    policy = Policy(Mlp((3, 2)), Categorical(2))
    return Learner(train_config(*overrides), policy, {}, None, seeds, CPU)


def test_schedules():
    def rates(name):
        config = train_config(f"optimizer.schedule={name}", "optimizer.lr=0.4").optimizer
        return learning_rates(config, (0, 0.25, 0.5, 1))

    assert rates("constant") == [0.4] * 4
    assert rates("linear") == pytest.approx([0.4, 0.3, 0.2, 0])
    cosine = [0.2 * (1 + math.cos(math.pi * x)) for x in (0, 0.25, 0.5, 1)]
    assert rates("cosine") == pytest.approx(cosine)


@pytest.mark.parametrize("name", ["constant", "linear", "cosine"])
def test_an_entropy_coefficient_goes_down_as_a_learning_rate_does(name):
    line = f"policy.entropy_schedule={name}", f"optimizer.schedule={name}"
    config = train_config(*line, "policy.entropy_coef=0.4", "optimizer.lr=0.4")
    spent = np.array([0, 0.25, 0.5, 1])
    assert entropy_coefs(config, spent, CPU).tolist() == learning_rates(config.optimizer, spent)


def test_ascent_by_hand_with_the_schedule():
    found = learner("optimizer=sgd", "optimizer.lr=0.5", "optimizer.schedule=linear")
    before = found.theta.detach().clone()
    gradient = torch.randn(found.theta.shape, dtype=torch.float64)
    found.rule.step(found.theta, gradient, 0.25)
    torch.testing.assert_close(found.theta.detach(), before + 0.375 * gradient.float())


def test_momentum_remembers():
    found = learner("optimizer=sgd", "optimizer.momentum=0.5", "optimizer.lr=1",
                    "optimizer.schedule=constant")  # fmt: skip
    before = found.theta.detach().clone()
    gradient = torch.ones(found.theta.shape)
    found.rule.step(found.theta, gradient, 0.0)
    found.rule.step(found.theta, gradient, 0.0)
    torch.testing.assert_close(found.theta.detach(), before + 2.5)  # 1 + (1 + 0.5)


def test_each_seed_is_clipped_by_its_own_norm():
    found = learner("optimizer=sgd", "optimizer.lr=1", "optimizer.clip_norm=2",
                    "optimizer.schedule=constant")  # fmt: skip
    before = found.theta.detach().clone()
    gradient = torch.zeros(found.theta.shape)
    gradient[0, 0], gradient[1, 1] = 10.0, 1.0
    found.rule.step(found.theta, gradient, 0.0)
    step = found.theta.detach() - before
    assert step[0].norm().item() == pytest.approx(2)
    assert step[1].norm().item() == pytest.approx(1)


TORCH = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
    "rmsprop": torch.optim.RMSprop,
}


@pytest.mark.parametrize("decay", [None, 0.25])
@pytest.mark.parametrize(
    ("name", "momentum"), [*((name, None) for name in TORCH), ("sgd", 0.5), ("rmsprop", 0.5)]
)
def test_optimisers_are_torchs(name, momentum, decay):
    settings = [f"optimizer={name}", "optimizer.schedule=constant", "optimizer.lr=0.01"]
    options = {}
    if momentum is not None:
        settings.append(f"optimizer.momentum={momentum}")
        options["momentum"] = momentum
    if decay is not None:
        settings.append(f"optimizer.weight_decay={decay}")
        options["weight_decay"] = decay
    assert_steps_as_torchs(learner(*settings), name, **options)  # its defaults where null is given


def assert_steps_as_torchs(agent, name, **options):
    theta = torch.nn.Parameter(agent.theta.clone())
    theirs = TORCH[name]([theta], lr=0.01, **options)
    for _ in range(20):
        gradient = torch.randn(theta.shape)
        theta.grad = -gradient
        theirs.step()
        agent.rule.step(agent.theta, gradient, 0.0)
        torch.testing.assert_close(agent.theta, theta.detach(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", OPTIMIZERS.names)
def test_what_is_in_double_precision_stays_so(name):
    theirs_of = TORCH[name]
    settings = [f"optimizer={name}", "optimizer.weight_decay=0.1"]
    ours = optimizer(train_config(*settings).optimizer)
    theta = torch.randn(1, 9, dtype=torch.float64)
    other = torch.nn.Parameter(theta.clone())
    theirs, state = theirs_of([other], lr=0.01, weight_decay=0.1), ours.init(theta)
    for _ in range(20):
        gradient = torch.randn(1, 9, dtype=torch.float64)
        other.grad = gradient.clone()
        theirs.step()
        ours.update(theta, gradient, state, 0.01)
    torch.testing.assert_close(theta, other.detach(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_the_moments_of_adam_have_settings(name):
    line = (f"optimizer={name}", "optimizer.schedule=constant", "optimizer.lr=0.01",
            "optimizer.betas=[0.5,0.7]", "optimizer.eps=0.1",
            "optimizer.weight_decay=0.25")  # fmt: skip
    options = {"betas": (0.5, 0.7), "eps": 0.1, "weight_decay": 0.25}
    assert_steps_as_torchs(learner(*line), name, **options)


@pytest.mark.parametrize("name", OPTIMIZERS.names)
def test_a_seed_beside_others_steps_as_it_would_alone(name):
    """Bit for bit, with a rate of its own as well."""
    both, alone = (learner(f"optimizer={name}", seeds=seeds) for seeds in [(0, 1), (1,)])
    for i in range(5):
        gradient = torch.randn(both.theta.shape)
        progress = 0.1 * i if i % 2 else [0.1 * i, 0.15 * i]
        own = progress if i % 2 else progress[1:]
        both.rule.step(both.theta, gradient, progress)
        alone.rule.step(alone.theta, gradient[1:], own)
        assert torch.equal(both.theta[1:], alone.theta)


def test_what_an_optimiser_remembers_is_restored():
    found, other = learner("optimizer=adam"), learner("optimizer=adam", seeds=(2, 3))
    for _ in range(3):
        found.rule.step(found.theta, torch.randn(found.theta.shape), 0.0)
    other.load(found.arrays())
    gradient = torch.randn(found.theta.shape)
    for one in (found, other):
        one.rule.step(one.theta, gradient, 0.0)
    assert torch.equal(found.theta, other.theta)
