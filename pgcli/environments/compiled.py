"""Small environments compiled together with the policy: a rollout without a Python call per step.

Needs numba (extra `fast`). The dynamics are those of Gymnasium's classic control, slot for slot the
same episodes from the same seeds as its single environments. All compiled code is in this file:
numba's cache on disk notices changes of the compiled function's own file only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numba import njit

from pgcli.config.schema import EnvConfig
from pgcli.environments.engines import Base, Step, compiled_model, maker
from pgcli.environments.rollout import Film, Network
from pgcli.parallel import cores, ordered

Array = np.ndarray

BLOCK = 16  # slots that one core plays in lockstep: their activations stay in its first cache
WIDEST = 128  # units; from there on a matrix product of NumPy's is worth its calls

Function = TypeVar("Function", bound=Callable[..., Any])
REORDERED = {"reassoc", "contract", "arcp", "nsz"}  # what LLVM may do to arithmetic


def compiled(function: Function) -> Function:
    """Compile, every operation as it is written."""
    return cast(Function, njit(function, cache=True, nogil=True, error_model="numpy"))


def reordered(function: Function) -> Function:
    """Compile where the order of a sum does not matter, so that it runs on whole vectors."""
    made = njit(function, cache=True, nogil=True, error_model="numpy", fastmath=REORDERED)
    return cast(Function, made)


CARTPOLE, ACROBOT, MOUNTAIN_CAR, PENDULUM = range(4)


@compiled
def cartpole(state: Array, e: int, act: float) -> tuple[float, bool]:
    """A pole on a cart: state[e] = (x, ẋ, θ, θ̇) after one Euler step of 0.02 s.

    Barto, Sutton and Anderson 1983; the equations as corrected by Florian 2007, (23) and (24).
    """
    g, pole, total, half, push, tau = 9.8, 0.1, 1.1, 0.5, 10.0, 0.02
    x, v, angle, spin = state[e, 0], state[e, 1], state[e, 2], state[e, 3]
    cos, sin = math.cos(angle), math.sin(angle)
    force = push if act == 1 else -push
    common = (force + pole * half * (spin * spin) * sin) / total
    spinning = (g * sin - cos * common) / (half * (4.0 / 3.0 - pole * (cos * cos) / total))
    driving = common - pole * half * spinning * cos / total
    x, angle = x + tau * v, angle + tau * spin
    state[e, 0], state[e, 1] = x, v + tau * driving
    state[e, 2], state[e, 3] = angle, spin + tau * spinning
    return 1.0, abs(x) > 2.4 or abs(angle) > 12 * 2 * math.pi / 360


@compiled
def links(
    one: float, two: float, spin1: float, spin2: float, torque: float
) -> tuple[float, float, float, float]:
    """d/dt of (θ₁, θ₂, θ̇₁, θ̇₂): Sutton and Barto 1998, section 11.3, all lengths and masses 1."""
    g, centre = 9.8, 0.5
    cos2, sin2 = math.cos(two), math.sin(two)
    d1 = centre**2 + (1.0 + centre**2 + 2 * centre * cos2) + 1.0 + 1.0
    d2 = centre**2 + centre * cos2 + 1.0
    phi2 = centre * g * math.cos(one + two - math.pi / 2)
    phi1 = (
        -centre * spin2**2 * sin2
        - 2 * centre * spin2 * spin1 * sin2
        + (centre + 1.0) * g * math.cos(one - math.pi / 2)
        + phi2
    )
    push2 = (torque + d2 / d1 * phi1 - centre * spin1**2 * sin2 - phi2) / (
        centre**2 + 1.0 - d2**2 / d1
    )
    return spin1, spin2, -(d2 * push2 + phi1) / d1, push2


@compiled
def wrapped(angle: float) -> float:
    """The same angle in [-π, π]."""
    while angle > math.pi:
        angle -= 2 * math.pi
    while angle < -math.pi:
        angle += 2 * math.pi
    return angle


@compiled
def acrobot(state: Array, e: int, act: float) -> tuple[float, bool]:
    """Two links, a torque at their joint: state[e] after a Runge-Kutta step of 0.2 s."""
    tau, torque = 0.2, act - 1.0
    a, b, c, d = state[e, 0], state[e, 1], state[e, 2], state[e, 3]
    k1 = links(a, b, c, d, torque)
    h = tau / 2.0
    k2 = links(a + h * k1[0], b + h * k1[1], c + h * k1[2], d + h * k1[3], torque)
    k3 = links(a + h * k2[0], b + h * k2[1], c + h * k2[2], d + h * k2[3], torque)
    k4 = links(a + tau * k3[0], b + tau * k3[1], c + tau * k3[2], d + tau * k3[3], torque)
    for i in range(4):
        state[e, i] += tau / 6.0 * (k1[i] + 2 * k2[i] + 2 * k3[i] + k4[i])
    one, two = wrapped(state[e, 0]), wrapped(state[e, 1])
    state[e, 0], state[e, 1] = one, two
    state[e, 2] = min(max(state[e, 2], -4 * math.pi), 4 * math.pi)
    state[e, 3] = min(max(state[e, 3], -9 * math.pi), 9 * math.pi)
    high = -math.cos(one) - math.cos(one + two) > 1.0
    return (0.0 if high else -1.0), high


@compiled
def mountain_car(state: Array, e: int, act: float) -> tuple[float, bool]:
    """A car too weak for the hill: state[e] = (position, velocity) a step on. Moore 1990."""
    speed = state[e, 1] + (act - 1.0) * 0.001 - 0.0025 * math.cos(3 * state[e, 0])
    speed = min(max(speed, -0.07), 0.07)
    place = min(max(state[e, 0] + speed, -1.2), 0.6)
    if place == -1.2 and speed < 0:
        speed = 0.0
    state[e, 0], state[e, 1] = place, speed
    return -1.0, place >= 0.5 and speed >= 0.0


@compiled
def pendulum(state: Array, e: int, act: float) -> tuple[float, bool]:
    """Swing-up: state[e] = (θ, θ̇), 0.05 s on; `act` in units of the largest torque, 2 N m."""
    angle, spin = state[e, 0], state[e, 1]
    torque = min(max(2.0 * act, -2.0), 2.0)
    off = (angle + math.pi) % (2 * math.pi) - math.pi
    cost = off**2 + 0.1 * spin**2 + 0.001 * torque**2
    spin = min(max(spin + (15.0 * math.sin(angle) + 3.0 * torque) * 0.05, -8.0), 8.0)
    state[e, 0], state[e, 1] = angle + spin * 0.05, spin
    return -cost, False


@compiled
def advance(model: int, state: Array, e: int, act: float) -> tuple[float, bool]:
    """One step of state[e]; its reward, and whether it terminated."""
    if model == CARTPOLE:
        return cartpole(state, e, act)
    if model == ACROBOT:
        return acrobot(state, e, act)
    if model == MOUNTAIN_CAR:
        return mountain_car(state, e, act)
    return pendulum(state, e, act)


@compiled
def observe(model: int, state: Array, obs: Array, e: int, r: int) -> None:
    """The observation of state[e], into obs[e, r]."""
    if model == ACROBOT:
        obs[e, r, 0], obs[e, r, 1] = math.cos(state[e, 0]), math.sin(state[e, 0])
        obs[e, r, 2], obs[e, r, 3] = math.cos(state[e, 1]), math.sin(state[e, 1])
        obs[e, r, 4], obs[e, r, 5] = state[e, 2], state[e, 3]
    elif model == PENDULUM:
        obs[e, r, 0], obs[e, r, 1] = math.cos(state[e, 0]), math.sin(state[e, 0])
        obs[e, r, 2] = state[e, 1]
    else:
        for i in range(state.shape[1]):
            obs[e, r, i] = state[e, i]


class Slots(NamedTuple):
    """The E environments."""

    state: Array  # [E, states] float64
    age: Array  # [E]: steps since the reset
    ended: Array  # [E] bool: the next row is the reset
    fresh: Array  # [E, J, states]: initial states drawn ahead
    used: Array  # [E]: how many of them are used up


@compiled
def turn(model: int, limit: int, slots: Slots, e: int, act: float) -> tuple[float, bool, bool]:
    """One row of slot e, NEXT_STEP: after an episode's end the action is ignored and it resets."""
    if slots.ended[e]:
        for i in range(slots.state.shape[1]):
            slots.state[e, i] = slots.fresh[e, slots.used[e], i]
        slots.used[e] += 1
        slots.age[e] = 0
        slots.ended[e] = False
        return 0.0, False, False
    rew, terminated = advance(model, slots.state, e, act)
    slots.age[e] += 1
    truncated = slots.age[e] >= limit
    slots.ended[e] = terminated or truncated
    return rew, terminated, truncated


