"""Q in all its forms, and every critic that estimators ask for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from pgcli.collection.batch import Batch
from pgcli.errors import ConfigError
from pgcli.estimators import returns
from pgcli.estimators.estimator import value_target
from pgcli.estimators.phi import Episodes, given
from pgcli.gradients.compatible import advantages, cross_fitted, least_squares
from pgcli.machine.randomness import Purpose
from pgcli.policies.build import build_state_critics
from pgcli.policies.critic import ActionCritic, AdvantageCritic, Critic, Work
from pgcli.policies.critics import StateCritic
from pgcli.policies.policy import Policy
from pgcli.settings.schema import (
    ActionValue,
    CriticConfig,
    EstimatorConfig,
    Target,
)

MOST_ACTIONS = 1024  # with an output each


class QCritic(Protocol):
    """Q(s, a) of the policy at theta [S, P]."""

    @property
    def needs_value(self) -> bool:
        """Whether it is V plus an advantage: a V stands beside it."""
        ...

    @property
    def gives_value(self) -> bool:
        """Whether V = Σ_a π Q is to be had of its own network, in the place of a V beside it."""
        ...

    def along(self, theta: Tensor, batch: Batch) -> Tensor:
        """Q(s_t, a_t) [S, N, T], zero where padded."""
        ...

    def values(self, theta: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """V = Σ_a π(a|s) Q(s, a): V(s_t) [S, N, T] and V of the final observations [S, N]."""
        ...

    def fits(self, theta: Tensor, batch: Batch, target: Tensor, iteration: ArrayLike) -> list[Work]:
        """To regress Q on targets [S, N, T] at the real steps: what is to be done."""
        ...

    def scale(self, by: Tensor) -> None:
        """Tell what it tells by itself, times `by` [S], from now on."""
        ...

    def state(self) -> dict[str, Tensor]:
        """The tensors that a fit changes; live, not copies."""
        ...


class Pairs:
    """A network of state and action."""

    needs_value = gives_value = False

    def __init__(self, policy: Policy, critic: Critic) -> None:
        self._policy, self._critic = policy, critic
        self.state, self.scale = critic.state, critic.scale

    def along(self, theta: Tensor, batch: Batch) -> Tensor:
        """See `QCritic`."""
        return self._critic.along(self._pairs(theta, batch), batch.mask)

    def values(self, theta: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """See `QCritic`."""
        raise ValueError("a network of state and action has no V")

    def fits(self, theta: Tensor, batch: Batch, target: Tensor, iteration: ArrayLike) -> list[Work]:
        """See `QCritic`."""
        return self._critic.fits(self._pairs(theta, batch), batch.mask, target, iteration)

    def _pairs(self, theta: Tensor, batch: Batch) -> Tensor:
        return self._policy.state_actions(self._policy.inputs(theta, batch.obs), batch.act)


class Outputs:
    """A network of the state with one output per action."""

    needs_value = False

    def __init__(self, policy: Policy, critic: ActionCritic, gives_value: bool) -> None:
        self._policy, self._critic, self.gives_value = policy, critic, gives_value
        self.state, self.scale = critic.state, critic.scale

    def along(self, theta: Tensor, batch: Batch) -> Tensor:
        """See `QCritic`."""
        return self._critic.along(self._rows(theta, batch), batch.mask)

    def values(self, theta: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """See `QCritic`."""
        pi = policy_at(self._policy, theta, batch)
        last = self._policy.probabilities(theta, batch.final_obs).to(batch.obs)
        obs, final_obs = seen(self._policy, theta, batch)
        along = self._critic.along(torch.cat([pi, obs], -1), batch.mask)
        final = torch.cat([last, final_obs], -1)
        return along, self._critic.after(final, batch.length)

    def fits(self, theta: Tensor, batch: Batch, target: Tensor, iteration: ArrayLike) -> list[Work]:
        """See `QCritic`."""
        return self._critic.fits(self._rows(theta, batch), batch.mask, target, iteration)

    def _rows(self, theta: Tensor, batch: Batch) -> Tensor:
        obs = self._policy.inputs(theta, batch.obs)
        return torch.cat([taken_actions(self._policy, batch), obs], -1)


class Beside:
    """V plus an advantage whose mean under the policy is 0."""

    needs_value, gives_value = True, False

    def __init__(self, policy: Policy, value: StateCritic) -> None:
        self._policy, self._value = policy, value

    def along(self, theta: Tensor, batch: Batch) -> Tensor:
        """See `QCritic`."""
        return self.values(theta, batch)[0] + self.advantage(theta, batch)

    def values(self, theta: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """See `QCritic`."""
        return values_of(self._value, self._policy, theta, batch)

    def fits(self, theta: Tensor, batch: Batch, target: Tensor, iteration: ArrayLike) -> list[Work]:
        """On what V, as it is now, leaves of the targets."""
        left = returns.difference(target, self.values(theta, batch)[0])
        return self.fits_advantage(theta, batch, left * batch.mask, iteration)

    def advantage(self, theta: Tensor, batch: Batch) -> Tensor:
        """A(s_t, a_t) [S, N, T], zero where padded."""
        raise NotImplementedError

    def fits_advantage(
        self, theta: Tensor, batch: Batch, target: Tensor, iteration: ArrayLike
    ) -> list[Work]:
        """To regress A on targets [S, N, T]."""
        raise NotImplementedError


class Dueling(Beside):
    """A network's advantage."""

    def __init__(self, policy: Policy, critic: AdvantageCritic, value: StateCritic) -> None:
        super().__init__(policy, value)
        self._critic = critic
        self.state, self.scale = critic.state, critic.scale

    def advantage(self, theta: Tensor, batch: Batch) -> Tensor:
        """See `Beside`."""
        return self._critic.along(self._rows(theta, batch), batch.mask)

    def fits_advantage(
        self, theta: Tensor, batch: Batch, target: Tensor, iteration: ArrayLike
    ) -> list[Work]:
        """See `Beside`."""
        return self._critic.fits(self._rows(theta, batch), batch.mask, target, iteration)

    def _rows(self, theta: Tensor, batch: Batch) -> Tensor:
        centred = taken_actions(self._policy, batch) - policy_at(self._policy, theta, batch)
        return torch.cat([centred, self._policy.inputs(theta, batch.obs)], -1)


