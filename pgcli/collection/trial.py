"""Whether what an environment says of itself is so: its model, held against what it does."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from pgcli.collection.batch import Batch
from pgcli.environments.linear import Linear
from pgcli.environments.tabular import Tabular


def trial(model: Tabular | Linear) -> Trial | LinearTrial:
    """What holds batches against a model."""
    return LinearTrial(model) if isinstance(model, Linear) else Trial(model)


class Trial:
    """A model, held against what has been collected.

    Impossible is what has no probability. For improbable, the likelihood of what followed each
    state and action is compared with its mixture over all distributions (Dirichlet ½; Krichevsky
    and Trofimov 1981): E = mixture / model is a martingale of expectation 1 if the model is true,
    and so are the product of all E and their mean. By Ville's inequality their mean ever exceeds
    1/p with chance p at most, however long one looks and whatever the policy does.
    """

    def __init__(self, model: Tabular, level: float = 1e-6) -> None:
        self._model, self._level = model, level
        code = self._code(model.state, model.action, model.following).numpy()
        self._order = np.argsort(code, kind="stable")
        self._codes = code[self._order]
        self._most = int(np.unique(code, return_counts=True)[1].max())  # rewards of one transition
        cells = model.states * model.actions
        # One more cell: where episodes begin.
        begin = model.start.nonzero().flatten()
        self._cell = torch.cat([model.state * model.actions + model.action, begin * 0 + cells])
        self._chance = torch.cat([model.probability, model.start[begin]])
        self._begin = begin
        self._count = torch.zeros(len(self._cell), dtype=torch.float64)

    def add(self, batch: Batch) -> str | None:
        """Take in a batch whose observations are one-hot; what contradicts the model, if anything.

        Every transition, every first state, every time limit is looked at.
        """
        model, mask = self._model, batch.mask
        number = torch.arange(model.states, dtype=torch.float32)  # whole ones are exact
        at, last = ((x @ number).long() for x in (batch.obs, batch.final_obs))
        step, end = torch.arange(mask.shape[-1]), (batch.length - 1).unsqueeze(-1)
        following = torch.where(step == end, last.unsqueeze(-1), at.roll(-1, -1))
        over = (step == end) & batch.terminated.unsqueeze(-1)
        following = torch.where(over, model.states, following)
        state, action, following, reward = (x[mask] for x in (at, batch.act, following, batch.rew))

        early = batch.truncated & (batch.length != model.horizon)
        if bool(early.any()):
            length = int(batch.length[early][0])
            return f"an episode was cut after {length} steps, and the limit is {model.horizon}"
        first = at[..., 0][batch.length > 0]
        if bool((strange := model.start[first] == 0).any()):
            state_ = int(first[strange][0])
            return f"an episode began in state {state_}, which initial_state_distrib excludes"
        entry = self._entries(state, action, following, reward)
        if bool((strange := entry < 0).any()):
            s, a, following_, rew = (x[strange][0] for x in (state, action, following, reward))
            return self._impossible(int(s), int(a), int(following_), float(rew))
        began = len(model.state) + torch.searchsorted(self._begin, first)
        seen = torch.cat([entry, began])
        self._count += torch.bincount(seen, minlength=len(self._count)).double()
        return self._improbable()

    def _code(self, state: Tensor, action: Tensor, following: Tensor) -> Tensor:
        model = self._model
        return (state * model.actions + action) * (model.states + 1) + following

    def _entries(self, state: Tensor, action: Tensor, following: Tensor, reward: Tensor) -> Tensor:
        """Which of the model's K transitions each one is, by the nearest reward; -1: none.

        Environments may pay in float32, so rewards agree to six digits.
        """
        code, rew = self._code(state, action, following).numpy(), reward.numpy()
        known = self._model.reward.numpy()
        left = np.searchsorted(self._codes, code)
        entries, nearest = np.full(len(code), -1), np.full(len(code), np.inf)
        for i in range(self._most):
            place = np.minimum(left + i, len(self._codes) - 1)
            entry = self._order[place]
            away = np.abs(rew - known[entry])
            near = away <= 1e-6 * np.abs(known[entry]) + 1e-9
            fits = (self._codes[place] == code) & near
            nearer = fits & (away < nearest)
            entries, nearest = np.where(nearer, entry, entries), np.where(nearer, away, nearest)
        return torch.from_numpy(entries)

    def _impossible(self, state: int, action: int, following: int, reward: float) -> str:
        model = self._model
        same = (model.state == state) & (model.action == action) & (model.following == following)
        known = "which P excludes"
        if bool(same.any()):
            known = f"where P gives reward {float(model.reward[same][0]):g}"
        where = self._place(following)
        return f"in state {state} action {action} led to {where} with reward {reward:g}, {known}"

    def _improbable(self) -> str | None:
        n, chance, cells = self._count, self._chance, int(self._cell[-1]) + 1

        def summed(x: Tensor) -> Tensor:
            return x.new_zeros(cells).index_add(0, self._cell, x)

        outcomes, visits = summed(torch.ones_like(n)), summed(n)
        half = torch.tensor(0.5, dtype=torch.float64)
        each = torch.lgamma(n + half) - torch.lgamma(half) - n * chance.log()
        log_e = summed(each) + torch.lgamma(outcomes / 2) - torch.lgamma(visits + outcomes / 2)
        log_e = torch.where(outcomes > 1, log_e, 0.0)
        mean = torch.logsumexp(log_e, 0) - math.log(cells)
        if float(torch.logaddexp(mean, log_e.sum())) - math.log(2) < -math.log(self._level):
            return None
        worst = int(log_e.argmax())
        of = (self._cell == worst).nonzero().flatten()
        entry = int(of[(n[of] - visits[worst] * chance[of]).abs().argmax()])
        often = f"{int(n[entry])} of {int(visits[worst])} times"
        if worst == cells - 1:
            state = int(self._begin[entry - len(self._model.state)])
            return (
                f"{often} an episode began in state {state}, to which initial_state_distrib gives "
                f"{float(chance[entry]):.4g}"
            )
        state, action = divmod(worst, self._model.actions)
        where = self._place(int(self._model.following[entry]))
        return (
            f"in state {state} action {action} led to {where} {often}, and P says "
            f"{float(chance[entry]):.4g}"
        )

    def _place(self, following: int) -> str:
        return "the end" if following == self._model.states else f"state {following}"


class LinearTrial:
    """A linear model, held against what has been collected.

    Rewards follow from states and actions, up to what float32 leaves of these. What is left of the
    next state, and of the first one, over its deviation has mean 0 and square 1: all of it so far
    may be FAR deviations away, which a true model is with chance 1e-11 at each look.
    """

    FAR = 7.0
    ENOUGH = 100  # numbers, for sums of squares to be nearly normal
    ROUNDING = 1e-5

    def __init__(self, model: Linear) -> None:
        self._model = model
        self._sums = {"noise": np.zeros((3, len(model.noise)))}  # count, Σ z, Σ z²
        self._sums["start"] = np.zeros_like(self._sums["noise"])

    def add(self, batch: Batch) -> str | None:
        """Take in a batch; what contradicts the model, if anything."""
        model, mask = self._model, batch.mask
        if bool((early := batch.truncated & (batch.length != model.horizon)).any()):
            length = int(batch.length[early][0])
            return f"an episode was cut after {length} steps, and the limit is {model.horizon}"
        if bool(batch.terminated.any()):
            return "an episode ended by itself"
        obs, act = batch.obs.double(), batch.act.double()
        step, end = torch.arange(mask.shape[-1]), (batch.length - 1).unsqueeze(-1)
        last = batch.final_obs.double().unsqueeze(-2)
        following = torch.where((step == end).unsqueeze(-1), last, obs.roll(-1, -2))[mask]
        state, action = obs[mask], act[mask]
        size = state.abs() @ model.Q.abs() @ torch.ones_like(model.noise)
        size = size * state.abs().amax(-1) + (action.square() @ model.R.abs()).sum(-1)
        expected = replace(model, shift=0.0).reward(state, action)
        wrong = (batch.rew[mask] - expected).abs() > self.ROUNDING * (size + 1e-3)
        if bool(wrong.any()):
            s, a, r, x = (x[wrong][0].tolist() for x in (state, action, batch.rew[mask], expected))
            return f"in state {s} action {a} paid {r:g}, and Q and R say {x:g}"
        left = following - model.following(state, action)
        scale = following.abs() + (state.abs() @ model.A.abs().T) + (action.abs() @ model.B.abs().T)
        first = obs[..., 0, :][batch.length > 0]
        return self._apart("noise", left, model.noise, scale) or self._apart(
            "start", first - model.start_mean, model.start_std, first.abs() + 1e-3
        )

    def _apart(self, name: str, left: Tensor, std: Tensor, scale: Tensor) -> str | None:
        """What is wrong with deviations [M, d] that are said to be std large."""
        what = "of the next state from As + Ba" if name == "noise" else "of the first state"
        # Where what is said drowns in the rounding of states to float32, it cannot be told from it.
        drowned = std <= self.ROUNDING * (scale + 1e-3)  # [M, d]
        if bool((left.abs() > self.ROUNDING * (scale + 1e-3) + self.FAR * std)[drowned].any()):
            worst = float(left[drowned].abs().max())
            return f"a deviation {what} of {worst:g}, and it says {float(std.max()):g}"
        z = torch.where(drowned, 0.0, left / torch.where(std == 0, 1.0, std)).numpy()
        known = self._sums[name]
        known += np.stack([(~drowned).sum(0).numpy(), z.sum(0), (z**2).sum(0)])
        count, total, square = known
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = np.abs(total) / np.sqrt(count)
            spread = np.abs(square - count) / np.sqrt(2 * count)
        far = count >= self.ENOUGH
        far &= (mean > self.FAR) | (spread > self.FAR)
        if not far.any():
            return None
        i = int(far.argmax())
        unit = float(std[i])
        found = unit * total[i] / count[i], unit * math.sqrt(square[i] / count[i])
        return (
            f"deviations {what} in dimension {i} have mean {found[0]:.4g} and are {found[1]:.4g} "
            f"large, and it says 0 and {unit:.4g}"
        )
