"""Everything that is compiled, by numba (extra `fast`): small environments, their policies.

The dynamics are those of Gymnasium's classic control, operation by operation: states and rewards
are the same to the last bit wherever NumPy takes sine and cosine from the C library. All of it is
in one file: numba's cache on disk notices changes of the compiled function's own file only.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from pgcli.machine import compiling
from pgcli.machine.compiling import compiled, inlined, lambert, reordered

Array = np.ndarray

BLOCK = 16  # rows that one core takes at once: their activations stay in its first cache
WIDEST = 128  # units; from there on a matrix product of a library's is worth its calls
NARROW = 8  # outputs: with fewer, sums run along the inputs


def forget() -> None:
    """Take what an earlier version left on disk away."""
    compiling.forget(play, step_all, observe_all)


CARTPOLE, ACROBOT, MOUNTAIN_CAR, PENDULUM = range(4)


@inlined
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
    one: float, two: float, spin1: float, spin2: float, torque: float, square: float
) -> tuple[float, float, float, float]:
    """d/dt of (θ₁, θ₂, θ̇₁, θ̇₂): Sutton and Barto 1998, section 11.3, all lengths and masses 1.

    square: 2, as a number that the compiler does not know: of x**2 with a known one it makes x * x,
    and NumPy's x**2 is the C library's pow, which rounds otherwise now and then.
    """
    g, centre = 9.8, 0.5
    cos2, sin2 = math.cos(two), math.sin(two)
    d1 = centre**2 + (1.0 + centre**2 + 2 * centre * cos2) + 1.0 + 1.0
    d2 = centre**2 + centre * cos2 + 1.0
    phi2 = centre * g * math.cos(one + two - math.pi / 2)
    phi1 = (
        -centre * spin2**square * sin2
        - 2 * centre * spin2 * spin1 * sin2
        + (centre + 1.0) * g * math.cos(one - math.pi / 2)
        + phi2
    )
    push2 = (torque + d2 / d1 * phi1 - centre * spin1**square * sin2 - phi2) / (
        centre**2 + 1.0 - d2**square / d1
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
    tau, torque, square = 0.2, act - 1.0, state.shape[1] - 2.0
    a, b, c, d = state[e, 0], state[e, 1], state[e, 2], state[e, 3]
    k1 = links(a, b, c, d, torque, square)
    h = tau / 2.0
    k2 = links(a + h * k1[0], b + h * k1[1], c + h * k1[2], d + h * k1[3], torque, square)
    k3 = links(a + h * k2[0], b + h * k2[1], c + h * k2[2], d + h * k2[3], torque, square)
    k4 = links(a + tau * k3[0], b + tau * k3[1], c + tau * k3[2], d + tau * k3[3], torque, square)
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
    speed = state[e, 1] + ((act - 1.0) * 0.001 + math.cos(3 * state[e, 0]) * -0.0025)
    speed = min(max(speed, -0.07), 0.07)
    place = min(max(state[e, 0] + speed, -1.2), 0.6)
    if place == -1.2 and speed < 0:
        speed = 0.0
    state[e, 0], state[e, 1] = place, speed
    return -1.0, place >= 0.5 and speed >= 0.0


@compiled
def pendulum(state: Array, e: int, act: float) -> tuple[float, bool]:
    """Swing-up: state[e] = (θ, θ̇), 0.05 s on; `act` in units of the largest torque, 2 N m.

    The action is of float32, and so is what Gymnasium computes of it alone. `square`: see `links`.
    """
    angle, spin, square = state[e, 0], state[e, 1], state.shape[1] + 0.0
    torque = np.float32(min(max(2.0 * act, -2.0), 2.0))
    effort = np.float32(0.001) * torque ** np.float32(square)
    off = (angle + math.pi) % (2 * math.pi) - math.pi
    cost = off**square + 0.1 * spin**square + effort
    spin = min(max(spin + (15.0 * math.sin(angle) + np.float32(3.0) * torque) * 0.05, -8.0), 8.0)
    state[e, 0], state[e, 1] = angle + spin * 0.05, spin
    return -cost, False


@inlined
def advance(model: int, state: Array, e: int, act: float) -> tuple[float, bool]:
    """One step of state[e]; its reward, and whether it terminated."""
    if model == CARTPOLE:
        return cartpole(state, e, act)
    if model == ACROBOT:
        return acrobot(state, e, act)
    if model == MOUNTAIN_CAR:
        return mountain_car(state, e, act)
    return pendulum(state, e, act)


@inlined
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


@inlined
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


# Signed indices may count from the end, which keeps a loop from running on whole vectors.
ROW = np.uint64(WIDEST)
ZERO, ONE, TWO, THREE, FOUR = (np.uint64(i) for i in range(5))


@reordered
def affine(x: Array, weight: Array, y: Array, rows: int, inputs: int, outs: int) -> None:
    """y = x W + b: all of them flat, rows WIDEST apart, b below the last row of W.

    Four rows and four inputs at a time: what is loaded is used four times over. Computes up to
    three rows too many. The constant distance between rows tells the compiler that none overlap.
    """
    ins, cols, bias = np.uint64(inputs), np.uint64(outs), np.uint64(inputs) * ROW
    whole = np.uint64(inputs // 4 * 4)
    for k in range(ZERO, np.uint64(rows) * ROW, FOUR * ROW):
        for r in range(k, k + FOUR * ROW, ROW):
            for j in range(ZERO, cols, ONE):
                y[r + j] = weight[bias + j]
        for i in range(ZERO, whole, FOUR):
            w, u0 = i * ROW, k + i
            u1, u2, u3 = u0 + ROW, u0 + TWO * ROW, u0 + THREE * ROW
            a0, a1, a2, a3 = x[u0], x[u0 + ONE], x[u0 + TWO], x[u0 + THREE]
            b0, b1, b2, b3 = x[u1], x[u1 + ONE], x[u1 + TWO], x[u1 + THREE]
            c0, c1, c2, c3 = x[u2], x[u2 + ONE], x[u2 + TWO], x[u2 + THREE]
            d0, d1, d2, d3 = x[u3], x[u3 + ONE], x[u3 + TWO], x[u3 + THREE]
            for j in range(ZERO, cols, ONE):
                w0, w1 = weight[w + j], weight[w + ROW + j]
                w2, w3 = weight[w + TWO * ROW + j], weight[w + THREE * ROW + j]
                y[k + j] += a0 * w0 + a1 * w1 + a2 * w2 + a3 * w3
                y[k + ROW + j] += b0 * w0 + b1 * w1 + b2 * w2 + b3 * w3
                y[k + TWO * ROW + j] += c0 * w0 + c1 * w1 + c2 * w2 + c3 * w3
                y[k + THREE * ROW + j] += d0 * w0 + d1 * w1 + d2 * w2 + d3 * w3
        for i in range(whole, ins, ONE):
            for r in range(k, k + FOUR * ROW, ROW):
                for j in range(ZERO, cols, ONE):
                    y[r + j] += x[r + i] * weight[i * ROW + j]


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
def narrow(x: Array, weight: Array, y: Array, rows: int, inputs: int, outs: int) -> None:
    """The same for few outputs, from Wᵀ, rows WIDEST apart, and b in its column `inputs`."""
    ins, cols = np.uint64(inputs), np.uint64(outs)
    for r in range(ZERO, np.uint64(rows) * ROW, ROW):
        for j in range(ZERO, cols, ONE):
            w = j * ROW
            total = weight[w + ins]
            for i in range(ZERO, ins, ONE):
                total += x[r + i] * weight[w + i]
            y[r + j] = total


@reordered
def spaced(sizes: Array, weights: Array) -> Array:
    """Weights with their rows, biases among them, WIDEST apart; those of few outputs transposed."""
    rows = 0
    for layer in range(len(sizes) - 1):
        rows += sizes[layer] + 1
    padded = np.zeros((rows + NARROW) * WIDEST, np.float32)
    at, row = 0, 0
    for layer in range(len(sizes) - 1):
        i, o = sizes[layer], sizes[layer + 1]
        for k in range(i + 1):
            for j in range(o):
                if o < NARROW and i < WIDEST:
                    padded[(row + j) * WIDEST + k] = weights[at + j]
                else:
                    padded[(row + k) * WIDEST + j] = weights[at + j]
            at += o
        row += i + 1
    return padded


@reordered
def outputs(x: Array, y: Array, n: int, sizes: Array, weights: Array, rectified: bool) -> Array:
    """The network's outputs for n rows of x, all rows WIDEST apart; x and y are room for layers."""
    at = 0
    for layer in range(len(sizes) - 1):
        i, o = sizes[layer], sizes[layer + 1]
        if o < NARROW and i < WIDEST:
            narrow(x, weights[at * WIDEST :], y, n, i, o)
        else:
            affine(x, weights[at * WIDEST :], y, n, i, o)
        at += i + 1
        x, y = y, x
        if layer < len(sizes) - 2:
            for k in range(0, n * WIDEST, WIDEST):
                if rectified:
                    relu(x[k : k + o])
                else:
                    tanh(x[k : k + o])
    return x


