"""Policies: a network and an action distribution, S agents side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pgcli.machine.randomness import Purpose, generator
from pgcli.policies.heads import Head
from pgcli.policies.network import Mlp, Trace
from pgcli.settings.schema import BehaviourConfig, Init, PolicyConfig


class Factor(NamedTuple):
    """One block of parameters of the score of every step, as an outer product.

    ∂ log π(a|s) / ∂ theta[block] = input ⊗ delta, where `input` is None (a one) for biases.
    A trajectory's weighted score is Σ_t w_t · input_t ⊗ delta_t: one matrix product, and the
    factors serve every choice of weights.
    """

    block: slice  # of theta's last axis
    input: Tensor | None  # [S, M, i]
    delta: Tensor  # [S, M, o]


@dataclass(frozen=True)
class Normalized:
    """The network sees (o − mean)/deviation, cut to ± clip; both stand in theta, and are not θ."""

    clip: float | None


@dataclass(frozen=True)
class Policy:
    """π_θ: the outputs of `net` parametrise `head`; theta [S, P] holds the network, then extra.

    Where observations are normalised, theta [S, P + 2D] ends with what they are normalised by:
    means [S, D] and inverse deviations [S, D]. These are no parameters: nothing learns them by a
    gradient. All here takes such a theta; gradients have P columns.
    """

    net: Mlp
    head: Head
    normalized: Normalized | None = None

    @property
    def num_params(self) -> int:
        """P."""
        return self.net.num_params + self.head.num_extra

    @property
    def width(self) -> int:
        """Columns of theta: P, and what observations are normalised by."""
        return self.num_params + (0 if self.normalized is None else 2 * self.net.sizes[0])

    def learned(self, theta: Tensor) -> Tensor:
        """θ itself, [..., P]: a view of theta."""
        return theta[..., : self.num_params]

    def whole(self, learned: Tensor, theta: Tensor) -> Tensor:
        """These θ [S, P or more], normalising as theta does."""
        if self.normalized is None or learned.shape[1] == theta.shape[1]:
            return learned
        fixed = theta[:, self.num_params :].to(learned).expand(len(learned), -1)
        return torch.cat([learned, fixed], 1)

    def normalize_by(self, theta: Tensor, mean: Tensor, scale: Tensor) -> None:
        """Write into theta what to normalise by from now on: mean and 1/deviation, [S, D]."""
        theta[:, self.num_params :] = torch.cat([mean, scale], 1).to(theta)

    def inputs(self, theta: Tensor, obs: Tensor) -> Tensor:
        """What the network sees of obs [S, ..., D], in theta's type where that is another."""
        if self.normalized is None:
            return obs
        by = theta[:, self.num_params :].detach().unflatten(1, (2, -1))  # [S, 2, D]
        by = by.reshape(len(by), 2, *(1,) * (obs.ndim - 2), -1)
        x = (obs - by[:, 0]).mul_(by[:, 1])
        clip = self.normalized.clip
        return x if clip is None else x.clamp_(-clip, clip)

    def trace(self, theta: Tensor, obs: Tensor) -> Trace:
        """One forward pass of the network over obs [S, M, D]."""
        return self.net.trace(theta, self.inputs(theta, obs))

    def init(self, config: PolicyConfig, seeds: Sequence[int]) -> Tensor:
        """Fresh parameters theta [S, P], each row a function of its own seed."""
        rngs = [generator(seed, 0, Purpose.POLICY_INIT) for seed in seeds]
        net = self.net.init(rngs, config.output_gain)
        if config.init is Init.zeros:
            net = torch.zeros_like(net)
        out, extra = (x.expand(len(seeds), -1) for x in self.head.start(config.log_std))
        if (bias := self.net.layers[-1].bias) is not None:
            net[:, bias] += out
        fixed = torch.zeros(len(seeds), self.width - self.num_params)
        fixed[:, fixed.shape[1] // 2 :] = 1.0  # nothing has been seen: as it is
        return torch.cat([net, extra, fixed], dim=1)

    def distribution(self, theta: Tensor, obs: Tensor) -> tuple[Tensor, Tensor]:
        """(out [S, M, O], extra [S, 1, X]) for obs [S, M, D]: what `head` takes."""
        return self.net.forward(theta, self.inputs(theta, obs)), self.extra(theta)

    def extra(self, theta: Tensor) -> Tensor:
        """The parameters that depend on no state, [S, 1, X], as `head` takes them."""
        return theta[:, None, self.net.num_params : self.num_params]

    def pulled_back(self, theta: Tensor, trace: Trace, out: Tensor, extra: Tensor) -> Tensor:
        """∂/∂theta [S, P] of a sum over rows, from its derivatives by out and extra [S, M, ·]."""
        gradient = self.net.gradient(theta[:, : self.net.num_params], trace, out)
        return torch.cat([gradient, extra.sum(1)], 1)

    def log_prob(self, theta: Tensor, obs: Tensor, act: Tensor) -> Tensor:
        """log π_θ(a|s), [S, M]."""
        return self.head.log_prob(*self.distribution(theta, obs), act)

    def behaviour_log_prob(
        self, theta: Tensor, obs: Tensor, act: Tensor, behaviour: BehaviourConfig
    ) -> Tensor:
        """log of the probability with which the behaviour made from π_θ acts, [S, M]."""
        out, extra = self.distribution(theta, obs)
        changed = self.head.behaviour(out, extra, behaviour.temperature, behaviour.epsilon)
        return self.head.log_prob(*changed, act)

    def state_actions(self, obs: Tensor, act: Tensor) -> Tensor:
        """Inputs of a Q network: observation and action's features, [..., D + F]."""
        return torch.cat([obs, self.head.features(act).to(obs.dtype)], -1)

    def probabilities(self, theta: Tensor, obs: Tensor) -> Tensor:
        """π_θ(a|s) of every action, [S, M, K], where they can be counted: see `Head.index`."""
        with torch.no_grad():
            return self.head.probabilities(self.distribution(theta, obs.to(theta))[0])

    def along(self, theta: Tensor, obs: Tensor, act: Tensor, way: Tensor) -> Tensor:
        """⟨∇log π_θ(a|s), way⟩ of rows obs [S, M, D], for a direction way [S, P]: [S, M]."""
        with torch.no_grad():
            trace, extra = self.trace(theta, obs), self.extra(theta)
            score = self.head.score(trace.out, extra, act)
            moved = self.net.tangent(theta, trace, way)
            return (score.out * moved).sum(-1) + (score.extra * self.extra(way)).sum(-1)

    def kl(
        self, theta_p: Tensor, theta_q: Tensor, obs: Tensor, changed: BehaviourConfig | None = None
    ) -> Tensor:
        """KL(π_p‖π_q) at each of the states obs [S, M, D] in nats, [S, M] float64.

        `changed`: of the behaviour made from π_p instead. In double precision throughout: the
        divergence of one update is smaller than the rounding of a float32 logit.
        """
        with torch.no_grad():
            obs = obs.double()
            p, q = (self.distribution(theta.double(), obs) for theta in (theta_p, theta_q))
            if changed is not None:
                p = self.head.behaviour(*p, changed.temperature, changed.epsilon)
            return self.head.kl(p, q)

    def score_factors(
        self, theta: Tensor, obs: Tensor, act: Tensor, weight: Tensor | None = None
    ) -> tuple[list[Factor], Tensor]:
        """The factors of ∇log π(a|s) for rows obs [S, M, D], and the entropy at each, [S, M].

        With weight [S, M], those of weight · ∇log π(a|s). One backward pass to the affine outputs;
        no gradient with respect to a network's weight is formed.
        """
        with torch.no_grad():
            trace = self.trace(theta, obs)
            free = self.extra(theta)
            out, extra = self.head.score(trace.out, free, act)
            entropy = self.head.entropy(trace.out, free)
            if weight is not None:
                out, extra = out * weight.unsqueeze(-1), extra * weight.unsqueeze(-1)
            deltas = self.net.deltas(theta, trace, out)
        factors = []
        for layer, x, delta in zip(self.net.layers, trace.inputs, deltas, strict=True):
            factors.append(Factor(layer.weight, x, delta))
            if layer.bias is not None:
                factors.append(Factor(layer.bias, None, delta))
        if self.head.num_extra:
            factors.append(Factor(slice(self.net.num_params, self.num_params), None, extra))
        return factors, entropy
