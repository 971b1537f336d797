"""What learns: the parameters of S policies, their update rule and, where needed, their critics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from pgcli.collection.batch import Batch
from pgcli.collection.episodes import rewards
from pgcli.estimators.returns import returns_so_far
from pgcli.gradients.critics import QCritic
from pgcli.policies.critic import ALONE, SEEN
from pgcli.policies.critics import StateCritic
from pgcli.policies.fused import load
from pgcli.policies.normalizer import Moments
from pgcli.policies.policy import Policy
from pgcli.settings.schema import TrainConfig
from pgcli.updates.optimizers import copy_into
from pgcli.updates.rule import Rule, Start, rule

CARRIED = "reward_scale/carried"


def unsaved(name: str) -> float | None:
    """What an array stands at in a run of a version that did not save it; None: all have it."""
    if name == CARRIED:
        return 0.0  # each part began there
    first, *_, last = name.split("/")
    is_scale = first in ("value", "q") and last == SEEN and "/own/" not in name
    return ALONE if is_scale else None


class Learner:
    """S agents side by side. All state that training changes is here and fits in `arrays()`."""

    def __init__(
        self,
        config: TrainConfig,
        policy: Policy,
        states: Mapping[str, StateCritic],
        q: QCritic | None,
        seeds: Sequence[int],
        device: torch.device,
        slots: int = 0,
    ) -> None:
        """`states`: V by the name of its kind, at most one; `q`: Q, where there is any.

        slots: of a seed, where they play on from batch to batch.
        """
        self.policy, self.states, self.q = policy, states, q
        self.value = next(iter(states.values()), None)
        self.theta = policy.init(config.policy, seeds).to(device)
        passes = config.update.minibatches is not None
        load(policy, self.theta, bool(config.policy.entropy_coef), passes)
        self.moments = None
        if policy.normalized is not None:
            self.moments = Moments(len(seeds), policy.net.sizes[0], device)
        self._gamma, self._shift = config.estimator.gamma, config.env.reward_shift
        self.so_far = Moments(len(seeds), 1, device) if config.estimator.scale_rewards else None
        # The discounted return so far of each slot, 0 where its next step begins an episode.
        self._carried = torch.zeros(len(seeds), slots, dtype=torch.float64, device=device)
        start = Start(policy.learned(self.theta), config.optimizer, seeds)
        self.rule: Rule = rule(config.update, start)

    def see(self, batch: Batch) -> None:
        """Let what observations and rewards are normalised by follow a batch, when it is done."""
        if self.moments is not None:
            self.moments.merge(batch.obs, batch.mask)
            self.policy.normalize_by(self.theta, self.moments.mean, self.moments.scale)
        if self.so_far is not None and (before := self.reward_scale) is not None:
            so_far = self._returns_so_far(batch)
            self.so_far.merge(so_far.unsqueeze(-1), batch.mask)
            for critic in (self.value, self.q):
                if critic is not None:  # what they tell is in the new unit at once
                    critic.scale(self.so_far.scale[:, 0] / before)

    def _returns_so_far(self, batch: Batch) -> Tensor:
        """[S, N, T], those of parts of episodes with what earlier batches had of them."""
        rew = rewards(batch, self._shift)
        if batch.unit is None or batch.age is None or batch.cut is None:
            return returns_so_far(rew, self._gamma)
        before = torch.where(batch.age > 0, self._carried.gather(1, batch.unit), 0.0)
        so_far = returns_so_far(rew, self._gamma, before)
        last = so_far.gather(-1, (batch.length - 1).clamp(min=0).unsqueeze(-1)).squeeze(-1)
        goes_on = torch.where(batch.cut & (batch.length > 0), last, 0.0)
        self._carried.zero_().scatter_add_(1, batch.unit, goes_on)
        return so_far

    @property
    def reward_scale(self) -> Tensor | None:
        """What rewards are multiplied by, [S] float64; None: they are as they are."""
        return None if self.so_far is None else self.so_far.scale[:, 0].clone()

    def arrays(self) -> dict[str, np.ndarray]:
        """Copies of everything that learns, by name."""
        return {name: x.detach().cpu().numpy().copy() for name, x in self._tensors().items()}

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Take over what `arrays()` gave, bit for bit; KeyError or ValueError where it differs."""
        for name, x in self._tensors().items():
            if name in arrays or (before := unsaved(name)) is None:
                copy_into(x, arrays[name])
            else:
                x.fill_(before)

    def _tensors(self) -> dict[str, Tensor]:
        """Everything that learns, live."""
        tensors = {"theta": self.theta, **_below("optimizer", self.rule.state())}
        if self.moments is not None:
            tensors |= _below("normalizer", self.moments.state())
        if self.so_far is not None:
            tensors |= _below("reward_scale", self.so_far.state())
            if self._carried.shape[1]:
                tensors[CARRIED] = self._carried
        for name, state in self.critics().items():
            tensors |= _below(name, state)
        return tensors

    def critics(self) -> dict[str, dict[str, Tensor]]:
        """The tensors of each critic, live, by its name: "value", "q"."""
        there = {"value": self.value, "q": self.q}
        return {name: one.state() for name, one in there.items() if one is not None}


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}/{key}": x for key, x in tensors.items()}
