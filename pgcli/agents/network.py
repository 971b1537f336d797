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

ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[..., np.ndarray]]] = {
    "tanh": (torch.tanh, np.tanh),
    "relu": (torch.relu, lambda x, out: np.maximum(x, 0.0, out=out)),
    "elu": (
        torch.nn.functional.elu,
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
        activation = ACTIVATIONS[self.activation][0]
        (weight, bias), *rest = self.unpack(theta)
        x = torch.baddbmm(bias, x, weight)
        for weight, bias in rest:
            x = torch.baddbmm(bias, activation(x), weight)
        return x

    def trace(self, theta: Tensor, x: Tensor) -> Trace:
        """Forward at a fixed theta, ready to differentiate with respect to each affine output."""
        activation = ACTIVATIONS[self.activation][0]
        inputs: list[Tensor] = []
        affine: list[Tensor] = []
        for weight, bias in self.unpack(theta.detach()):
            inputs.append(activation(affine[-1]) if affine else x)
            affine.append(torch.baddbmm(bias, inputs[-1], weight))
            if len(affine) == 1:
                affine[0].requires_grad_()
        return Trace(inputs, affine)

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
    """One forward pass: per layer its input [S, M, i] and its affine output [S, M, o]."""

    inputs: list[Tensor]
    affine: list[Tensor]


def _orthogonal(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    tall = rng.standard_normal((max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(tall)
    q *= np.sign(np.diag(r))  # makes the distribution uniform (Mezzadri 2007)
    return q if rows >= columns else q.T
