"""Whether a run can succeed as it is set: what its first iterations give away."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pgcli.policies.heads import Head
from pgcli.runs import tags

FIRST, LONG = 10, 30  # iterations: what a run began with; after which it is judged
ENOUGH, LATE = 0.2, 0.5  # of the budget: to judge by; to still do something about it
FAINT = 0.1  # a signal-to-noise ratio far below 1
LEFT = 0.01  # of the entropy that a policy began with; of σ, in each direction
ERRORS = 2.0  # standard errors that a mean return has to rise by

PARTS = ("first", "recent", "count", "said")


@dataclass
class Outlook:
    """The first and the newest figures of S seeds; all of it fits in `arrays()`."""

    first: np.ndarray  # [S, FIRST, 2]: return and entropy, NaN where none yet
    recent: np.ndarray  # [S, LONG, 3]: return, entropy and signal-to-noise ratio
    count: np.ndarray  # [S] int64: iterations that were looked at
    said: np.ndarray  # [2] bool: of `faint` and `settled`

    @classmethod
    def start(cls, seeds: int) -> Outlook:
        """Nothing seen yet."""
        none = np.full((seeds, FIRST, 2), np.nan), np.full((seeds, LONG, 3), np.nan)
        return cls(*none, np.zeros(seeds, np.int64), np.zeros(2, bool))

    def add(self, record: Mapping[str, np.ndarray], ran: np.ndarray) -> None:
        """An iteration of the n seeds that `ran`: figures [n] by tag."""
        for i, *row in zip(ran, *(record[t] for t in (tags.RETURN, tags.ENTROPY, tags.SNR)),
                           strict=True):  # fmt: skip
            if self.count[i] < FIRST:
                self.first[i, self.count[i]] = row[:2]
            self.recent[i] = np.concatenate([self.recent[i, 1:], [row]])
            self.count[i] += 1

    def tells(self, spent: float, head: Head) -> list[str]:
        """What has come up in an iteration, each thing once; `spent` of the budget in [0, 1]."""
        directions = None if head.count is not None else math.prod(head.action_shape)
        faint = self.faint() if spent >= ENOUGH and not self.said[0] else None
        settled = self.settled(spent, directions) if not self.said[1] else None
        self.said |= [faint is not None, settled is not None]
        return [text for text in (faint, settled) if text is not None]

    def faint(self) -> str | None:
        """That seeds have learned nothing from gradients that are all noise; None: no seed has."""
        ratio = np.median(self.recent[..., 2], 1)  # NaN: not measured, or not long enough
        with np.errstate(invalid="ignore"):
            which = ratio < FAINT
        if not which.any() or not (which := which & ~self._risen()).any():
            return None
        return (
            f"signal-to-noise ratio of the gradient around {np.median(ratio[which]):.2g} over "
            f"{LONG} iterations{_of(which)}, and the return has not risen since the start: a batch "
            "shows little of the gradient. A larger batch_size, or less noise (estimator=rtg_value "
            "or gae, update=proximal), usually helps"
        )

    def settled(self, spent: float, directions: int | None) -> str | None:
        """That policies have become deterministic while much of the budget is left; None: none.

        `directions`: how many a Gaussian action has; None for one of a set.
        """
        if spent > LATE:
            return None
        start, now = self.first[:, 0, 1], self.recent[:, -FIRST:, 1].mean(1)
        with np.errstate(invalid="ignore"):
            if directions is None:
                which = now < LEFT * start
            else:
                which = (now - start) / directions < math.log(LEFT)
        which &= self.count >= FIRST
        if not which.any():
            return None
        return (
            f"the policy{_of(which)} hardly explores any more (entropy {now[which].mean():.2g} "
            f"nats a step, from {start[which].mean():.2g}) with {1 - spent:.0%} of the budget left:"
            " if it is not good enough yet, policy.entropy_coef or a smaller step usually helps"
        )

    def _risen(self) -> np.ndarray:
        """Whether the mean return of the newest iterations is above that of the first ones, [S]."""
        start, now = self.first[..., 0], self.recent[..., 0]
        error = np.sqrt(start.var(1, ddof=1) / FIRST + now.var(1, ddof=1) / LONG)
        risen: np.ndarray = now.mean(1) > start.mean(1) + ERRORS * error
        return risen

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything, by name."""
        return {f"outlook/{name}": getattr(self, name).copy() for name in PARTS}

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Take over what `arrays()` gave; a run that did not look goes on from here."""
        for name in PARTS:
            if f"outlook/{name}" in arrays:
                setattr(self, name, arrays[f"outlook/{name}"].copy())


def _of(which: np.ndarray) -> str:
    return "" if which.all() else f" of {which.sum()} of {len(which)} seeds"
