"""Linear-quadratic control: continuous actions of which everything is known.

    s' = A s + B a + w,   w ~ N(0, diag noise²),   s_0 ~ N(start_mean, diag start_std²),
    r = −(sᵀQ s + aᵀR a).

Neither states nor actions are clipped or rescaled: else it would not be linear. Any environment
that has such a `linear_quadratic` of its own is known likewise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from pgcli.environments.looks import layers
from pgcli.environments.tabular import PASSING

Array = np.ndarray
NAME = "linear_quadratic"
MOST = 4  # dimensions of states, and of actions


@dataclass(frozen=True)
class Linear:
    """What `linear_quadratic` says, for d states and m actions; float64."""

    A: Tensor  # [d, d]
    B: Tensor  # [d, m]
    Q: Tensor  # [d, d], symmetric
    R: Tensor  # [m, m], symmetric
    noise: Tensor  # [d]: standard deviation
    start_mean: Tensor  # [d]
    start_std: Tensor  # [d]
    horizon: int  # steps after which an episode is cut
    shift: float = 0.0  # of every reward

    def shifted(self, by: float) -> Linear:
        """With so much added to every reward."""
        return replace(self, shift=self.shift + by)

    def reward(self, state: Tensor, action: Tensor) -> Tensor:
        """Of states [..., d] and actions [..., m]: [...]."""
        cost = torch.einsum("...i,ij,...j->...", state, self.Q, state)
        return self.shift - cost - torch.einsum("...i,ij,...j->...", action, self.R, action)

    def following(self, state: Tensor, action: Tensor) -> Tensor:
        """The mean of the next state, [..., d]."""
        return state @ self.A.T + action @ self.B.T


class LinearQuadratic(gym.Env[Array, Array]):
    """`env=LQG`: 1 to 4 states and actions; a number stands for that multiple of the identity."""

    def __init__(
        self,
        A: Any = 0.9,
        B: Any = 0.5,
        Q: Any = 1.0,
        R: Any = 0.1,
        noise: Any = 0.2,
        start_mean: Any = 1.0,
        start_std: Any = 0.5,
    ) -> None:
        """Matrices as lists of rows; deviations and means as numbers or lists."""
        A = _matrix("A", A, None)
        d = len(A)
        B = _matrix("B", B, d)
        if B.shape[0] != d:
            raise ValueError(f"B has {B.shape[0]} rows, and A says {d} states")
        m = B.shape[1]
        if not (A.shape == (d, d) and max(d, m) <= MOST):
            raise ValueError(f"A is square, and states and actions have 1 to {MOST} dimensions")
        self.linear_quadratic: dict[str, Array] = {
            "A": A,
            "B": B,
            "Q": _symmetric("Q", Q, d),
            "R": _symmetric("R", R, m),
            "noise": _vector("noise", noise, d, least=0.0),
            "start_mean": _vector("start_mean", start_mean, d),
            "start_std": _vector("start_std", start_std, d, least=0.0),
        }
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (d,), np.float64)
        self.action_space = gym.spaces.Box(-np.inf, np.inf, (m,), np.float64)
        self._state = np.zeros(d)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """A state of the first state's distribution."""
        super().reset(seed=seed)
        it = self.linear_quadratic
        drawn = self.np_random.standard_normal(len(self._state))
        self._state = it["start_mean"] + it["start_std"] * drawn
        return self._state.copy(), {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """One step; it never ends by itself."""
        it, s, a = self.linear_quadratic, self._state, np.asarray(action, np.float64)
        reward = -float(s @ it["Q"] @ s + a @ it["R"] @ a)
        w = it["noise"] * self.np_random.standard_normal(len(s))
        self._state = it["A"] @ s + it["B"] @ a + w
        return self._state.copy(), reward, False, False, {}


def read_linear(env: gym.Env[Any, Any], horizon: int) -> Linear | None:
    """What the environment says of itself; None where it says nothing, or a wrapper may change it.

    Raises ValueError, TypeError or KeyError where that is no system, or contradicts its spaces.
    """
    *outer, inner = layers(env)
    said = getattr(inner, NAME, None)
    if not isinstance(said, dict) or any(type(one) not in PASSING for one in outer):
        return None
    return _read(said, (env.observation_space.shape, env.action_space.shape), horizon)


def _read(said: dict[str, Any], shapes: tuple[Any, Any], horizon: int) -> Linear:
    parts: dict[str, Any] = {
        key: torch.as_tensor(np.asarray(x, np.float64)) for key, x in said.items()
    }
    model = Linear(**parts, horizon=horizon)
    d, m = model.B.shape
    if shapes != ((d,), (m,)):
        raise ValueError(f"its spaces are {shapes[0]} and {shapes[1]}, its B is {d} by {m}")
    return model


def _matrix(name: str, value: Any, rows: int | None) -> Array:
    x = np.asarray(value, np.float64)
    if x.ndim == 0:
        x = x * np.eye(1 if rows is None else rows)
    if x.ndim != 2 or 0 in x.shape or not np.isfinite(x).all():
        raise ValueError(f"{name} is {value}: a number, or rows of finite numbers of one length")
    return x


def _symmetric(name: str, value: Any, size: int) -> Array:
    x = _matrix(name, value, size)
    if x.shape != (size, size) or not np.allclose(x, x.T):
        raise ValueError(f"{name} is {value}: symmetric, {size} by {size}")
    return x


def _vector(name: str, value: Any, size: int, least: float = -np.inf) -> Array:
    x = np.asarray(value, np.float64)
    x = np.full(size, x) if x.ndim == 0 else x
    if x.shape != (size,) or not (np.isfinite(x) & (x >= least)).all():
        sign = "" if least < 0 else " of 0 or more"
        raise ValueError(f"{name} is {value}: a number, or {size} of them{sign}")
    return x


gym.register("pg/LQG-v0", f"{__name__}:LinearQuadratic", max_episode_steps=10)
