"""Action distributions: what the outputs of a network mean, for each kind of action space.

`out [S, M, O]` are network outputs, `extra [S, X]` parameters that depend on no state. Torch
computes log-probabilities; the rollout samples with NumPy from noise drawn ahead.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

Array = np.ndarray


class Score(NamedTuple):
    """The derivatives of log π(a|s) by what parametrises it."""

    out: Tensor  # [S, M, O]
    extra: Tensor  # [S, M, X]


class Head(Protocol):
    """An action distribution."""

    @property
    def num_outputs(self) -> int:
        """O."""
        ...

    @property
    def num_extra(self) -> int:
        """X."""
        ...

    @property
    def action_shape(self) -> tuple[int, ...]:
        """Shape of one action."""
        ...

    def log_prob(self, out: Tensor, extra: Tensor, act: Tensor) -> Tensor:
        """log π(a|s), [S, M]; `extra` [S, M, X]."""
        ...

    def entropy(self, out: Tensor, extra: Tensor) -> Tensor:
        """Entropy of each row's distribution in nats, [S, M]."""
        ...

    def score(self, out: Tensor, extra: Tensor, act: Tensor) -> Score:
        """∂ log π(a|s) by out and extra [S, 1 or M, X], in closed form."""
        ...

    def kl(self, p: tuple[Tensor, Tensor], q: tuple[Tensor, Tensor]) -> Tensor:
        """KL(p‖q) of each row in nats, [S, M]; p and q are (out, extra)."""
        ...

    def fisher(
        self, out: Tensor, extra: Tensor, way: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """E_a[s sᵀ] times a direction of (out, extra), s = ∂ log π(a|s) by them, row by row.

        The Hessian of KL(π‖π') at π' = π, exact in the action.
        """
        ...

    def behaviour(
        self, out: Tensor, extra: Tensor, temperature: float, epsilon: float
    ) -> tuple[Tensor, Tensor]:
        """(out, extra) of π^{1/temperature}, normalised, mixed with ε of the uniform distribution.

        ValueError where there is no uniform distribution.
        """
        ...

    def features(self, act: Tensor) -> Tensor:
        """Actions [S, M, *action_shape] as inputs of a critic, [S, M, F]."""
        ...

    @property
    def num_features(self) -> int:
        """F."""
        ...

    def start(self, log_std: float) -> tuple[Tensor, Tensor]:
        """What a fresh policy's outputs [O] are beside those of its weights, and extra [X]."""
        ...

    @property
    def count(self) -> int | None:
        """How many actions there are, K; None where they cannot be counted."""
        ...

    def index(self, act: Tensor) -> Tensor:
        """Which of the K actions each is, int64 [...] for act [..., *action_shape]."""
        ...

    def probabilities(self, out: Tensor) -> Tensor:
        """π(a|s) of every action in the order of `index`, [..., K] for out [..., O]."""
        ...

    def noise(self, rng: np.random.Generator, steps: int, slots: int) -> Array:
        """All the randomness of `steps` steps, float32 [steps, slots, columns]."""
        ...

    def sample(self, out: Array, extra: Array, noise: Array) -> Array:
        """Actions [S, K, *action_shape] from outputs, noise [S, K, columns] and extra [S, X]."""
        ...

    def emitted(self, act: Array) -> Array:
        """What the environment is told for actions [..., *action_shape]."""
        ...

    def mode(self, out: Tensor) -> Tensor:
        """The action [..., *action_shape] that is sampled without noise, the likeliest."""
        ...

    def parameters(self, out: Tensor, extra: Tensor) -> dict[str, Tensor]:
        """What the distribution of the kept action is told by, [..., ·] each, by its name."""
        ...


def _nothing(out: Tensor) -> Tensor:
    return out[..., :0]


def _softplus(x: Tensor) -> Tensor:
    return softplus(x, threshold=40.0)  # torch's 20 is seen in double precision


def _log_stretch(u: Tensor) -> Tensor:
    """log(1 − tanh²u), by which tanh stretches."""
    return 2 * (math.log(2) - u - _softplus(-2 * u))


class _Discrete:
    """What all heads share whose actions are whole numbers."""

    @property
    def num_outputs(self) -> int:
        raise NotImplementedError

    @property
    def num_features(self) -> int:
        return self.num_outputs

    def start(self, log_std: float) -> tuple[Tensor, Tensor]:
        return torch.zeros(self.num_outputs), torch.zeros(0)

    def emitted(self, act: Array) -> Array:
        return act

    def parameters(self, out: Tensor, extra: Tensor) -> dict[str, Tensor]:
        return {"logits": out}


def _divergence(logp: Tensor, logq: Tensor) -> Tensor:
    """Σ_a p log(p/q) over the last axis as Σ_a p (e^x − 1 − x), x = log(q/p).

    The same, for Σ_a (q − p) = 0; but every term is ≥ 0, and none cancels where q is near p.
    """
    x, p = logq - logp, logp.exp()
    near = p * (torch.expm1(x) - x)
    return torch.where(x.abs() < 1, near, logq.exp() - p - p * x).sum(-1)


def _gumbel(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    # Drawn in float64, so that −log of an exact zero is out of reach.
    return -np.log(rng.standard_exponential(shape)).astype(np.float32)


@dataclass(frozen=True)
class Categorical(_Discrete):
    """One of n actions: out are logits; sampled by the Gumbel-max trick."""

    n: int
    num_extra: int = 0
    action_shape: tuple[int, ...] = ()

    @property
    def num_outputs(self) -> int:
        return self.n

    def log_prob(self, out: Tensor, extra: Tensor, act: Tensor) -> Tensor:
        return out.log_softmax(-1).gather(-1, act.unsqueeze(-1)).squeeze(-1)

    def entropy(self, out: Tensor, extra: Tensor) -> Tensor:
        logp = out.log_softmax(-1)
        return -(logp.exp() * logp).sum(-1)

    def score(self, out: Tensor, extra: Tensor, act: Tensor) -> Score:
        p = out.log_softmax(-1).exp()
        one_hot = torch.zeros_like(p).scatter_(-1, act.unsqueeze(-1), 1.0)
        return Score(one_hot - p, _nothing(out))

    def kl(self, p: tuple[Tensor, Tensor], q: tuple[Tensor, Tensor]) -> Tensor:
        return _divergence(p[0].log_softmax(-1), q[0].log_softmax(-1))

    def fisher(
        self, out: Tensor, extra: Tensor, way: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        p = out.softmax(-1)
        return p * (way[0] - (p * way[0]).sum(-1, keepdim=True)), way[1]

    def behaviour(
        self, out: Tensor, extra: Tensor, temperature: float, epsilon: float
    ) -> tuple[Tensor, Tensor]:
        logp = (out / temperature).log_softmax(-1)
        if epsilon:
            uniform = torch.full_like(logp, math.log(epsilon / self.n))
            logp = torch.logaddexp(logp + math.log1p(-epsilon), uniform)
        return logp, extra

    def features(self, act: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(act, self.n)

    @property
    def count(self) -> int | None:
        return self.n

    def index(self, act: Tensor) -> Tensor:
        return act

    def probabilities(self, out: Tensor) -> Tensor:
        return out.softmax(-1)

    def noise(self, rng: np.random.Generator, steps: int, slots: int) -> Array:
        return _gumbel(rng, (steps, slots, self.n))

    def sample(self, out: Array, extra: Array, noise: Array) -> Array:
        return (out + noise).argmax(-1)

    def mode(self, out: Tensor) -> Tensor:
        return out.argmax(-1)


@dataclass(frozen=True)
class MultiCategorical(_Discrete):
    """Several independent categorical components, their logits side by side."""

    sizes: tuple[int, ...]
    num_extra: int = 0

    @property
    def num_outputs(self) -> int:
        return sum(self.sizes)

    @property
    def action_shape(self) -> tuple[int, ...]:
        return (len(self.sizes),)

    def _components(self, out: Tensor) -> list[tuple[Categorical, Tensor]]:
        return [
            (Categorical(n), logits)
            for n, logits in zip(self.sizes, out.split(self.sizes, -1), strict=True)
        ]

    def log_prob(self, out: Tensor, extra: Tensor, act: Tensor) -> Tensor:
        parts = [
            head.log_prob(logits, extra, act[..., i])
            for i, (head, logits) in enumerate(self._components(out))
        ]
        return torch.stack(parts).sum(0)

    def entropy(self, out: Tensor, extra: Tensor) -> Tensor:
        return torch.stack([h.entropy(logits, extra) for h, logits in self._components(out)]).sum(0)

    def score(self, out: Tensor, extra: Tensor, act: Tensor) -> Score:
        parts = [
            head.score(logits, extra, act[..., i])
            for i, (head, logits) in enumerate(self._components(out))
        ]
        return Score(torch.cat([part.out for part in parts], -1), _nothing(out))

    def kl(self, p: tuple[Tensor, Tensor], q: tuple[Tensor, Tensor]) -> Tensor:
        pairs = zip(self._components(p[0]), self._components(q[0]), strict=True)
        return torch.stack([h.kl((a, p[1]), (b, q[1])) for (h, a), (_, b) in pairs]).sum(0)

    def fisher(
        self, out: Tensor, extra: Tensor, way: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        ways = way[0].split(self.sizes, -1)
        parts = [
            head.fisher(logits, extra, (each, way[1]))[0]
            for (head, logits), each in zip(self._components(out), ways, strict=True)
        ]
        return torch.cat(parts, -1), way[1]

    def behaviour(
        self, out: Tensor, extra: Tensor, temperature: float, epsilon: float
    ) -> tuple[Tensor, Tensor]:
        parts = [
            head.behaviour(logits, extra, temperature, epsilon)[0]
            for head, logits in self._components(out)
        ]
        return torch.cat(parts, -1), extra

    def features(self, act: Tensor) -> Tensor:
        parts = [Categorical(n).features(act[..., i]) for i, n in enumerate(self.sizes)]
        return torch.cat(parts, -1)

    @property
    def count(self) -> int | None:
        return math.prod(self.sizes)

    def index(self, act: Tensor) -> Tensor:
        """As digits of a number, the first component first."""
        index = torch.zeros_like(act[..., 0])
        for i, n in enumerate(self.sizes):
            index = index * n + act[..., i]
        return index

    def probabilities(self, out: Tensor) -> Tensor:
        joint = torch.ones_like(out[..., :1])
        for head, logits in self._components(out):
            p = head.probabilities(logits)
            joint = (joint.unsqueeze(-1) * p.unsqueeze(-2)).flatten(-2)
        return joint

    def noise(self, rng: np.random.Generator, steps: int, slots: int) -> Array:
        return _gumbel(rng, (steps, slots, self.num_outputs))

    def sample(self, out: Array, extra: Array, noise: Array) -> Array:
        perturbed = np.split(out + noise, np.cumsum(self.sizes)[:-1], axis=-1)
        return np.stack([part.argmax(-1) for part in perturbed], axis=-1)

    def mode(self, out: Tensor) -> Tensor:
        return torch.stack([logits.argmax(-1) for _, logits in self._components(out)], -1)


@dataclass(frozen=True)
class Bernoulli(_Discrete):
    """n independent bits: out are the log-odds of a one."""

    n: int
    num_extra: int = 0

    @property
    def num_outputs(self) -> int:
        return self.n

    @property
    def action_shape(self) -> tuple[int, ...]:
        return (self.n,)

    def log_prob(self, out: Tensor, extra: Tensor, act: Tensor) -> Tensor:
        return (act * out - softplus(out)).sum(-1)

    def entropy(self, out: Tensor, extra: Tensor) -> Tensor:
        return (softplus(out) - out * out.sigmoid()).sum(-1)

    def score(self, out: Tensor, extra: Tensor, act: Tensor) -> Score:
        return Score(act - out.sigmoid(), _nothing(out))

    def kl(self, p: tuple[Tensor, Tensor], q: tuple[Tensor, Tensor]) -> Tensor:
        logp, logq = (torch.stack([logsigmoid(x), logsigmoid(-x)], -1) for x in (p[0], q[0]))
        return _divergence(logp, logq).sum(-1)

    def fisher(
        self, out: Tensor, extra: Tensor, way: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        p = out.sigmoid()
        return p * (1 - p) * way[0], way[1]

    def behaviour(
        self, out: Tensor, extra: Tensor, temperature: float, epsilon: float
    ) -> tuple[Tensor, Tensor]:
        out = out / temperature
        if epsilon:
            keep, half = math.log1p(-epsilon), torch.full_like(out, math.log(epsilon / 2))
            one = torch.logaddexp(logsigmoid(out) + keep, half)
            out = one - torch.logaddexp(logsigmoid(-out) + keep, half)
        return out, extra

    def features(self, act: Tensor) -> Tensor:
        return act

    @property
    def count(self) -> int | None:
        return int(2**self.n)

    def index(self, act: Tensor) -> Tensor:
        return MultiCategorical((2,) * self.n).index(act)

    def probabilities(self, out: Tensor) -> Tensor:
        logits = torch.stack([torch.zeros_like(out), out], -1).flatten(-2)
        return MultiCategorical((2,) * self.n).probabilities(logits)

    def noise(self, rng: np.random.Generator, steps: int, slots: int) -> Array:
        return rng.logistic(size=(steps, slots, self.n)).astype(np.float32)

    def sample(self, out: Array, extra: Array, noise: Array) -> Array:
        return (out + noise > 0).astype(np.int64)

    def mode(self, out: Tensor) -> Tensor:
        return (out > 0).long()


# z and the weight of each of E f(z), z ~ N(0, 1), by the trapezoidal rule: where tanh(μ + σz) has
# its poles near the real line, σ large, it is nearer than Gauss-Hermite of as many nodes.
NODES = np.linspace(-5.5, 5.5, 48)
WEIGHTS = np.exp(-0.5 * NODES**2) / np.exp(-0.5 * NODES**2).sum()


@dataclass(frozen=True)
class Gaussian:
    """A diagonal Gaussian u ~ N(μ, σ²) in n dimensions: out is μ, extra is ρ, and log σ = ρ.

    `state_std`: out is [μ, ρ], and there is no extra.

    `min_std` m, `max_std` M: σ = (m + e^ρ)/(1 + e^ρ/M), which lies between them and is e^ρ where
    they are far; without one of them m = 0, M = ∞.

    `squashed`: of each dimension, whether the environment is told tanh u, () for none. The action
    that is kept, and that every method here takes, is u. As a ↦ tanh a does not depend on
    parameters, the scores, the divergence, the Fisher matrix and ratios of probabilities are those
    of u; only log_prob and entropy are of what the environment is told, and differ (Haarnoja et al.
    2018, appendix C).
    """

    n: int
    squashed: tuple[bool, ...] = ()
    state_std: bool = False
    min_std: float | None = None
    max_std: float | None = None

    @property
    def num_outputs(self) -> int:
        return 2 * self.n if self.state_std else self.n

    @property
    def num_extra(self) -> int:
        return 0 if self.state_std else self.n

    @property
    def num_features(self) -> int:
        return self.n

    @property
    def action_shape(self) -> tuple[int, ...]:
        return (self.n,)

    @property
    def has_bounds(self) -> bool:
        """Whether σ has any."""
        return self.min_std is not None or self.max_std is not None

    @property
    def _limits(self) -> tuple[float, float]:
        low = -math.inf if self.min_std is None else math.log(self.min_std)
        return low, math.inf if self.max_std is None else math.log(self.max_std)

    @property
    def _dims(self) -> list[int]:
        return [i for i, squashed in enumerate(self.squashed) if squashed]

    def _split(self, out: Tensor, extra: Tensor) -> tuple[Tensor, Tensor]:
        """μ and ρ."""
        return (out[..., : self.n], out[..., self.n :]) if self.state_std else (out, extra)

    def _joined(self, mean: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
        """What is of μ and what is of ρ as (out, extra)."""
        if not self.state_std:
            return mean, free
        return torch.cat([mean, free], -1), _nothing(mean)

    def _log_std(self, free: Tensor) -> Tensor:
        """log σ of ρ."""
        if not self.has_bounds:
            return free
        low, high = self._limits
        return free + _softplus(low - free) - _softplus(free - high)

    def _slope(self, free: Tensor) -> Tensor:
        """∂ log σ/∂ρ."""
        low, high = self._limits
        return (free - low).sigmoid() * (high - free).sigmoid() * -math.expm1(low - high)

    def _moments(self, out: Tensor, extra: Tensor) -> tuple[Tensor, Tensor]:
        """μ and log σ."""
        mean, free = self._split(out, extra)
        return mean, self._log_std(free)

    def log_prob(self, out: Tensor, extra: Tensor, act: Tensor) -> Tensor:
        mean, log_std = self._moments(out, extra)
        z = (act - mean) * (-log_std).exp()
        log_p = (-0.5 * z.square() - log_std).sum(-1) - 0.5 * self.n * math.log(2 * math.pi)
        return log_p - _log_stretch(act[..., self._dims]).sum(-1) if self.squashed else log_p

    def entropy(self, out: Tensor, extra: Tensor) -> Tensor:
        """As of every head; where squashed H(u) + Σ E log(1 − tanh²u), by quadrature.

        Its error is below 10⁻⁶ nats a dimension where σ ≤ 3, 10⁻⁴ where σ ≤ 5 (|μ| ≤ 3); that of
        float32 beside it. What torch differentiates is the quadrature itself.
        """
        constant = 0.5 * (1 + math.log(2 * math.pi))
        mean, log_std = self._moments(out, extra)
        entropy = (log_std + constant).sum(-1).expand(out.shape[:-1])
        if not self.squashed:
            return entropy
        nodes, weights = (torch.from_numpy(x).to(out) for x in (NODES, WEIGHTS))
        u = mean[..., self._dims, None] + log_std[..., self._dims, None].exp() * nodes
        return entropy + (_log_stretch(u) @ weights).sum(-1)

    def score(self, out: Tensor, extra: Tensor, act: Tensor) -> Score:
        mean, free = self._split(out, extra)
        log_std = self._log_std(free)
        z = (act - mean) * (-log_std).exp()
        of_mean, of_free = z * (-log_std).exp(), z.square() - 1.0
        if self.has_bounds:
            of_free = of_free * self._slope(free)
        return Score(*self._joined(of_mean, of_free))

    def kl(self, p: tuple[Tensor, Tensor], q: tuple[Tensor, Tensor]) -> Tensor:
        (mean_p, log_p), (mean_q, log_q) = self._moments(*p), self._moments(*q)
        z = (mean_p - mean_q) * (-log_q).exp()
        x = 2 * (log_p - log_q)
        return 0.5 * (torch.expm1(x) - x + z.square()).sum(-1)

    def fisher(
        self, out: Tensor, extra: Tensor, way: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        _, free = self._split(out, extra)
        mean_way, free_way = self._split(*way)
        of_free = 2 * free_way.expand(*out.shape[:-1], -1)
        if self.has_bounds:
            of_free = of_free * self._slope(free).square()
        return self._joined((-2 * self._log_std(free)).exp() * mean_way, of_free)

    def behaviour(
        self, out: Tensor, extra: Tensor, temperature: float, epsilon: float
    ) -> tuple[Tensor, Tensor]:
        """As of every head; where squashed it is u whose distribution is tempered."""
        if epsilon:
            raise ValueError("a continuous action space has no uniform policy")
        if self.has_bounds and temperature != 1:
            raise ValueError("the bounds of σ hold at temperature 1")
        mean, free = self._split(out, extra)
        return self._joined(mean, free + 0.5 * math.log(temperature))

    def features(self, act: Tensor) -> Tensor:
        if not self.squashed:
            return act
        return torch.where(torch.tensor(self.squashed, device=act.device), act.tanh(), act)

    @property
    def count(self) -> int | None:
        return None

    def index(self, act: Tensor) -> Tensor:
        raise ValueError("continuous actions cannot be counted")

    def probabilities(self, out: Tensor) -> Tensor:
        raise ValueError("continuous actions cannot be counted")

    def start(self, log_std: float) -> tuple[Tensor, Tensor]:
        """σ = exp(log_std), which must lie within its bounds."""
        free = log_std
        if self.has_bounds:
            std, low, high = math.exp(log_std), self.min_std or 0.0, self.max_std or math.inf
            free = math.log(std - low) - math.log1p(-std / high)
        return self._joined(torch.zeros(self.n), torch.full((self.n,), free))

    def noise(self, rng: np.random.Generator, steps: int, slots: int) -> Array:
        return rng.standard_normal((steps, slots, self.n), dtype=np.float32)

    def sample(self, out: Array, extra: Array, noise: Array) -> Array:
        if self.state_std:
            return out[..., : self.n] + self.spread(out[..., self.n :]) * noise
        return out + self.spread(extra)[:, None] * noise

    def spread(self, free: Array) -> Array:
        """σ of ρ."""
        if not self.has_bounds:
            return np.exp(free)
        return self._log_std(torch.from_numpy(free)).exp().numpy()

    def emitted(self, act: Array) -> Array:
        return np.where(self.squashed, np.tanh(act), act) if self.squashed else act

    def mode(self, out: Tensor) -> Tensor:
        """μ, of u: what the environment is told is tanh μ where squashed, as is usual."""
        return out[..., : self.n]

    def parameters(self, out: Tensor, extra: Tensor) -> dict[str, Tensor]:
        """μ and log σ of u."""
        mean, log_std = self._moments(out, extra)
        return {"mean": mean, "log_std": log_std.expand_as(mean)}


def make_head(kind: str, sizes: tuple[int, ...]) -> Head:
    """The distribution for a kind of action (the names of `ActionKind`) and its sizes."""
    if kind == "MULTI_CATEGORICAL":
        return MultiCategorical(sizes)
    heads: dict[str, Callable[[int], Head]] = {
        "CATEGORICAL": Categorical,
        "BERNOULLI": Bernoulli,
        "GAUSSIAN": Gaussian,
    }
    return heads[kind](*sizes)
