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
    (k, i, v), (j, a) = left.shape, right.shape[1:]
    value = torch.einsum("kiv,kja->kijva", left, right)
    row = torch.arange(i * j).reshape(i, j, 1, 1) + cell.reshape(k, 1, 1, 1, 1) * (i * j)
    column = torch.arange(v * a).reshape(v, a) + following.reshape(k, 1, 1, 1, 1) * (v * a)
    kept = value != 0
    index = torch.stack([x.expand(value.shape)[kept] for x in (row, column)])
    size = (shape[0] * i * j, shape[1] * v * a)
    return torch.sparse_coo_tensor(index, value[kept], size, check_invariants=False).coalesce()
