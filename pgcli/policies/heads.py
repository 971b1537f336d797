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
    """The derivatives of log π(a|s) by what parametrises it, and the entropy beside them."""

    out: Tensor  # [S, M, O]
    extra: Tensor  # [S, M, X]
    entropy: Tensor  # [S, M]


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
        """∂ log π(a|s) by out and extra [S, 1 or M, X], in closed form, and the entropy."""
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
        """Actions [S, M, *action_shape] as inputs of a critic, [S, M, O]."""
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
        """All the randomness of `steps` steps, float32 [steps, slots, O]."""
        ...

    def sample(self, out: Array, extra: Array, noise: Array) -> Array:
        """Actions [S, K, *action_shape] from outputs and noise [S, K, O]; `extra` [S, X]."""
        ...


def _nothing(out: Tensor) -> Tensor:
    return out[..., :0]


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
class Categorical:
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
        logp = out.log_softmax(-1)
        p = logp.exp()
        one_hot = torch.zeros_like(p).scatter_(-1, act.unsqueeze(-1), 1.0)
        return Score(one_hot - p, _nothing(out), -(p * logp).sum(-1))

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


@dataclass(frozen=True)
class MultiCategorical:
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
        entropy = torch.stack([part.entropy for part in parts]).sum(0)
        return Score(torch.cat([part.out for part in parts], -1), _nothing(out), entropy)

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


@dataclass(frozen=True)
class Bernoulli:
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
        return Score(act - out.sigmoid(), _nothing(out), self.entropy(out, extra))

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


@dataclass(frozen=True)
class Gaussian:
    """A diagonal Gaussian: out is the mean, extra the log standard deviation."""

    n: int

    @property
    def num_outputs(self) -> int:
        return self.n

    @property
    def num_extra(self) -> int:
        return self.n

    @property
    def action_shape(self) -> tuple[int, ...]:
        return (self.n,)

    def log_prob(self, out: Tensor, extra: Tensor, act: Tensor) -> Tensor:
        z = (act - out) * (-extra).exp()
        return (-0.5 * z.square() - extra).sum(-1) - 0.5 * self.n * math.log(2 * math.pi)

    def entropy(self, out: Tensor, extra: Tensor) -> Tensor:
        constant = 0.5 * (1 + math.log(2 * math.pi))
        return (extra + constant).sum(-1).expand(out.shape[:-1])

    def score(self, out: Tensor, extra: Tensor, act: Tensor) -> Score:
        z = (act - out) * (-extra).exp()
        return Score(z * (-extra).exp(), z.square() - 1.0, self.entropy(out, extra))

    def kl(self, p: tuple[Tensor, Tensor], q: tuple[Tensor, Tensor]) -> Tensor:
        (mean_p, log_p), (mean_q, log_q) = p, q
        z = (mean_p - mean_q) * (-log_q).exp()
        x = 2 * (log_p - log_q)
        return 0.5 * (torch.expm1(x) - x + z.square()).sum(-1)

    def fisher(
        self, out: Tensor, extra: Tensor, way: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        return (-2 * extra).exp() * way[0], 2 * way[1].expand(*out.shape[:-1], -1)

    def behaviour(
        self, out: Tensor, extra: Tensor, temperature: float, epsilon: float
    ) -> tuple[Tensor, Tensor]:
        if epsilon:
            raise ValueError("a continuous action space has no uniform policy")
        return out, extra + 0.5 * math.log(temperature)

    def features(self, act: Tensor) -> Tensor:
        return act

    @property
    def count(self) -> int | None:
        return None

    def index(self, act: Tensor) -> Tensor:
        raise ValueError("continuous actions cannot be counted")

    def probabilities(self, out: Tensor) -> Tensor:
        raise ValueError("continuous actions cannot be counted")

    def noise(self, rng: np.random.Generator, steps: int, slots: int) -> Array:
        return rng.standard_normal((steps, slots, self.n), dtype=np.float32)

    def sample(self, out: Array, extra: Array, noise: Array) -> Array:
        return out + np.exp(extra)[:, None] * noise


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
