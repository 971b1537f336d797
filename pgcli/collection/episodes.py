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
) -> Episodes:
    """The batch's episodes, [S, N, T], with `reward_shift` added to every reward.

    value: V(s_t) [S, N, T] and V of the final observations [S, N]; q: Q(s_t, a_t) [S, N, T];
    log_ratio: log π/π_behaviour [S, N, T], where they differ; compatible: ψᵀw [S, N, T].
    """
    along, final = value if value is not None else (None, None)
    return Episodes(rewards(batch, reward_shift), batch.mask, batch.truncated, along, final, q,
                    log_ratio, compatible)  # fmt: skip


def rewards(batch: Batch, reward_shift: float) -> Tensor:
    """The rewards that are learned from, [S, N, T]; zero where padded."""
    return (batch.rew + reward_shift) * batch.mask if reward_shift else batch.rew
