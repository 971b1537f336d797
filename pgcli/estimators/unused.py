"""Which settings of an estimator can have no effect, found out by looking at what is read.

So it holds for parts of one's own as well.
"""

from __future__ import annotations

from dataclasses import fields

import torch

from pgcli.estimators.estimator import critics, q_target, terms, value_target
from pgcli.estimators.phi import Episodes, phi
from pgcli.settings.schema import ComparedEstimator, CriticConfig, EstimatorConfig

USED_BY = {  # who reads what not everybody does
    "lam": "estimator.phi=gae and the targets td_lambda and expected_sarsa",
    "bootstrap": "TD residuals: estimator.phi=td, n_step, gae, or a critic with target=td_lambda",
    "n": "estimator.phi=n_step",
    "constant": "estimator.baseline=constant",
    "self_normalize": "importance weights of data that another policy collected",
    "clip_ratio": "importance weights of data that another policy collected",
}
# Read before there is an episode.
DECIDED = {"phi", "baseline", "importance", "scale_rewards", "exact"}


class _Watched(EstimatorConfig):
    """Notes which of its settings are read."""

    def __getattribute__(self, name: str) -> object:
        if not name.startswith("_"):
            object.__getattribute__(self, "__dict__").setdefault("_read", set()).add(name)
        return object.__getattribute__(self, name)


def unused(
    config: EstimatorConfig, critic: CriticConfig | None, off_policy: bool
) -> dict[str, str]:
    """The settings `estimator.<name>` that have no effect with the others: why, by key.

    `critic`: how critics are regressed; None: on returns, whatever the settings say.
    """
    read = _read(config, critic, off_policy)
    names = {f.name for f in fields(EstimatorConfig)} - DECIDED - read
    idle = {name: f"it is for {USED_BY.get(name, 'other estimators')}" for name in names}
    if config.weighted and not off_policy:
        idle["importance"] = "on-policy every weight is 1"
    if phi(config).from_start:
        idle["discount_state"] = f"estimator.phi={config.phi} has γ^t in it"
    elif config.gamma == 1:
        idle["discount_state"] = "estimator.gamma is 1"
    if isinstance(config, ComparedEstimator) and not critics(config) & {"value", "linear"}:
        idle["value_error"] = "it is for estimators that look at V"
    return {f"estimator.{name}": why for name, why in idle.items()}


def _read(config: EstimatorConfig, critic: CriticConfig | None, off_policy: bool) -> set[str]:
    """Names of the settings that are read to weigh two episodes, and for the critics' targets."""
    watched = _Watched(**{f.name: getattr(config, f.name) for f in fields(EstimatorConfig)})
    watched.__dict__["_read"] = set()
    kinds = critics(config)
    try:
        looked = _episodes(off_policy)
        terms(watched, looked)
        if critic is not None and kinds & {"value", "linear", "compatible"}:
            value_target(watched, critic, looked)
        if critic is not None and "q" in kinds:
            q_target(watched, critic, looked)
    except Exception:  # a part of one's own may want more than this: who knows what it reads
        return {f.name for f in fields(config)}
    read: set[str] = watched.__dict__["_read"]
    return read


def _episodes(off_policy: bool) -> Episodes:
    """Two, of two steps, that have all there is."""
    one = torch.ones(1, 2, 2, dtype=torch.float64)
    mask = one.bool()
    short = one[..., 0]
    ratio = 0.1 * one if off_policy else None
    return Episodes(one, mask, short.bool(), one, short, one, ratio, one)
