"""Environments whose model is known: Gymnasium's toy-text ones and any that expose `P` likewise."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from pgcli.environments.batch import Batch
from pgcli.environments.looks import layers

# Wrappers that change nothing that a model says.
PASSING = (gym.wrappers.TimeLimit, gym.wrappers.OrderEnforcing, gym.wrappers.PassiveEnvChecker)


@dataclass(frozen=True)
class Tabular:
    """A finite decision process with a time limit; the last state index is the terminal one.

    K transitions (s, a) → s' of positive probability, one entry each per distinct reward.
    """

    start: Tensor  # [states] float64: distribution of the first state
    state: Tensor  # [K] int64
    action: Tensor  # [K] int64
    following: Tensor  # [K] int64; `states` where the episode terminates
    probability: Tensor  # [K] float64: of s' and this reward, given (s, a)
    reward: Tensor  # [K] float64
    actions: int
    horizon: int  # steps after which an episode is cut

    @property
    def states(self) -> int:
        """How many there are, the terminal one not counted."""
        return len(self.start)


def read_model(env: gym.Env[Any, Any], horizon: int, reward_shift: float = 0.0) -> Tabular | None:
    """The model of an environment; None where it does not expose one.

    `P[s][a]` lists (probability, next state, reward, terminated), and `initial_state_distrib` the
    first state's distribution, as Gymnasium's toy-text ones do; both of the outermost layer that
    has a P. Raises ValueError where these contradict the spaces or are no distributions.
    """
    layer = _speaker(env)
    if not _has_model(layer):
        return None
    table, start = (_of(layer, name) for name in ("P", "initial_state_distrib"))
    seen, acted = env.observation_space, env.action_space
    if table is None or start is None:
        return None
    if not (isinstance(seen, spaces.Discrete) and isinstance(acted, spaces.Discrete)):
        return None
    if seen.start != 0 or acted.start != 0:
        return None
    states, actions = int(seen.n), int(acted.n)
    found: dict[tuple[int, int, int, float], float] = defaultdict(float)
    for s in range(states):
        for a in range(actions):
            outcomes = table[s][a]
            total = sum(float(p) for p, *_ in outcomes)
            if abs(total - 1) > 1e-6:
                raise ValueError(f"P[{s}][{a}] sums to {total}")
            for p, following, reward, terminated in outcomes:
                if p > 0:
                    end = states if terminated else int(following)
                    found[s, a, end, float(reward) + reward_shift] += float(p) / total
    first = np.asarray(start, np.float64)
    if first.shape != (states,) or abs(first.sum() - 1) > 1e-6:
        raise ValueError(f"initial_state_distrib is no distribution over {states} states")
    *places, rewards = zip(*found, strict=True)
    state, action, following = (torch.tensor(column, dtype=torch.int64) for column in places)
    reward = torch.tensor(rewards, dtype=torch.float64)  # by itself torch takes float32
    probability = torch.tensor(list(found.values()), dtype=torch.float64)
    begin = torch.from_numpy(first / first.sum())
    return Tabular(begin, state, action, following, probability, reward, actions, horizon)


def hidden_by(env: gym.Env[Any, Any]) -> str | None:
    """The wrapper because of which the P further in says nothing of what is seen out here."""
    layer = _speaker(env)
    if _has_model(layer) or not _has_model(env.unwrapped):
        return None
    return type(layer).__name__


def _speaker(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """The outermost layer with a P, or that may change what an inner one says."""
    for layer in layers(env):
        if _has_model(layer) or (isinstance(layer, gym.Wrapper) and type(layer) not in PASSING):
            break
    return layer


def _has_model(layer: gym.Env[Any, Any]) -> bool:
    """Whether it has a P of its own: a wrapper may pass the question on."""
    own = "P" in vars(layer) or any("P" in vars(kind) for kind in type(layer).__mro__)
    return own or (not isinstance(layer, gym.Wrapper) and hasattr(layer, "P"))


def _of(layer: gym.Env[Any, Any], name: str) -> Any:
    """An attribute of a layer, or of one within; None where there is none."""
    return layer.get_wrapper_attr(name) if layer.has_wrapper_attr(name) else None


class Trial:
    """A model, held against what has been collected.

    Impossible is what has no probability. For improbable, the likelihood of what followed each
    state and action is compared with its mixture over all distributions (Dirichlet ½; Krichevsky
    and Trofimov 1981): E = mixture / model is a martingale of expectation 1 if the model is true,
    and so are the product of all E and their mean. By Ville's inequality their mean ever exceeds
    1/p with chance p at most, however long one looks and whatever the policy does.
    """

    def __init__(self, model: Tabular, reward_shift: float = 0.0, level: float = 1e-6) -> None:
        self._model, self._shift, self._level = model, reward_shift, level
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

        Environments may pay in float32, so rewards agree to six digits; in those of the
        environment's own reward, however far it is shifted.
        """
        code, rew = self._code(state, action, following).numpy(), reward.numpy()
        known, rounding = self._model.reward.numpy(), 2 * np.spacing(abs(self._shift))
        left = np.searchsorted(self._codes, code)
        found, nearest = np.full(len(code), -1), np.full(len(code), np.inf)
        for i in range(self._most):
            place = np.minimum(left + i, len(self._codes) - 1)
            entry = self._order[place]
            away, own = np.abs(rew - known[entry]), np.abs(known[entry] - self._shift)
            fits = (self._codes[place] == code) & (away <= 1e-6 * own + 1e-9 + rounding)
            nearer = fits & (away < nearest)
            found, nearest = np.where(nearer, entry, found), np.where(nearer, away, nearest)
        return torch.from_numpy(found)

    def _impossible(self, state: int, action: int, following: int, reward: float) -> str:
        model = self._model
        same = (model.state == state) & (model.action == action) & (model.following == following)
        known = "which P excludes"
        if bool(same.any()):
            known = f"where P gives reward {float(model.reward[same][0]) - self._shift:g}"
        where = self._place(following)
        return (
            f"in state {state} action {action} led to {where} with reward "
            f"{reward - self._shift:g}, {known}"
        )

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
