"""What an estimator looks at, made of a batch: the one recipe, whoever trains or compares."""

from __future__ import annotations

from torch import Tensor

from pgcli.collection.batch import Batch
from pgcli.estimators.phi import Episodes


def episodes(
    batch: Batch,
    reward_shift: float,
    *,
    value: tuple[Tensor, Tensor] | None = None,
    q: Tensor | None = None,
    log_ratio: Tensor | None = None,
    compatible: Tensor | None = None,
    scale: Tensor | None = None,
) -> Episodes:
    """The batch's episodes, [S, N, T], with `reward_shift` added to every reward.

    value: V(s_t) [S, N, T] and V of the final observations [S, N]; q: Q(s_t, a_t) [S, N, T];
    log_ratio: log π/π_behaviour [S, N, T], where they differ; compatible: ψᵀw [S, N, T];
    scale: what rewards are multiplied by, [S].
    """
    along, final = value if value is not None else (None, None)
    rew = rewards(batch, reward_shift, scale)
    looked = batch.mask, batch.truncated, along, final, q, log_ratio, compatible
    return Episodes(rew, *looked, cut=batch.cut, age=batch.age)


def rewards(batch: Batch, reward_shift: float, scale: Tensor | None = None) -> Tensor:
    """The rewards that are learned from, [S, N, T]; zero where padded."""
    shifted = (batch.rew + reward_shift) * batch.mask if reward_shift else batch.rew
    return shifted if scale is None else shifted * scale[:, None, None]