class Compatible(Beside):
    """ψᵀw: see `gradients.compatible`. Fitted on one batch at a time, anew."""

    def __init__(
        self, policy: Policy, value: StateCritic, seeds: int, ridge: float, discount: float,
        device: torch.device,
    ) -> None:  # fmt: skip
        """`discount`: a step t weighs discount^t in the fit."""
        super().__init__(policy, value)
        self._ridge, self._discount = ridge, discount
        self.w = torch.zeros(seeds, policy.num_params, dtype=torch.float64, device=device)

    def state(self) -> dict[str, Tensor]:
        """See `QCritic`."""
        return {"w": self.w}

    def scale(self, by: Tensor) -> None:
        """See `QCritic`."""
        self.w *= by.unsqueeze(-1)

    def advantage(self, theta: Tensor, batch: Batch) -> Tensor:
        """See `Beside`."""
        return advantages(self._policy, theta, batch, self.w)

    def fits_advantage(
        self, theta: Tensor, batch: Batch, target: Tensor, iteration: ArrayLike
    ) -> list[Work]:
        """See `Beside`."""
        return [partial(self._fit, theta.clone(), batch, target)]  # theta may move meanwhile

    def _fit(self, theta: Tensor, batch: Batch, target: Tensor) -> None:
        weights = step_weights(self._discount, target)
        found = least_squares(
            self._policy, theta, batch, target, ridge=self._ridge, weights=weights
        )
        self.w.copy_(found)


def cross_compatible(
    policy: Policy,
    theta: Tensor,
    batch: Batch,
    config: EstimatorConfig,
    critic: CriticConfig,
    looked: Episodes,
) -> Episodes:
    """With ψᵀw of halves that were each fitted on the other, to what V leaves of its targets."""
    value = given(looked, "value")
    left = returns.difference(value_target(config, critic, looked), value) * batch.mask
    weights = step_weights(discount_of(config), left)
    found = cross_fitted(policy, theta, batch, left, ridge=critic.ridge, weights=weights)
    return replace(looked, compatible=found)


def discount_of(config: EstimatorConfig) -> float:
    """d, where step t weighs d^t in the estimate, and so in a fit of least squares for it."""
    return config.gamma if config.discount_state else 1.0


def step_weights(discount: float, like: Tensor) -> Tensor | None:
    """discount^t like [..., T]; None where all are 1."""
    return None if discount == 1 else returns.powers(discount, like).expand(like.shape)