@compiled
def step_all(
    model: int, limit: int, slots: Slots, act: Array, active: Array, obs: Array, rew: Array,
    terminated: Array, truncated: Array,
) -> None:  # fmt: skip
    """A row of every active slot."""
    for e in range(len(act)):
        if active[e]:
            rew[e], terminated[e], truncated[e] = turn(model, limit, slots, e, float(act[e]))
            observe(model, slots.state, obs, e, 0)


@compiled
def observe_all(model: int, slots: Slots, obs: Array) -> None:
    """The observations of all slots, into obs [E, 1, D]."""
    for e in range(len(obs)):
        observe(model, slots.state, obs, e, 0)


@reordered
def affine(x: Array, weight: Array, bias: Array, y: Array, n: int) -> None:
    """y = x W + b for the first n rows, and for some more: y must have room for them.

    Four rows and four inputs at a time: what is loaded is used four times over.
    """
    inputs, whole = weight.shape[0], weight.shape[0] // 4 * 4
    for k in range(0, n, 4):
        for r in range(k, k + 4):
            for j in range(len(bias)):
                y[r, j] = bias[j]
        y0, y1, y2, y3 = y[k], y[k + 1], y[k + 2], y[k + 3]
        for i in range(0, whole, 4):
            w0, w1, w2, w3 = weight[i], weight[i + 1], weight[i + 2], weight[i + 3]
            a0, a1, a2, a3 = x[k, i], x[k, i + 1], x[k, i + 2], x[k, i + 3]
            b0, b1, b2, b3 = x[k + 1, i], x[k + 1, i + 1], x[k + 1, i + 2], x[k + 1, i + 3]
            c0, c1, c2, c3 = x[k + 2, i], x[k + 2, i + 1], x[k + 2, i + 2], x[k + 2, i + 3]
            d0, d1, d2, d3 = x[k + 3, i], x[k + 3, i + 1], x[k + 3, i + 2], x[k + 3, i + 3]
            for j in range(len(bias)):
                y0[j] += a0 * w0[j] + a1 * w1[j] + a2 * w2[j] + a3 * w3[j]
                y1[j] += b0 * w0[j] + b1 * w1[j] + b2 * w2[j] + b3 * w3[j]
                y2[j] += c0 * w0[j] + c1 * w1[j] + c2 * w2[j] + c3 * w3[j]
                y3[j] += d0 * w0[j] + d1 * w1[j] + d2 * w2[j] + d3 * w3[j]
        for i in range(whole, inputs):
            for r in range(k, k + 4):
                for j in range(len(bias)):
                    y[r, j] += x[r, i] * weight[i, j]


