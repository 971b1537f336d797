"""Multilayer perceptrons for S agents at once, all parameters in one tensor `theta [S, P]`.

One flat tensor serves the optimiser, the gradient statistics and the checkpoint alike; the layers
are views of it. No agent sees another: every operation is batched over S.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Activation(NamedTuple):
    """σ, elementwise. What ends in an underscore overwrites its first argument."""

    forward: Callable[[Tensor], Tensor]
    forward_: Callable[[Tensor], Tensor]
    backward_: Callable[[Tensor, Tensor], Tensor]  # of (∂f/∂σ(z), σ(z)): ∂f/∂z
    numpy: Callable[..., np.ndarray]


def _tanh(x: Tensor) -> Tensor:
    """tanh x = 2σ(2x) − 1: on some processors torch's own takes four times as long."""
    return torch.sigmoid(2.0 * x).mul(2.0).sub(1.0)


def _tanh_(x: Tensor) -> Tensor:
    return x.mul_(2.0).sigmoid_().mul_(2.0).sub_(1.0)


def _tanh_backward_(delta: Tensor, y: Tensor) -> Tensor:
    grad: Tensor = torch.ops.aten.tanh_backward.grad_input(delta, y, grad_input=delta)
    return grad


ACTIVATIONS = {
    "tanh": Activation(_tanh, _tanh_, _tanh_backward_, np.tanh),
    "relu": Activation(
        torch.relu,
        torch.relu_,
        lambda delta, y: delta.mul_(y > 0),
        lambda x, out: np.maximum(x, 0.0, out=out),
    ),
    "elu": Activation(
        torch.nn.functional.elu,
        torch.nn.functional.elu_,
        lambda delta, y: delta.mul_(y.clamp(max=0.0).add_(1.0)),
        lambda x, out: np.add(np.maximum(x, 0.0), np.expm1(np.minimum(x, 0.0)), out=out),
    ),
}


class Layer(NamedTuple):
    """Where one affine layer lies in theta."""

    inputs: int
    outputs: int
    weight: slice  # [inputs * outputs]
    bias: slice | None  # [outputs]


@dataclass(frozen=True)
class Mlp:
    """x ↦ W_L σ(… σ(x W_1 + b_1) …) + b_L, with `sizes` = (inputs, hidden..., outputs)."""

    sizes: tuple[int, ...]
    activation: str = "tanh"
    bias: bool = True

    @property
    def layers(self) -> list[Layer]:
        """The affine layers in the order in which they lie in theta."""
        layers, start = [], 0
        for inputs, outputs in zip(self.sizes[:-1], self.sizes[1:], strict=True):
            weight = slice(start, start + inputs * outputs)
            bias = slice(weight.stop, weight.stop + outputs) if self.bias else None
            layers.append(Layer(inputs, outputs, weight, bias))
            start = (bias or weight).stop
        return layers

    @property
    def num_params(self) -> int:
        """P, the length of one agent's row of theta."""
        last = self.layers[-1]
        return int((last.bias or last.weight).stop)

    def unpack(self, theta: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Views (W [S, inputs, outputs], b [S, 1, outputs]) of theta [S, ≥ P]."""
        zero = theta.new_zeros(())
        return [
            (
                theta[:, w].unflatten(1, (i, o)),
                zero.expand(len(theta), 1, o) if b is None else theta[:, None, b],
            )
            for i, o, w, b in self.layers
        ]

    def forward(self, theta: Tensor, x: Tensor) -> Tensor:
        """Outputs [S, M, outputs] for x [S, M, inputs]."""
        activation = ACTIVATIONS[self.activation].forward
        (weight, bias), *rest = self.unpack(theta)
        x = torch.baddbmm(bias, x, weight)
        for weight, bias in rest:
            x = torch.baddbmm(bias, activation(x), weight)
        return x

    def trace(self, theta: Tensor, x: Tensor) -> Trace:
        """The same, with each layer's input kept; nothing carries a gradient."""
        activation_ = ACTIVATIONS[self.activation].forward_
        inputs = [x]
        with torch.no_grad():
            *hidden, last = self.unpack(theta)
            for weight, bias in hidden:
                inputs.append(activation_(torch.bmm(inputs[-1], weight).add_(bias)))
            return Trace(inputs, torch.bmm(inputs[-1], last[0]).add_(last[1]))

    def tangent(self, theta: Tensor, trace: Trace, way: Tensor) -> Tensor:
        """The derivative of out [S, M, outputs] along a direction `way` [S, P] of theta."""
        backward_ = ACTIVATIONS[self.activation].backward_
        moved = None  # how each layer's input moves
        with torch.no_grad():
            layers = zip(self.unpack(theta), self.unpack(way), strict=True)
            for i, ((weight, _), (d_weight, d_bias)) in enumerate(layers):
                z = torch.baddbmm(d_bias, trace.inputs[i], d_weight)
                if moved is not None:
                    z = torch.baddbmm(z, moved, weight)
                if i + 1 < len(trace.inputs):
                    moved = backward_(z, trace.inputs[i + 1])
        return z

    def deltas(self, theta: Tensor, trace: Trace, delta: Tensor) -> list[Tensor]:
        """∂f/∂z [S, M, o] of every layer's affine output z, from `delta` = ∂f/∂out.

        Back-propagation (Rumelhart et al. 1986): δ_l = (δ_{l+1} W_{l+1}ᵀ) ∘ σ'(z_l).
        """
        backward_ = ACTIVATIONS[self.activation].backward_
        deltas = [delta]
        with torch.no_grad():
            weights = [weight for weight, _ in self.unpack(theta)]
            for weight, y in zip(weights[:0:-1], trace.inputs[:0:-1], strict=True):
                deltas.append(backward_(torch.bmm(deltas[-1], weight.mT), y))
        return deltas[::-1]

    def gradient(self, theta: Tensor, trace: Trace, delta: Tensor) -> Tensor:
        """∂/∂theta [S, P] of a sum over the rows, from `delta` = its derivative by out."""
        grad = torch.empty_like(theta)
        deltas = self.deltas(theta, trace, delta)
        for layer, x, d in zip(self.layers, trace.inputs, deltas, strict=True):
            grad[:, layer.weight] = torch.bmm(x.mT, d).flatten(1)
            if layer.bias is not None:
                grad[:, layer.bias] = d.sum(1)
        return grad

    def init(self, generators: Sequence[np.random.Generator], output_gain: float) -> Tensor:
        """theta [S, P] float32: orthogonal weights (Saxe et al. 2014), zero biases.

        Hidden layers have gain √2; the last one has `output_gain`.
        """
        theta = np.zeros((len(generators), self.num_params), np.float32)
        layers = self.layers
        for row, rng in zip(theta, generators, strict=True):
            for layer in layers:
                gain = output_gain if layer is layers[-1] else np.sqrt(2.0)
                row[layer.weight] = gain * _orthogonal(rng, layer.inputs, layer.outputs).ravel()
        return torch.from_numpy(theta)


class Trace(NamedTuple):
    """One forward pass."""

    inputs: list[Tensor]  # of each layer, [S, M, i]
    out: Tensor  # [S, M, outputs]


def _orthogonal(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    tall = rng.standard_normal((max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(tall)
    q *= np.sign(np.diag(r))  # makes the distribution uniform (Mezzadri 2007)
    return q if rows >= columns else q.T
