"""A small MDP whose every trajectory can be listed: the oracle that estimators are held to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pgcli.collection.batch import Batch
from pgcli.environments.tabular import Tabular
from pgcli.policies.heads import Categorical
from pgcli.policies.network import Mlp
from pgcli.policies.policy import Policy


@dataclass(frozen=True)
class TinyMdp:
    """P[s, a, s'] (the last s' is terminal), R[s, a, s'], start distribution, time limit."""

    P: np.ndarray
    R: np.ndarray
    start: np.ndarray
    horizon: int

    @classmethod
    def random(cls, seed: int, states: int = 2, actions: int = 2, horizon: int = 3) -> TinyMdp:
        """Drawn by that seed."""
        rng = np.random.default_rng(seed)
        return cls(
            P=rng.dirichlet(np.ones(states + 1), size=(states, actions)),
            R=rng.normal(size=(states, actions, states + 1)) + 1.0,
            start=rng.dirichlet(np.ones(states)),
            horizon=horizon,
        )

    @property
    def states(self) -> int:
        """How many there are, the terminal one not counted."""
        return len(self.start)

    @property
    def actions(self) -> int:
        """How many there are."""
        return self.P.shape[1]

    @cached_property
    def trajectories(self) -> list[tuple[list[int], list[int], list[float], int, bool]]:
        """All (states, actions, rewards, final state, terminated), in depth-first order."""
        found = []

        def walk(s: int, ss: list[int], aa: list[int], rr: list[float]) -> None:
            for a in range(self.actions):
                for nxt in np.flatnonzero(self.P[s, a]).tolist():
                    ss_, aa_, rr_ = [*ss, s], [*aa, a], [*rr, float(self.R[s, a, nxt])]
                    if nxt == self.states or len(aa_) == self.horizon:
                        found.append((ss_, aa_, rr_, nxt, nxt == self.states))
                    else:
                        walk(nxt, ss_, aa_, rr_)

        for s in range(self.states):
            walk(s, [], [], [])
        return found

    @cached_property
    def batch(self) -> Batch:
        """Every trajectory once, as one batch of a single seed, in float64."""
        n, t, d = len(self.trajectories), self.horizon, self.states
        obs, final = torch.zeros(1, n, t, d).double(), torch.zeros(1, n, d).double()
        act = torch.zeros(1, n, t, dtype=torch.int64)
        rew, mask = torch.zeros(1, n, t).double(), torch.zeros(1, n, t, dtype=torch.bool)
        terminated = torch.zeros(1, n, dtype=torch.bool)
        for i, (ss, aa, rr, end, over) in enumerate(self.trajectories):
            k = len(aa)
            obs[0, i, torch.arange(k), torch.tensor(ss)] = 1
            act[0, i, :k], mask[0, i, :k] = torch.tensor(aa), True
            rew[0, i, :k] = torch.tensor(rr, dtype=torch.float64)
            terminated[0, i] = over
            if not over:
                final[0, i, end] = 1
        return Batch(obs, act, rew, mask, terminated, ~terminated, final, mask.sum(-1))

    def policy(self, hidden: tuple[int, ...] = (3,)) -> Policy:
        """A small network between its spaces."""
        return Policy(Mlp((self.states, *hidden, self.actions)), Categorical(self.actions))

    def probabilities(self, policy: Policy, theta: Tensor) -> Tensor:
        """Probability of each trajectory under the policy, [N]; differentiable in theta [1, P]."""
        b = self.batch
        logp = policy.log_prob(theta, b.obs.flatten(1, 2), b.act.flatten(1, 2))
        model = [
            np.log(self.start[ss[0]])
            + sum(np.log(self.P[s, a, n]) for s, a, n in zip(ss, aa, [*ss[1:], end], strict=True))
            for ss, aa, _, end, _ in self.trajectories
        ]
        per_step = logp.reshape(b.mask.shape)[0] * b.mask[0]
        return (per_step.sum(-1) + torch.tensor(model, dtype=torch.float64)).exp()

    def action_probabilities(self, policy: Policy, theta: Tensor) -> Tensor:
        """π(a|s), [states, actions]."""
        eye = torch.eye(self.states, dtype=theta.dtype).unsqueeze(0)
        return policy.distribution(theta, eye)[0][0].softmax(-1)

    def values(self, pi: Tensor, gamma: float) -> Tensor:
        """V_t(s) at t = 0..T of the time-limited task, [T + 1, states + 1]: V_T = 0."""
        P, R = torch.from_numpy(self.P), torch.from_numpy(self.R)
        v = [torch.zeros(self.states + 1).double()]
        for _ in range(self.horizon):
            q = (P * (R + gamma * v[0])).sum(-1)  # [states, actions]
            v.insert(0, torch.cat([(pi * q).sum(-1), torch.zeros(1).double()]))
        return torch.stack(v)

    def action_values(self, pi: Tensor, gamma: float) -> Tensor:
        """Q_t(s, a) at t = 0..T−1, [T, states + 1, actions]; zero in the terminal state."""
        P, R = torch.from_numpy(self.P), torch.from_numpy(self.R)
        v = self.values(pi, gamma)
        q = torch.stack([(P * (R + gamma * v[t + 1])).sum(-1) for t in range(self.horizon)])
        return torch.cat([q, torch.zeros(self.horizon, 1, self.actions).double()], 1)

    def objective(self, pi: Tensor, gamma: float) -> Tensor:
        """J_γ = E[Σ_t γ^t r_t] by dynamic programming."""
        return (torch.from_numpy(self.start) * self.values(pi, gamma)[0, :-1]).sum()

    def gradient(self, policy: Policy, theta: Tensor, gamma: float) -> Tensor:
        """∇J_γ [1, P] by autograd through the dynamic programme and the policy network."""
        theta = theta.detach().requires_grad_()
        j = self.objective(self.action_probabilities(policy, theta), gamma)
        return torch.autograd.grad(j, theta)[0]

    def states_and_times(self) -> tuple[Tensor, Tensor]:
        """State index (terminal where padded) [N, T] and final state [N]."""
        b = self.batch
        state = torch.where(b.mask[0], b.obs[0].argmax(-1), self.states)
        final = torch.where(b.terminated[0], self.states, b.final_obs[0].argmax(-1))
        return state, final


def tabular(mdp: TinyMdp) -> Tabular:
    """The same as a model."""
    s, a, n = torch.from_numpy(mdp.P).nonzero().T
    P, R = torch.from_numpy(mdp.P), torch.from_numpy(mdp.R)
    start = torch.from_numpy(mdp.start)
    return Tabular(start, s, a, n, P[s, a, n], R[s, a, n], mdp.actions, mdp.horizon)