def lambert(order: int) -> tuple[tuple[np.float32, ...], tuple[np.float32, ...]]:
    """Coefficients in x² of P and Q in tanh x ≈ x P(x²) / Q(x²), the highest power first.

    Lambert's continued fraction x/(1 + x²/(3 + x²/(5 + …))), cut after `order` terms.
    """
    x2 = np.polynomial.Polynomial([0, 1])
    before, now = [np.polynomial.Polynomial([c]) for c in (0, 1)], [x2**0, x2**0]
    for k in range(2, order + 1):
        before, now = now, [(2 * k - 1) * a + x2 * b for a, b in zip(now, before, strict=True)]
    scale = now[1].coef[0]
    p, q = (tuple(np.float32(c / scale) for c in poly.coef[::-1]) for poly in now)
    return p, q


P, Q = lambert(13)  # 8e-7 from tanh at most, as far as FARTHEST
FARTHEST = np.float32(9.0)  # where 1 - tanh is 3e-8


@reordered
def tanh(x: Array) -> None:
    """In place, for x [n]."""
    for i in range(len(x)):
        v = x[i]
        v = FARTHEST if v > FARTHEST else v
        v = -FARTHEST if v < -FARTHEST else v
        y = v * v
        p = (((((P[0] * y + P[1]) * y + P[2]) * y + P[3]) * y + P[4]) * y + P[5]) * y + P[6]
        q = (((((Q[0] * y + Q[1]) * y + Q[2]) * y + Q[3]) * y + Q[4]) * y + Q[5]) * y + Q[6]
        x[i] = v * p / q