@compiled
def play(
    model: int, limit: int, slots: Slots, sizes: Array, weights: Array, rectified: bool,
    spread: Array, normal: Array, clip: float, noise: Array, first: int, last: int, left: Array,
    buffer: Any, row: int,
) -> int:  # fmt: skip
    """Up to as many rows as there is `noise [rows, slots, O]`, of slots first … last - 1.

    Slot e stops after left[e] more episodes, counted down here. The action is the first output's
    plus `spread` times noise where the policy is Gaussian, else that of the largest output plus
    noise. Inputs are normalised by `normal [2, D]` and `clip` where D > 0. `buffer` (a rollout
    Buffer) is filled from `row` on; the observation after a slot's last step stands one row on.
    Returns how many rows were needed.
    """
    x = np.zeros((BLOCK + 4) * WIDEST, np.float32)
    y = np.zeros((BLOCK + 4) * WIDEST, np.float32)
    spaced_weights = spaced(sizes, weights)
    alive = np.empty(BLOCK + 4, np.int64)
    for t in range(len(noise)):
        r = row + t
        n, playing = 0, 0
        for e in range(first, last):
            if left[e] > 0:
                playing += 1
                if slots.ended[e]:  # needs no action
                    turn(model, limit, slots, e, 0.0)
                    buffer.act[e, r, 0], buffer.rew[e, r] = 0, 0.0
                    buffer.terminated[e, r] = buffer.truncated[e, r] = False
                    observe(model, slots.state, buffer.obs, e, r + 1)
                else:
                    alive[n] = e
                    for i in range(buffer.obs.shape[2]):
                        seen = buffer.obs[e, r, i]
                        if normal.shape[1] > 0:
                            seen = (seen - normal[0, i]) * normal[1, i]
                            seen = np.float32(min(max(seen, -clip), clip))
                        x[n * WIDEST + i] = seen
                    n += 1
        if playing == 0:
            return t
        out = outputs(x, y, n, sizes, spaced_weights, rectified)
        for k in range(n):
            e = alive[k]
            draw = noise[t, e - first]
            if len(spread):
                buffer.act[e, r, 0] = out[k * WIDEST] + spread[0] * draw[0]
            else:
                u, best = k * WIDEST, 0
                for j in range(1, len(draw)):
                    if out[u + j] + draw[j] > out[u + best] + draw[best]:
                        best = j
                buffer.act[e, r, 0] = best
            rew, terminated, truncated = turn(model, limit, slots, e, float(buffer.act[e, r, 0]))
            buffer.rew[e, r] = rew
            buffer.terminated[e, r], buffer.truncated[e, r] = terminated, truncated
            observe(model, slots.state, buffer.obs, e, r + 1)
            if terminated or truncated:
                left[e] -= 1
    return len(noise)
