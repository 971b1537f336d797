"""What `pg compare` looks at: a frozen policy, who collects for it, and its critics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from pgcli.collection.batch import Batch
from pgcli.collection.episodes import episodes, rewards
from pgcli.collection.rollout import Quota, collect
from pgcli.comparison.belief import Belief
from pgcli.comparison.paired import in_batches
from pgcli.environments.engine import Engine
from pgcli.environments.spaces import Spaces
from pgcli.environments.tabular import Tabular
from pgcli.errors import ConfigError
from pgcli.estimators import estimator
from pgcli.estimators.phi import Episodes, given
from pgcli.estimators.returns import reward_to_go
from pgcli.gradients.critics import (
    build_critics,
    cross_compatible,
    discount_of,
    state_values,
)
from pgcli.gradients.trajectory import log_probs
from pgcli.gradients.truth import Solution, action_probabilities
from pgcli.machine.cores import started
from pgcli.machine.randomness import Purpose, generator
from pgcli.policies.actor import PolicyActor
from pgcli.policies.build import build_policy
from pgcli.policies.policy import Policy
from pgcli.runs.policies import saved_behaviour, saved_theta
from pgcli.settings.schema import BehaviourConfig, CompareConfig, ComparedEstimator, CriticConfig

# Iterations whose streams are used here: no training gets that far.
FIT, PROBE, DATA = 2**20, 2**20 + 1, 2**20 + 2
PROBED, PROBES = 64, 4096  # episodes and states at which a divergence is averaged


class Subject:
    """A policy that is looked at, and where its data come from."""

    def __init__(self, config: CompareConfig, engine: Engine, slots: int) -> None:
        self.config, self.engine, self._slots = config, engine, slots
        self.least, self.most = math.inf, -math.inf  # of all returns that were compared
        self.belief: Belief | None = None  # sees whatever is collected
        self.policy: Policy = build_policy(config.policy, config.behaviour, engine)
        if config.checkpoint is None:
            self.theta = self.policy.init(config.policy, [config.seed])
        else:
            self.theta = self._saved("checkpoint", config.checkpoint, config.iteration)

    def _saved(self, key: str, run: str, iteration: int | str | None) -> Tensor:
        """theta [1, P] of this seed in a run's checkpoint; see `runs.policies.saved_theta`."""
        spaces = Spaces(self.engine.obs_dim, self.engine.action)
        return saved_theta(key, run, iteration, self.config, spaces)

    def sources(self) -> list[tuple[float | None, Tensor]]:
        """Who collects, one after the other: theta [1, P] before temperature and ε change it.

        Each with its divergence from the policy, where that is configured.
        """
        source, distances = self._source(), self.config.behaviour.kl
        if not distances:
            return [(None, source)]
        batch = self._played(PROBED, PROBE, self.theta, None)
        obs = batch.obs[batch.mask][:PROBES].unsqueeze(0)
        return [(kl, self._perturbed(source, kl, obs)) for kl in distances]

    def _source(self) -> Tensor:
        named = saved_behaviour(self.config)
        return self.theta if named is None else self._saved("behaviour.checkpoint", *named)

    def _perturbed(self, theta: Tensor, kl: float, obs: Tensor) -> Tensor:
        """theta moved along a random direction until its behaviour is `kl` nats per state away.

        That is KL(behaviour‖policy) of what collects, temperature and ε included, on average over
        the states obs [1, M, D]. By bisection; ConfigError where no step reaches it.
        """
        rng = generator(self.config.seed, PROBE, Purpose.PERTURBATION)
        learned = self.policy.learned(theta)
        step = torch.zeros_like(theta)
        self.policy.learned(step)[:] = torch.from_numpy(rng.standard_normal(tuple(learned.shape)))

        def distance(size: float) -> float:
            moved = theta + size * step
            return float(self.policy.kl(moved, self.theta, obs, self._changed).mean())

        low, high = 0.0, 1e-3
        if (least := distance(low)) >= kl:
            allowed = f"the behaviour is {least:.3g} away before it is perturbed: more than that"
            raise ConfigError("behaviour.kl", kl, allowed)
        while distance(high) < kl:
            low, high = high, 2 * high
            if high > 1e6:
                raise ConfigError("behaviour.kl", kl, "no perturbation gets so far")
        while high - low > 1e-4 * high:
            middle = 0.5 * (low + high)
            low, high = (middle, high) if distance(middle) < kl else (low, middle)
        return theta + high * step

    @property
    def _changed(self) -> BehaviourConfig | None:
        """What temperature and ε make of whoever collects."""
        return self.config.behaviour if self.config.behaviour.changes else None

    def collect(self, episodes: int, number: int, theta: Tensor) -> Batch:
        """So many whole episodes of the behaviour made from theta; each number gives others."""
        batch = self._played(episodes, DATA + number, theta, self._changed)
        returns = self.returns(batch).numpy()
        self.least = min(self.least, float(returns.min()))
        self.most = max(self.most, float(returns.max()))
        return batch

    def believe(self, belief: Belief) -> None:
        """Let it see what is collected from now on; if it holds a model, a few episodes at once."""
        self.belief = belief
        if belief.model is not None:
            self._played(PROBED, PROBE, self.theta, None)

    def collect_own(self, episodes: int) -> Batch:
        """So many of the policy itself, that no other call gives."""
        return self._played(episodes, FIT, self.theta, None)

    def returns(self, batch: Batch) -> Tensor:
        """Σ_t γ^t r_t of each episode [N] float64, whose mean is J_γ."""
        rew = rewards(batch, self.config.env.reward_shift)
        return reward_to_go(rew, self.config.gamma)[0, :, 0]

    def played(self, theta: Tensor, episodes: int, number: int) -> Tensor:
        """`returns` of so many fresh episodes of the policy at theta [1, P]."""
        return self.returns(self.own(theta, episodes, number))

    def own(self, theta: Tensor, episodes: int, number: int) -> Batch:
        """So many episodes of the policy at theta itself; see `collect` for the number."""
        return self._played(episodes, DATA + number, theta, None)

    def _played(
        self, episodes: int, iteration: int, theta: Tensor, behaviour: BehaviourConfig | None
    ) -> Batch:
        seeds = [self.config.seed]
        actor = PolicyActor(self.policy, theta, seeds, iteration, self._slots, behaviour)
        batch = collect(self.engine, actor, Quota(episodes, None), seeds, iteration)
        if self.belief is not None:
            self.belief.see(batch)
        return batch

    def log_ratio(self, batch: Batch, theta: Tensor) -> Tensor:
        """log π/π_behaviour of the batch that theta collected, [1, N, T]."""
        acting = log_probs(self.policy, theta, batch, self._changed)
        return log_probs(self.policy, self.theta, batch) - acting

    def probabilities(self, theta: Tensor, states: int) -> Tensor:
        """How theta's behaviour acts in each state, [states, actions]."""
        by = self.config.behaviour
        if not by.changes:
            return action_probabilities(self.policy, theta.double(), states)
        eye = torch.eye(states, dtype=torch.float64).unsqueeze(0)
        out, extra = self.policy.distribution(theta.double(), eye)
        changed, _ = self.policy.head.behaviour(out, extra, by.temperature, by.epsilon)
        return changed[0].softmax(-1)


