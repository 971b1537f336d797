"""Maps of moments along the transitions of a known model."""

from __future__ import annotations

import torch
from torch import Tensor


def spread(
    left: Tensor, right: Tensor, following: Tensor, cell: Tensor, shape: tuple[int, int]
) -> Tensor:
    """The linear map M ↦ Σ_k left_k M(s'_k) right_kᵀ from states s' to cells (s, a).

    For left [K, i, v] and right [K, j, a], sparse [cells · i · j, states · v · a].
    """
    (i, v), (j, a) = left.shape[1:], right.shape[1:]
    (li, lv), (rj, ra) = (x.ne(0).any(0).nonzero().T for x in (left, right))  # few of many
    value = left[:, li, lv].unsqueeze(2) * right[:, rj, ra].unsqueeze(1)  # [K, left's, right's]
    row = cell[:, None, None] * (i * j) + (li * j)[:, None] + rj
    column = following[:, None, None] * (v * a) + (lv * a)[:, None] + ra
    kept = value != 0
    index = torch.stack([x[kept] for x in (row, column)])
    size = (shape[0] * i * j, shape[1] * v * a)
    return torch.sparse_coo_tensor(index, value[kept], size, check_invariants=False).coalesce()
