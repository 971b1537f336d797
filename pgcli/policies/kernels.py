"""Passes over the rows of a batch in one compiled call each, by numba (extra `fast`).

On 64 rows an operation of torch's takes less time than calling it, and on thousands each of them
goes through memory once more. The formulas are those of `network`, `heads`, `gradients` and
`updates.optimizers`, for rectified or tanh layers of at most WIDEST units. A seed at a time, BLOCK
of its rows at a time.
"""

from __future__ import annotations

import math

import numpy as np

from pgcli.machine import compiling
from pgcli.machine.compiling import compiled, inlined, lambert, reordered

Array = np.ndarray

BLOCK = 32  # rows at a time: their activations stay near; a multiple of 4
WIDEST = 128  # units; a multiple of 4
NARROW = 8  # outputs: with fewer, sums run along the inputs

# Signed indices may count from the end, which keeps a loop from running on whole vectors.
ROW = np.uint64(WIDEST)
ZERO, ONE, TWO, THREE, FOUR = (np.uint64(i) for i in range(5))


def forget() -> None:
    """Take what an earlier version left on disk away."""
    compiling.forget(climb, fit, scores, divergences, outputs)


@reordered
def product(
    a: Array, down: int, right: int, b: Array, c: Array, rows: int, inner: int, cols: int
) -> None:
    """c += a b, all of them flat: a[r, k] at r·down + k·right, rows of b and c WIDEST apart.

    Four rows and four terms at a time: what is loaded is used four times over. Computes up to
    three rows too many.
    """
    d, s = np.uint64(down), np.uint64(right)
    outs, ins, whole = np.uint64(cols), np.uint64(inner), np.uint64(inner // 4 * 4)
    for r in range(ZERO, np.uint64(rows), FOUR):
        c0 = r * ROW
        c1, c2, c3 = c0 + ROW, c0 + TWO * ROW, c0 + THREE * ROW
        for k in range(ZERO, whole, FOUR):
            a0, b0 = r * d + k * s, k * ROW
            a1, a2, a3 = a0 + d, a0 + TWO * d, a0 + THREE * d
            p0, p1, p2, p3 = a[a0], a[a0 + s], a[a0 + TWO * s], a[a0 + THREE * s]
            q0, q1, q2, q3 = a[a1], a[a1 + s], a[a1 + TWO * s], a[a1 + THREE * s]
            u0, u1, u2, u3 = a[a2], a[a2 + s], a[a2 + TWO * s], a[a2 + THREE * s]
            v0, v1, v2, v3 = a[a3], a[a3 + s], a[a3 + TWO * s], a[a3 + THREE * s]
            for j in range(b0, b0 + outs, ONE):
                w0, w1, w2, w3 = b[j], b[j + ROW], b[j + TWO * ROW], b[j + THREE * ROW]
                i = j - b0
                c[c0 + i] += p0 * w0 + p1 * w1 + p2 * w2 + p3 * w3
                c[c1 + i] += q0 * w0 + q1 * w1 + q2 * w2 + q3 * w3
                c[c2 + i] += u0 * w0 + u1 * w1 + u2 * w2 + u3 * w3
                c[c3 + i] += v0 * w0 + v1 * w1 + v2 * w2 + v3 * w3
        for k in range(whole, ins, ONE):
            for row in range(r, r + FOUR, ONE):
                x = a[row * d + k * s]
                for j in range(ZERO, outs, ONE):
                    c[row * ROW + j] += x * b[k * ROW + j]


@reordered
def narrow(a: Array, bt: Array, c: Array, rows: int, inner: int, cols: int) -> None:
    """The same for few columns, by bᵀ: its rows WIDEST apart."""
    ins, outs = np.uint64(inner), np.uint64(cols)
    for r in range(ZERO, np.uint64(rows) * ROW, ROW):
        for j in range(ZERO, outs, ONE):
            total, at = c[r + j], j * ROW
            for k in range(ZERO, ins, ONE):
                total += a[r + k] * bt[at + k]
            c[r + j] = total


P, Q = lambert(13)  # 8e-7 from tanh at most, as far as FARTHEST
FARTHEST = np.float32(9.0)  # where 1 - tanh is 3e-8


@reordered
def spread(values: Array, y: Array, rows: int, cols: int) -> None:
    """Set each row of y to `values`."""
    o = np.uint64(cols)
    for r in range(ZERO, np.uint64(rows) * ROW, ROW):
        for j in range(ZERO, o, ONE):
            y[r + j] = values[j]


@reordered
def activate(x: Array, rows: int, cols: int, rectified: bool) -> None:
    """σ in place."""
    o = np.uint64(cols)
    for r in range(ZERO, np.uint64(rows) * ROW, ROW):
        if rectified:
            for j in range(r, r + o, ONE):
                x[j] = max(x[j], x.dtype.type(0))
        elif x.itemsize == 8:
            for j in range(r, r + o, ONE):
                x[j] = math.tanh(x[j])
        else:
            for j in range(r, r + o, ONE):
                v = x[j]
                v = FARTHEST if v > FARTHEST else v
                v = -FARTHEST if v < -FARTHEST else v
                y = v * v
                p = (((((P[0] * y + P[1]) * y + P[2]) * y + P[3]) * y + P[4]) * y + P[5]) * y + P[6]
                q = (((((Q[0] * y + Q[1]) * y + Q[2]) * y + Q[3]) * y + Q[4]) * y + Q[5]) * y + Q[6]
                x[j] = v * p / q


@reordered
def sloped(delta: Array, y: Array, rows: int, cols: int, rectified: bool) -> None:
    """∂f/∂z = ∂f/∂σ(z) ∘ σ'(z) in place, from y = σ(z)."""
    o, one = np.uint64(cols), y.dtype.type(1)
    for r in range(ZERO, np.uint64(rows) * ROW, ROW):
        if rectified:
            for j in range(r, r + o, ONE):
                delta[j] = delta[j] if y[j] > 0 else y.dtype.type(0)
        else:
            for j in range(r, r + o, ONE):
                delta[j] *= one - y[j] * y[j]


@reordered
def summed(delta: Array, total: Array, rows: int, cols: int) -> None:
    """total += the sum of the rows."""
    o = np.uint64(cols)
    for r in range(ZERO, np.uint64(rows) * ROW, ROW):
        for j in range(ZERO, o, ONE):
            total[j] += delta[r + j]


@reordered
def laid_out(sizes: Array, biased: bool, theta: Array, w: Array, wt: Array, b: Array) -> None:
    """Weights of each layer [i, o], their transposes, and biases, rows WIDEST apart."""
    at = ZERO
    for layer in range(len(sizes) - 1):
        o, one, other = np.uint64(sizes[layer + 1]), w[layer], wt[layer]
        for i in range(ZERO, np.uint64(sizes[layer]), ONE):
            for j in range(ZERO, o, ONE):
                one[i * ROW + j] = theta[at + j]
            for j in range(ZERO, o, ONE):
                other[j * ROW + i] = theta[at + j]
            at += o
        for j in range(ZERO, o, ONE):
            b[layer, j] = theta[at + j] if biased else 0
        at += o if biased else ZERO


@reordered
def flattened(sizes: Array, biased: bool, gw: Array, gb: Array, gradient: Array) -> int:
    """The gradients of layers as theta has them; how many numbers that are."""
    at = ZERO
    for layer in range(len(sizes) - 1):
        o, one = np.uint64(sizes[layer + 1]), gw[layer]
        down, right = (ONE, ROW) if o < NARROW else (ROW, ONE)
        for i in range(ZERO, np.uint64(sizes[layer]), ONE):
            for j in range(ZERO, o, ONE):
                gradient[at + j] = one[i * down + j * right]
            at += o
        if biased:
            for j in range(ZERO, o, ONE):
                gradient[at + j] = gb[layer, j]
            at += o
    return int(at)


@reordered
def cleared(sizes: Array, gw: Array, gb: Array) -> None:
    """Set the gradients of layers to 0."""
    for layer in range(len(sizes) - 1):
        i, o, one = np.uint64(sizes[layer]), np.uint64(sizes[layer + 1]), gw[layer]
        rows, cols = (o, i) if o < NARROW else (i, o)
        for r in range(ZERO, rows * ROW, ROW):
            for j in range(ZERO, cols, ONE):
                one[r + j] = 0
        gb[layer, : sizes[layer + 1]] = 0


@compiled
def forward(
    sizes: Array, rectified: bool, w: Array, wt: Array, b: Array, x: Array, rows: int
) -> None:
    """Every layer's outputs for rows, a multiple of 4: x[0] is given, x[l] follows."""
    for layer in range(len(sizes) - 1):
        y, o = x[layer + 1], sizes[layer + 1]
        spread(b[layer], y, rows, o)
        if o < NARROW:
            narrow(x[layer], wt[layer], y, rows, sizes[layer], o)
        else:
            product(x[layer], WIDEST, 1, w[layer], y, rows, sizes[layer], o)
        if layer < len(sizes) - 2:
            activate(y, rows, o, rectified)


@compiled
def backward(
    sizes: Array, rectified: bool, wt: Array, x: Array, delta: Array, other: Array, rows: int,
    gw: Array, gb: Array,
) -> None:  # fmt: skip
    """Add to gradients gw, gb what rows make, from delta = ∂f/∂x[-1]; `other` is room.

    δ_l = (δ_{l+1} W_{l+1}ᵀ) ∘ σ'(z_l) (Rumelhart et al. 1986). A row that is none has a δ of 0.
    Of few outputs it is the transposed gradient.
    """
    for layer in range(len(sizes) - 2, -1, -1):
        i, o = sizes[layer], sizes[layer + 1]
        summed(delta, gb[layer], rows, o)
        if o < NARROW:
            product(delta, 1, WIDEST, x[layer], gw[layer], o, rows, i)
        else:
            product(x[layer], 1, WIDEST, delta, gw[layer], i, rows, o)
        if layer:
            spread(np.zeros(i, delta.dtype), other, rows, i)
            product(delta, WIDEST, 1, wt[layer], other, rows, o, i)
            sloped(other, x[layer], rows, i, rectified)
            delta, other = other, delta


@inlined
def head(
    gaussian: bool, out: Array, o: int, extra: Array, act: Array, score: Array, slope: Array
) -> tuple[float, float]:
    """log π(a|s) of one row and the entropy, and the derivatives of both by out.

    As written: the difference of two that are the same number must be 0.
    """
    if gaussian:
        total, entropy = extra.dtype.type(0), extra.dtype.type(0)
        for j in range(o):
            scale = math.exp(-extra[j])
            z = (act[j] - out[j]) * scale
            score[j], slope[j] = z * scale, 0
            total += extra.dtype.type(-0.5) * z * z - extra[j]
            entropy += extra[j]
        width = o * extra.dtype.type(0.5 * math.log(2 * math.pi))
        return total - width, entropy + width + o * extra.dtype.type(0.5)
    top = out[0]
    for j in range(1, o):
        top = max(top, out[j])
    total = out.dtype.type(0)
    for j in range(o):
        score[j] = math.exp(out[j] - top)
        total += score[j]
    log_total = math.log(total)
    entropy = log_total
    for j in range(o):
        score[j] /= total
        entropy -= score[j] * (out[j] - top)
    for j in range(o):
        slope[j] = -score[j] * (out[j] - top - log_total + entropy)
        score[j] = -score[j]
    a = int(act[0])
    score[a] += 1
    return out[a] - top - log_total, entropy


@reordered
def ascended(
    theta: Array, gradient: Array, sign: float, adam: Array, m: Array, v: Array, step: Array
) -> None:
    """`updates.optimizers`' Adam, of one seed, up sign · gradient; adam: see `fused.Adam`."""
    one = theta.dtype.type(1)
    norm = 0.0
    for i in range(len(theta)):
        norm += float(gradient[i]) * float(gradient[i])
    shrunk = theta.dtype.type(-sign * min(1.0, adam[6] / max(math.sqrt(norm), 1e-12)))
    step[0] += 1
    rate = theta.dtype.type(adam[0] / (1 - adam[1] ** step[0]))
    of_new, kept = theta.dtype.type(1 - adam[1]), theta.dtype.type(adam[2])
    of_square, square = theta.dtype.type(1 - adam[2]), theta.dtype.type(1 - adam[2] ** step[0])
    eps, penalty = theta.dtype.type(adam[3]), theta.dtype.type(adam[4])
    left = one - theta.dtype.type(adam[0] * adam[5])
    for i in range(len(theta)):
        g = shrunk * gradient[i] + penalty * theta[i]
        m[i] += of_new * (g - m[i])
        v[i] = kept * v[i] + of_square * g * g
        theta[i] = left * theta[i] - rate * m[i] / (np.sqrt(v[i] / square) + eps)


@compiled
def workspace(layers: int, like: Array) -> tuple[Array, ...]:
    """Weights, transposed, their gradient; biases, theirs; a block's activations and two δ."""
    w = np.empty((layers, WIDEST * WIDEST), like.dtype)
    b = np.empty((layers, WIDEST), like.dtype)
    x = np.zeros((layers + 1, BLOCK * WIDEST), like.dtype)
    delta = np.zeros(BLOCK * WIDEST, like.dtype)
    return w, np.empty_like(w), np.empty_like(w), b, np.empty_like(b), x, delta, delta.copy()


LOG_PROBS, GRADIENT, STEPS = range(3)  # what is wanted of `climb`


@compiled
def climb(
    wanted: int, gaussian: bool, rectified: bool, biased: bool, sizes: Array, theta: Array,
    obs: Array, act: Array, old: Array, rows: Array, weights: Array, bonus: Array, clip: float,
    adam: Array, m: Array, v: Array, step: Array, gradient: Array, log_prob: Array,
) -> int:  # fmt: skip
    """Up the clipped surrogate, minibatch after minibatch: see `updates.rule.Around`. One seed.

    Of all its rows obs [R, D], act [R, A], old [R]; those of minibatch k are rows[k], −1 after the
    last, with weights and what their entropy counts [K, m]. Theta [P] moves in place, and Adam's
    m, v, step; gradient [P] is that of the last minibatch, log_prob [R] as it was seen last.
    Returns how many ratios were clipped.
    """
    layers, o = len(sizes) - 1, sizes[-1]
    w, wt, gw, b, gb, x, delta, other = workspace(layers, theta)
    score, of_extra = np.empty(o, theta.dtype), np.empty(o, theta.dtype)
    slope = np.empty_like(score)
    extra, count = theta[len(theta) - o :], 0
    for k in range(len(rows)):
        laid_out(sizes, biased, theta, w, wt, b)
        cleared(sizes, gw, gb)
        of_extra[:] = 0
        size = 0
        while size < rows.shape[1] and rows[k, size] >= 0:
            size += 1
        for first in range(0, size, BLOCK):
            n = min(BLOCK, size - first)
            for r in range(n):
                for i in range(sizes[0]):
                    x[0, r * WIDEST + i] = obs[rows[k, first + r], i]
            forward(sizes, rectified, w, wt, b, x, (n + 3) // 4 * 4)
            delta[:] = 0
            for r in range(n):
                row, at = rows[k, first + r], r * WIDEST
                out = x[layers, at : at + o]
                log_prob[row], _ = head(gaussian, out, o, extra, act[row], score, slope)
                if wanted > LOG_PROBS:
                    ratio, weight = math.exp(log_prob[row] - old[row]), weights[k, first + r]
                    more = bonus[k, first + r]
                    beyond = (weight > 0 and ratio > 1 + clip) or (weight < 0 and ratio < 1 - clip)
                    count += beyond
                    factor = 0.0 if beyond else ratio * weight
                    for j in range(o):
                        delta[at + j] = factor * score[j] + more * slope[j]
                        if gaussian:
                            z = (act[row, j] - out[j]) * math.exp(-extra[j])
                            of_extra[j] += factor * (z * z - 1) + more
            if wanted > LOG_PROBS:
                backward(sizes, rectified, wt, x, delta, other, (n + 3) // 4 * 4, gw, gb)
        if wanted > LOG_PROBS:
            end = flattened(sizes, biased, gw, gb, gradient)
            gradient[end:] = of_extra[: len(theta) - end]
        if wanted == STEPS and size:
            ascended(theta, gradient, 1.0, adam, m, v, step)
    return count


@reordered
def added(gradient: Array, total: Array) -> float:
    """total += gradient; its squared norm."""
    square = gradient.dtype.type(0)
    for i in range(len(gradient)):
        total[i] += gradient[i]
        square += gradient[i] * gradient[i]
    return float(square)


@compiled
def scores(
    gaussian: bool, rectified: bool, biased: bool, sizes: Array, theta: Array, obs: Array,
    act: Array, weights: Array, first: Array, length: Array, group: Array, total: Array,
    square: Array,
) -> float:  # fmt: skip
    """Sums of weighted scores over groups of trajectories: see `gradients.trajectory`. One seed.

    Of rows obs [R, D], act [R, A], weights [R]. Trajectory k has the rows first[k] to first[k] +
    length[k] − 1 and is of group[k]; those of a group follow each other. Adds Σ_k G_k to total [P]
    and writes ‖G_k‖² into square, at the group. Returns the entropy summed over the rows.
    """
    layers, o = len(sizes) - 1, sizes[-1]
    w, wt, gw, b, gb, x, delta, other = workspace(layers, theta)
    score, of_extra = np.empty(o, theta.dtype), np.zeros(o, theta.dtype)
    slope, gradient = np.empty_like(score), np.empty_like(theta)
    extra, nats = theta[len(theta) - o :], 0.0
    laid_out(sizes, biased, theta, w, wt, b)
    cleared(sizes, gw, gb)
    for k in range(len(first)):
        for start in range(first[k], first[k] + length[k], BLOCK):
            n = min(BLOCK, first[k] + length[k] - start)
            for r in range(n):
                for i in range(sizes[0]):
                    x[0, r * WIDEST + i] = obs[start + r, i]
            rows = (n + 3) // 4 * 4
            forward(sizes, rectified, w, wt, b, x, rows)
            for r in range(n):
                at, weight = r * WIDEST, theta.dtype.type(weights[start + r])
                out = x[layers, at : at + o]
                _, entropy = head(gaussian, out, o, extra, act[start + r], score, slope)
                nats += entropy
                for j in range(o):
                    delta[at + j] = weight * score[j]
                    if gaussian:
                        z = (act[start + r, j] - out[j]) * math.exp(-extra[j])
                        of_extra[j] += weight * (z * z - 1)
            for at in range(n * WIDEST, rows * WIDEST, WIDEST):
                delta[at : at + o] = 0
            backward(sizes, rectified, wt, x, delta, other, rows, gw, gb)
        if k + 1 == len(first) or group[k + 1] != group[k]:
            end = flattened(sizes, biased, gw, gb, gradient)
            gradient[end:] = of_extra[: len(theta) - end]
            square[group[k]] = added(gradient, total)
            cleared(sizes, gw, gb)
            of_extra[:] = 0
    return nats


@compiled
def outputs(
    rectified: bool, biased: bool, sizes: Array, theta: Array, inputs: Array, out: Array
) -> None:
    """The network's outputs [M, o] at inputs [M, i]. One seed."""
    layers, o = len(sizes) - 1, sizes[-1]
    w, wt, _, b, _, x, _, _ = workspace(layers, theta)
    laid_out(sizes, biased, theta, w, wt, b)
    for first in range(0, len(inputs), BLOCK):
        n = min(BLOCK, len(inputs) - first)
        for r in range(n):
            for i in range(sizes[0]):
                x[0, r * WIDEST + i] = inputs[first + r, i]
        forward(sizes, rectified, w, wt, b, x, (n + 3) // 4 * 4)
        for r in range(n):
            for j in range(o):
                out[first + r, j] = x[layers, r * WIDEST + j]


@compiled
def divergence(gaussian: bool, p: Array, q: Array, o: int, wide: Array, wide2: Array) -> float:
    """Of one row's outputs; `wide`: log σ of each. As `heads` has it: no term cancels."""
    total = 0.0
    if gaussian:
        for j in range(o):
            z = float(p[j] - q[j]) * math.exp(-float(wide2[j]))
            x = 2 * float(wide[j] - wide2[j])
            total += 0.5 * (math.expm1(x) - x + z * z)
        return total
    top, top2 = p[0], q[0]
    for j in range(1, o):
        top, top2 = max(top, p[j]), max(top2, q[j])
    mass, mass2 = 0.0, 0.0
    for j in range(o):
        mass += math.exp(float(p[j] - top))
        mass2 += math.exp(float(q[j] - top2))
    for j in range(o):
        of_p, of_q = float(p[j] - top) - math.log(mass), float(q[j] - top2) - math.log(mass2)
        x = of_q - of_p
        if abs(x) < 1:
            total += math.exp(of_p) * (math.expm1(x) - x)
        else:
            total += math.exp(of_q) - math.exp(of_p) * (1 + x)
    return total


@compiled
def divergences(
    gaussian: bool, rectified: bool, biased: bool, sizes: Array, p: Array, q: Array, obs: Array,
    obs2: Array, found: Array,
) -> None:  # fmt: skip
    """KL(π_p‖π_q) of rows obs [M, D] as p sees them, obs2 as q does, into found [M]. One seed."""
    layers, o = len(sizes) - 1, sizes[-1]
    w, wt, _, b, _, x, _, _ = workspace(layers, p)
    w2, wt2, _, b2, _, x2, _, _ = workspace(layers, q)
    laid_out(sizes, biased, p, w, wt, b)
    laid_out(sizes, biased, q, w2, wt2, b2)
    wide, wide2 = p[len(p) - o :], q[len(q) - o :]
    for first in range(0, len(obs), BLOCK):
        n = min(BLOCK, len(obs) - first)
        for r in range(n):
            for i in range(sizes[0]):
                x[0, r * WIDEST + i], x2[0, r * WIDEST + i] = obs[first + r, i], obs2[first + r, i]
        forward(sizes, rectified, w, wt, b, x, (n + 3) // 4 * 4)
        forward(sizes, rectified, w2, wt2, b2, x2, (n + 3) // 4 * 4)
        for r in range(n):
            at = r * WIDEST
            out, out2 = x[layers, at : at + o], x2[layers, at : at + o]
            found[first + r] = divergence(gaussian, out, out2, o, wide, wide2)


@compiled
def fit(
    rectified: bool, biased: bool, sizes: Array, theta: Array, x: Array, y: Array, order: Array,
    parts: int, adam: Array, m: Array, v: Array, step: Array,
) -> None:  # fmt: skip
    """Down the mean of (net(x) − y)² of each of so many parts of `order`: see `critic`. One seed.

    Of inputs x [M, D], targets y [M]. Theta [P] moves in place, and Adam's m, v, step.
    """
    layers = len(sizes) - 1
    w, wt, gw, b, gb, z, delta, other = workspace(layers, theta)
    gradient, start = np.empty_like(theta), 0
    for k in range(parts):
        size = len(order) // parts + (1 if k < len(order) % parts else 0)
        laid_out(sizes, biased, theta, w, wt, b)
        cleared(sizes, gw, gb)
        for first in range(start, start + size, BLOCK):
            n = min(BLOCK, start + size - first)
            for r in range(n):
                for i in range(sizes[0]):
                    z[0, r * WIDEST + i] = x[order[first + r], i]
            forward(sizes, rectified, w, wt, b, z, (n + 3) // 4 * 4)
            delta[:] = 0
            for r in range(n):
                error = z[layers, r * WIDEST] - y[order[first + r]]
                delta[r * WIDEST] = 2 * error / size
            backward(sizes, rectified, wt, z, delta, other, (n + 3) // 4 * 4, gw, gb)
        if size:
            flattened(sizes, biased, gw, gb, gradient)
            ascended(theta, gradient, -1.0, adam, m, v, step)
        start += size