@reordered
def relu(x: Array) -> None:
    """In place, for x [n]."""
    for i in range(len(x)):
        x[i] = x[i] if x[i] > 0 else np.float32(0)


@reordered
def outputs(x: Array, y: Array, n: int, sizes: Array, weights: Array, rectified: bool) -> Array:
    """The network's outputs for the first n rows of x; x and y are room for its layers."""
    at = 0
    for layer in range(len(sizes) - 1):
        i, o = sizes[layer], sizes[layer + 1]
        weight = weights[at : at + i * o].reshape(i, o)
        at += i * o
        affine(x, weight, weights[at : at + o], y, n)
        at += o
        x, y = y, x
        if layer < len(sizes) - 2:
            for k in range(n):
                if rectified:
                    relu(x[k, :o])
                else:
                    tanh(x[k, :o])
    return x


@compiled
def play(
    model: int, limit: int, slots: Slots, sizes: Array, weights: Array, rectified: bool,
    spread: Array, noise: Array, first: int, last: int, left: Array, film: Film, row: int,
) -> int:  # fmt: skip
    """Up to as many rows as there is `noise [rows, slots, O]`, of slots first … last - 1.

    Slot e stops after left[e] more episodes, counted down here. The action is the first output's
    plus `spread` times noise where the policy is Gaussian, else that of the largest output plus
    noise. `film` from `row` on; the observation after a slot's last step stands one row further.
    Returns how many rows were needed.
    """
    width = 0
    for size in sizes:
        width = max(width, size)
    x, y = np.empty((BLOCK + 4, width), np.float32), np.empty((BLOCK + 4, width), np.float32)
    alive = np.empty(BLOCK + 4, np.int64)
    for t in range(len(noise)):
        r = row + t
        n, playing = 0, 0
        for e in range(first, last):
            if left[e] > 0:
                playing += 1
                if slots.ended[e]:  # needs no action
                    turn(model, limit, slots, e, 0.0)
                    film.act[e, r, 0], film.rew[e, r] = 0, 0.0
                    film.terminated[e, r] = film.truncated[e, r] = False
                    observe(model, slots.state, film.obs, e, r + 1)
                else:
                    alive[n] = e
                    for i in range(film.obs.shape[2]):
                        x[n, i] = film.obs[e, r, i]
                    n += 1
        if playing == 0:
            return t
        out = outputs(x, y, n, sizes, weights, rectified)
        for k in range(n):
            e = alive[k]
            draw = noise[t, e - first]
            if len(spread):
                film.act[e, r, 0] = out[k, 0] + spread[0] * draw[0]
            else:
                best = 0
                for j in range(1, len(draw)):
                    if out[k, j] + draw[j] > out[k, best] + draw[best]:
                        best = j
                film.act[e, r, 0] = best
            rew, terminated, truncated = turn(model, limit, slots, e, float(film.act[e, r, 0]))
            film.rew[e, r] = rew
            film.terminated[e, r], film.truncated[e, r] = terminated, truncated
            observe(model, slots.state, film.obs, e, r + 1)
            if terminated or truncated:
                left[e] -= 1
    return len(noise)


class Model(NamedTuple):
    """One environment's dynamics, and how its episodes begin."""

    code: int
    draw: Callable[[np.random.Generator, int], Array]  # so many initial states [n, states]


def _still(rng: np.random.Generator, n: int) -> Array:
    return np.stack([rng.uniform(-0.6, -0.4, n), np.zeros(n)], axis=1)


MODELS = {
    "CartPoleEnv": Model(CARTPOLE, lambda rng, n: rng.uniform(-0.05, 0.05, (n, 4))),
    "AcrobotEnv": Model(
        ACROBOT, lambda rng, n: rng.uniform(-0.1, 0.1, (n, 4)).astype(np.float32).astype(float)
    ),
    "MountainCarEnv": Model(MOUNTAIN_CAR, _still),
    "PendulumEnv": Model(
        PENDULUM, lambda rng, n: rng.uniform([-math.pi, -1.0], [math.pi, 1.0], (n, 2))
    ),
}


