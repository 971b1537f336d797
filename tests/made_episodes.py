"""Random episodes, and estimators to try on them."""

from dataclasses import replace

import torch
from settings import train_config

from pgcli.estimators.phi import Episodes
from pgcli.settings.schema import Target


def episodes(seed=0, shape=(2, 3), steps=9):
    """Random episodes of different lengths, some cut by a limit."""
    rng = torch.Generator().manual_seed(seed)
    length = torch.randint(1, steps + 1, shape, generator=rng)
    mask = torch.arange(steps) < length.unsqueeze(-1)
    size = (*shape, steps)
    rew, value = (torch.randn(size, generator=rng, dtype=torch.float64) * mask for _ in range(2))
    final = torch.randn(shape, generator=rng, dtype=torch.float64)
    return Episodes(rew, mask, torch.rand(shape, generator=rng) < 0.5, value, final)


def config(phi="reward_to_go", baseline="none", importance="none", **values):
    given = {"gamma": 0.97, "lam": 0.9, "bootstrap": True, **values}
    return replace(
        train_config().estimator,
        phi=phi,
        baseline=baseline,
        importance=importance,
        **given,
    )


def aims(target, lam=None):
    """A critic with that target."""
    return replace(train_config().critic, target=Target[target], lam=lam)