class Critics:
    """V (a network, or linear in features) and Q of the frozen policy, for its discount γ.

    Fitted on episodes of their own, so that they are independent of those they serve; or exact.
    """

    def __init__(
        self,
        subject: Subject,
        estimators: Mapping[str, ComparedEstimator],
        solution: Solution | None,
    ) -> None:
        """`solution`: take V and Q from it."""
        self._subject, config = subject, subject.config
        ests = list(estimators.values())
        known = {"value", "q"} if solution else set[str]()
        self._exact = solution
        asked = [estimator.critics(est) - known for est in ests]
        settings: CriticConfig = config.critic
        of_q = [discount_of(est) for kinds, est in zip(asked, ests, strict=True) if "q" in kinds]
        self._states, self._q = build_critics(
            asked, settings, subject.policy, subject.engine.obs_dim,
            subject.engine.max_episode_steps, [config.seed], torch.device("cpu"),
            discount=min(of_q, default=1.0),
        )  # fmt: skip
        if self._states or self._q is not None:
            batch = subject.collect_own(config.fit_episodes)
            target = reward_to_go(rewards(batch, config.env.reward_shift), config.gamma)
            for critic in self._states.values():
                obs = subject.policy.inputs(subject.theta, batch.obs)
                started(critic.fits(obs, batch.mask, target, FIT))()
            if self._q is not None:
                started(self._q.fits(subject.theta, batch, target, FIT))()

    def episodes(self, batch: Batch, config: ComparedEstimator) -> Episodes:
        """What that estimator may look at."""
        shift = self._subject.config.env.reward_shift
        value, q = self._looked(config, batch)
        looked = episodes(batch, shift, value=value, q=q)
        if "compatible" not in estimator.critics(config):
            return looked
        return replace(looked, compatible=self._cross_fitted(batch, config, looked))

    def _cross_fitted(self, batch: Batch, config: ComparedEstimator, looked: Episodes) -> Tensor:
        """ψᵀw [1, N, T], each batch of the study by itself."""
        subject, size = self._subject, self._subject.config.batch_size

        apart = batch.apart(batch.length.shape[1] // size)
        rounds = len(apart.mask)
        theta = subject.theta.expand(rounds, -1)
        found = cross_compatible(
            subject.policy, theta, apart, config, subject.config.critic, in_batches(looked, rounds)
        )
        return given(found, "compatible").flatten(0, 1).unsqueeze(0)

    def _looked(
        self, config: ComparedEstimator, batch: Batch
    ) -> tuple[tuple[Tensor, Tensor] | None, Tensor | None]:
        """V, along the way and at the end, and Q, as far as that estimator asks for them.

        V with the error that the estimator says, which is linear in the observation: in a table, a
        normal number of its own for each state.
        """
        value, q = self._right(config, batch)
        if value is None or not (size := config.value_error):
            return value, q
        along, final = value
        wrong = self._error(batch.obs), self._error(batch.final_obs)
        return (along + size * wrong[0] * batch.mask, final + size * wrong[1]), q

    def _error(self, obs: Tensor) -> Tensor:
        """Of V in observations [..., D], of deviation 1: [...]."""
        rng = generator(self._subject.config.seed, FIT, Purpose.PERTURBATION)
        way = torch.from_numpy(rng.standard_normal(obs.shape[-1]))
        return (obs.double() @ way).to(obs.dtype)

    def _right(
        self, config: ComparedEstimator, batch: Batch
    ) -> tuple[tuple[Tensor, Tensor] | None, Tensor | None]:
        """The same without that error."""
        kinds, theta = estimator.critics(config), self._subject.theta
        time = torch.arange(batch.mask.shape[2])
        q = None
        if "q" in kinds:
            if self._exact is not None:
                q = self._exact.action_values(time, batch.obs, batch.act) * batch.mask
            else:
                assert self._q is not None
                q = self._q.along(theta, batch)
        if "value" in kinds and self._exact is not None:
            along = self._exact.values(time, batch.obs) * batch.mask
            return (along, self._exact.values(batch.length, batch.final_obs)), q
        return state_values(kinds, self._states, self._q, self._subject.policy, theta, batch), q

    def quadratic(self, config: ComparedEstimator) -> bool:
        """Whether V and Q, as far as it asks for them, are polynomials of degree 2 in the state."""
        kinds = estimator.critics(config)
        linear = {"linear"} | ({"value"} if self._subject.config.critic.kind == "linear" else set())
        return kinds <= (linear if self._exact is None else {"linear", "value", "q"})

    def tables(
        self, config: ComparedEstimator, model: Tabular
    ) -> tuple[Tensor | None, Tensor | None]:
        """What it takes for V_t(s) and Q_t(s, a) in a model: see `Problem`."""
        kinds = estimator.critics(config)
        states, actions = model.states, model.actions if "q" in kinds else 1
        grid = _grid(model, actions)
        value, q = self._looked(config, grid)
        if value is not None:
            # Of the first action: V is the same beside each.
            rows = torch.cat([value[0][0].T, value[1]], 0)[:, ::actions].double()
            table = torch.nn.functional.pad(rows, (0, 1))
        if q is not None:
            per_state = q[0].T.reshape(model.horizon, states, actions).double()
            per_state = torch.nn.functional.pad(per_state, (0, 0, 0, 1))
        return None if value is None else table, None if q is None else per_state


def _grid(model: Tabular, actions: int) -> Batch:
    """So many actions in every state at every time, as if an episode stayed there."""
    rows, horizon = model.states * actions, model.horizon
    state = model.observations.repeat_interleave(actions, 0)
    act = model.choices[:, :actions].flatten(0, 1)
    mask = torch.ones(1, rows, horizon, dtype=torch.bool)
    nothing = torch.zeros(1, rows, dtype=torch.bool)
    return Batch(
        obs=state[None, :, None].expand(-1, -1, horizon, -1),
        act=act[None, :, None].expand(1, rows, horizon, *act.shape[1:]),
        rew=torch.zeros(mask.shape, dtype=torch.float64),
        mask=mask,
        terminated=nothing,
        truncated=~nothing,
        final_obs=state[None],
        length=torch.full((1, rows), horizon),
    )
