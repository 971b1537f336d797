"""The estimators of the textbook on a batch of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from pgcli.errors import ConfigError
from pgcli.estimators import estimator
from pgcli.estimators.baselines import baseline
from pgcli.estimators.phi import Episodes
from pgcli.gradients.control import controlled

GIVEN = {"value": "values", "q": "q_values", "linear": "values"}  # by the critic that is asked for


class Estimate(NamedTuple):
    """What an estimator makes of N episodes of at most T steps."""

    weights: np.ndarray  # [N, T] float64: on the score of each step, zero where padded
    gradient: np.ndarray | None  # [P]: mean over episodes of Σ_t weight · score; None without them
    per_episode: np.ndarray | None  # [N, P]
    variance: float | None  # tr Σ̂ / N of the gradient, by the spread of the episodes


def estimate(
    name: str,
    rewards: Sequence[ArrayLike] | ArrayLike,
    *,
    values: Any = None,
    final_values: ArrayLike | None = None,
    q_values: Any = None,
    log_ratios: Any = None,
    truncated: ArrayLike | None = None,
    scores: Any = None,
    **settings: Any,
) -> Estimate:
    """The weights of a preset of `conf/estimator/`, or of none but `settings`, on N whole episodes.

    name: `gae`, `rtg_mean`, ...; settings: those of `estimator.`, such as lam=0.9.
    rewards: N arrays [T_n], or one [N, T] whose episodes are all of T steps. values: V(s_t), and
    q_values: Q(s_t, a_t), in the same form; final_values [N]: V of the observation after the last
    step, used with bootstrap=True where `truncated` [N]. log_ratios: log π_θ(a|s)/π_old(a|s).
    scores: ∇ log π(a_t|s_t), N arrays [T_n, P], or [N, T, P].

    A normalising or leave-one-out estimator takes the N episodes for its batch. ConfigError for
    what the estimator needs and was not given.
    """
    config = _config(name, settings)
    given = {"values": values, "q_values": q_values}
    for critic in sorted(estimator.critics(config)):
        if critic not in GIVEN:
            allowed = f"its {critic} advantage is fitted on a policy's scores: pg.compare"
            raise ConfigError("estimator", name, allowed)
        if given[GIVEN[critic]] is None:
            raise ConfigError(GIVEN[critic], None, f"{name} needs them")
    rew, mask = _padded(rewards, "rewards")
    like = {"rewards": mask}
    looked = Episodes(
        rew=rew,
        mask=mask,
        truncated=torch.zeros(len(rew), dtype=torch.bool)
        if truncated is None
        else torch.as_tensor(np.asarray(truncated, bool)),
        value=_alike(values, "values", like),
        final_value=None if values is None else _of_each(final_values, len(rew)),
        q=_alike(q_values, "q_values", like),
        log_ratio=_alike(log_ratios, "log_ratios", like),
    )
    terms = estimator.terms(config, looked)
    weights = terms.weights
    if (fitted := baseline(config).fitted) is not None and scores is None:
        raise ConfigError("scores", None, f"the baseline of {name} is fitted on them")
    if scores is None:
        return Estimate(weights.numpy(), None, None, None)
    score, there = _padded(scores, "scores", width=1)
    if not torch.equal(there, mask):
        raise ConfigError("scores", list(score.shape), "as many steps as there are rewards")
    each = torch.einsum("nt,ntp->np", weights, score)
    if fitted is not None:
        unit = torch.einsum("nt,ntp->np", terms.control, score)
        each = controlled(each, unit, per_parameter=fitted == "per_parameter")
    spread = float(each.var(0, unbiased=True).sum() / len(each)) if len(each) > 1 else float("nan")
    return Estimate(weights.numpy(), each.mean(0).numpy(), each.numpy(), spread)


def _config(name: str, settings: dict[str, Any]) -> Any:
    from pgcli.cli.compose import compose_all, literal

    own = [f"estimator.{key}={literal(value)}" for key, value in settings.items()]
    line = [f"estimator={name}", "method=none", *own]
    (one,) = compose_all("train", line, None, multirun=False)
    return one.config.estimator


def _padded(x: Any, what: str, width: int = 0) -> tuple[Tensor, Tensor]:
    """[N, T, ...] float64, and where it is no padding [N, T]."""
    try:
        parts = [torch.as_tensor(np.asarray(one, np.float64)) for one in x]
    except (TypeError, ValueError) as error:
        raise ConfigError(what, type(x).__name__, "arrays of numbers, one per episode") from error
    if not parts or any(one.ndim != 1 + width or len(one) == 0 for one in parts):
        raise ConfigError(
            what, [list(one.shape) for one in parts], "an array per episode, none empty"
        )
    length = torch.tensor([len(one) for one in parts])
    mask = torch.arange(int(length.max())) < length[:, None]
    return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True), mask


def _alike(x: Any, what: str, like: dict[str, Tensor]) -> Tensor | None:
    if x is None:
        return None
    padded, there = _padded(x, what)
    ((name, mask),) = like.items()
    if not torch.equal(there, mask):
        raise ConfigError(what, list(padded.shape), f"as many steps as there are {name}")
    return padded


def _of_each(x: ArrayLike | None, n: int) -> Tensor:
    given = np.zeros(n) if x is None else np.asarray(x, np.float64)
    if given.shape != (n,):
        raise ConfigError("final_values", list(given.shape), f"{n} numbers, one per episode")
    return torch.as_tensor(given)