def taken_actions(policy: Policy, batch: Batch) -> Tensor:
    """A one at the action that was taken, [S, N, T, K]."""
    assert policy.head.count is not None
    index = policy.head.index(batch.act.long())
    return torch.nn.functional.one_hot(index, policy.head.count).to(batch.obs)


def policy_at(policy: Policy, theta: Tensor, batch: Batch) -> Tensor:
    """π(·|s_t) [S, N, T, K]."""
    pi = policy.probabilities(theta, batch.obs.flatten(1, 2))
    return pi.unflatten(1, batch.mask.shape[1:]).to(batch.obs)


def build_critics(
    asked: Iterable[frozenset[str]],
    settings: CriticConfig,
    policy: Policy,
    obs_dim: int,
    horizon: int,
    seeds: Sequence[int],
    device: torch.device,
    discount: float = 1.0,
) -> tuple[dict[str, StateCritic], QCritic | None]:
    """V critics, "value" and "linear", by these names, and Q, as far as estimators ask for them.

    `asked`: what each estimator does, see `estimator.critics`. `discount`: what step t weighs with
    in a fit of least squares. ConfigError where a form of Q does not go with the actions.
    """
    sets = list(asked)
    kinds = {kind for one in sets for kind in one}
    form, wants_q = settings.q, "q" in kinds
    whole = form is ActionValue.outputs and settings.kind == "mlp"
    if wants_q and whole:  # V comes of Q where both are asked for
        kinds = {kind for one in sets for kind in one if not (kind == "value" and "q" in one)}
    beside = form in (ActionValue.dueling, ActionValue.compatible)
    if wants_q and beside and not kinds & {"value", "linear"}:
        kinds.add("value")
    sizes = horizon, seeds, device
    states = build_state_critics(kinds, settings, obs_dim, *sizes)
    if not wants_q:
        return states, None
    value = states.get("value", states.get("linear"))
    if form is ActionValue.action_input:
        if settings.target is Target.expected_sarsa and value is None:
            allowed = "critic.q=action_input has no V: outputs, dueling, compatible have"
            raise ConfigError("critic.target", "expected_sarsa", allowed)
        inputs = obs_dim + policy.head.num_features
        own = Purpose.Q_INIT, Purpose.Q_FIT
        return states, Pairs(policy, Critic(settings, inputs, *sizes, *own))
    if form is ActionValue.compatible:
        assert value is not None
        few = len(seeds), settings.ridge, discount
        return states, Compatible(policy, value, *few, device)
    count = policy.head.count
    if count is None or count > MOST_ACTIONS:
        there = "continuous ones" if count is None else f"{count} of them"
        allowed = f"an output per action, and there are {there}: action_input, compatible"
        raise ConfigError("critic.q", form.name, allowed)
    if form is ActionValue.outputs:
        critic = ActionCritic(settings, obs_dim, count, *sizes)
        return states, Outputs(policy, critic, whole)
    assert value is not None
    return states, Dueling(policy, AdvantageCritic(settings, obs_dim, count, *sizes), value)


def state_values(
    kinds: Iterable[str],
    states: Mapping[str, StateCritic],
    q: QCritic | None,
    policy: Policy,
    theta: Tensor,
    batch: Batch,
) -> tuple[Tensor, Tensor] | None:
    """V(s_t) [S, N, T] and V of the final observations [S, N], for an estimator that asks for
    these kinds; None where it asks for no V.
    """
    kinds = set(kinds)
    if "linear" not in kinds and "value" not in kinds:
        return None
    if q is not None and q.gives_value and {"q", "value"} <= kinds:
        return q.values(theta, batch)
    one = states["linear" if "linear" in kinds else "value"]
    return values_of(one, policy, theta, batch)


def values_of(
    critic: StateCritic, policy: Policy, theta: Tensor, batch: Batch
) -> tuple[Tensor, Tensor]:
    """V(s_t) [S, N, T] and V of the final observations [S, N], zero where padded."""
    obs, final_obs = seen(policy, theta, batch)
    ends = batch.length if batch.age is None else batch.length + batch.age
    return critic.along(obs, batch.mask, batch.age), critic.after(final_obs, ends)


def seen(policy: Policy, theta: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """What critics see of obs [S, N, T, D] and final_obs [S, N, D]: the same as the policy."""
    return policy.inputs(theta, batch.obs), policy.inputs(theta, batch.final_obs)