class CompiledEngine(Base):
    """E slots, each with its own generator: the episodes do not depend on who plays beside."""

    name = "compiled"

    def __init__(self, config: EnvConfig, num_envs: int) -> None:
        env = maker(config)()
        super().__init__(config, num_envs, env.observation_space, env.action_space)
        env.close()
        name = compiled_model(config)
        assert name is not None, "chosen only where there is a model"
        self._model = MODELS[name]
        self._rngs: list[np.random.Generator] = []
        states = self._model.draw(np.random.default_rng(0), 1).shape[1]
        self._slots = Slots(
            np.zeros((num_envs, states)),
            np.zeros(num_envs, np.int64),
            np.zeros(num_envs, bool),
            np.zeros((num_envs, 1, states)),
            np.zeros(num_envs, np.int64),
        )
        self._obs = np.zeros((num_envs, 1, self.obs_dim), np.float32)
        self._rew = np.zeros(num_envs)
        self._terminated, self._truncated = np.zeros((2, num_envs), bool)

    def reset(self, seeds: Sequence[int]) -> Array:
        """Start anew in every slot, seeded: obs [E, D]."""
        self._rngs = [np.random.default_rng(seed) for seed in seeds]
        self._slots.age[:], self._slots.ended[:] = 0, False
        self._slots.used[:] = self._slots.fresh.shape[1]  # what an earlier seed drew is void
        for e, rng in enumerate(self._rngs):
            self._slots.state[e] = self._model.draw(rng, 1)
        observe_all(self._model.code, self._slots, self._obs)
        return self._obs[:, 0]

    def step(self, act: Array, active: Array) -> Step:
        """A row of every active slot: obs [E, D], rew, terminated, truncated [E]."""
        self._stock((active & self._slots.ended).astype(np.int64))
        step_all(
            self._model.code, self.max_episode_steps, self._slots, act.reshape(len(act)), active,
            self._obs, self._rew, self._terminated, self._truncated,
        )  # fmt: skip
        return self._obs[:, 0], self._rew, self._terminated, self._truncated

    def plays(self, network: Network) -> bool:
        """Whether `play` can stand for this policy, and is worth it."""
        known = network.activation in ("tanh", "relu") and max(network.sizes) <= WIDEST
        gaussian = bool(network.spread.size)
        return known and (not gaussian or network.spread.shape[1] == 1)

    def play(self, network: Network, noise: Array, left: Array, film: Film, row: int) -> int:
        """Up to as many rows as `noise [rows, S, K, O]` has; slot e plays left[e] more episodes.

        Fills `film` from `row` on, the observation after a slot's last step one row further.
        Returns how many rows that took.
        """
        rows, seeds, slots, _ = noise.shape
        left = left.copy()
        self._stock(np.minimum(left - ~self._slots.ended, rows // 2 + 1))
        size = min(BLOCK, 4 * -(-self.num_envs // (4 * cores())))
        firsts = [s * slots + k for s in range(seeds) for k in range(0, slots, size)]

        def piece(first: int) -> int:
            seed, k = divmod(first, slots)
            last = min(first + size, (seed + 1) * slots)
            drawn = np.ascontiguousarray(noise[:, seed, k : k + last - first])
            found = play(
                self._model.code, self.max_episode_steps, self._slots, network.sizes,
                network.weights[seed], network.activation == "relu", network.spread[seed], drawn,
                first, last, left, film, row,
            )  # fmt: skip
            return int(found)

        return max(ordered(piece, firsts))

    def close(self) -> None:
        """Nothing is held."""

    def _stock(self, resets: Array) -> None:
        """Draw initial states ahead, so that slot e can be reset resets[e] times."""
        slots = self._slots
        held = slots.fresh.shape[1] - slots.used
        if (held >= resets).all():
            return
        # Unread ones stand at the end of a slot's row; the new ones follow them.
        size = int(np.maximum(held, resets).max())
        fresh = np.empty((self.num_envs, size, slots.state.shape[1]))
        for e, rng in enumerate(self._rngs):
            rest = slots.fresh[e, slots.used[e] :]
            new = max(0, int(resets[e]) - len(rest))
            used = size - len(rest) - new
            fresh[e, used : used + len(rest)] = rest
            if new:
                fresh[e, used + len(rest) :] = self._model.draw(rng, new)
            slots.used[e] = used
        self._slots = slots._replace(fresh=fresh)
