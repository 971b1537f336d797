"""A policy as a file for use without pg: raw observations in, what the environment is told out."""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from pgcli.environments.spaces import ActionAdapter, Spaces
from pgcli.errors import ConfigError
from pgcli.evaluation.subject import Subject
from pgcli.policies.heads import Gaussian
from pgcli.policies.policy import Policy
from pgcli.runs.directory import write_atomically
from pgcli.settings.schema import ExportFormat

NEEDED = {  # modules of the extra of that name
    ExportFormat.onnx: ("onnx", "onnxscript"),
    ExportFormat.pt2: (),
    ExportFormat.safetensors: ("safetensors",),
}
LAYERS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU}
OBS, ACTION = "obs", "action"


def check(form: ExportFormat) -> None:
    """Raise ConfigError where its extra is missing."""
    if any(importlib.util.find_spec(module) is None for module in NEEDED[form]):
        raise ConfigError("export", form, f"needs the extra {form.name}; pt2 needs none")


class Exported(nn.Module):
    """π of one seed: raw observations [B, *shape] to the greedy action [B, *shape].

    And to the parameters of the distribution of the action that the policy samples: logits, or
    mean and log_std in units of half the action's range, before tanh where that is squashed. What
    observations are normalised by, and how actions become the environment's, is inside.
    """

    extra: Tensor  # [1, X]
    obs_mean: Tensor  # [D]
    obs_scale: Tensor
    action_centre: Tensor  # [A], as the others of `environments.spaces.Affine`
    action_half: Tensor
    action_low: Tensor
    action_high: Tensor

    def __init__(self, policy: Policy, theta: Tensor, known: Spaces) -> None:
        """theta [1, P]. Observations of a Tuple or Dict space come flat, as Gymnasium does it."""
        super().__init__()
        assert known.seen is not None
        self._policy, self._seen, self._action = policy, known.seen, known.action
        layers: list[nn.Module] = []
        for (weight, bias), layer in zip(policy.net.unpack(theta), policy.net.layers, strict=True):
            linear = nn.Linear(layer.inputs, layer.outputs, bias=layer.bias is not None)
            with torch.no_grad():
                linear.weight.copy_(weight[0].T)
                if layer.bias is not None:
                    linear.bias.copy_(bias[0, 0])
            layers += [linear, LAYERS[policy.net.activation]()]
        self.net = nn.Sequential(*layers[:-1])
        self.register_buffer("extra", policy.extra(theta)[0].clone())
        if policy.normalized is not None:
            mean, scale = theta[0, policy.num_params :].unflatten(0, (2, -1))
            self.register_buffer("obs_mean", mean.clone())
            self.register_buffer("obs_scale", scale.clone())
        if (affine := known.action.affine) is not None:
            for name, x in affine._asdict().items():
                self.register_buffer(f"action_{name}", torch.from_numpy(np.array(x)))
        self.requires_grad_(False)

    @property
    def names(self) -> list[str]:
        """Of what it gives."""
        blank = torch.zeros(1, self._policy.head.num_outputs)
        return [ACTION, *self._policy.head.parameters(blank, self.extra)]

    def forward(self, obs: Tensor) -> tuple[Tensor, ...]:
        """The action, then the parameters [B, ·]; see `names`."""
        out, extra = self.outputs(obs)
        head = self._policy.head
        return self._told(head.mode(out)), *head.parameters(out, extra).values()

    def outputs(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Those of the network and the parameters beside it, [B, ·] each, as a head takes them."""
        x = self._encoded(obs)
        if self._policy.normalized is not None:
            x = (x - self.obs_mean) * self.obs_scale
            if (clip := self._policy.normalized.clip) is not None:
                x = x.clamp(-clip, clip)
        out = self.net(x)
        return out, self.extra.expand(out.shape[0], -1)

    def _encoded(self, obs: Tensor) -> Tensor:
        """As `environments.spaces.obs_adapter` has it, [B, D] float32."""
        seen = self._seen
        if isinstance(seen, spaces.Discrete):
            return nn.functional.one_hot(obs.long() - int(seen.start), int(seen.n)).float()
        if isinstance(seen, spaces.MultiDiscrete):
            first = torch.from_numpy(seen.start.reshape(-1).astype(np.int64))
            index = obs.reshape(obs.shape[0], -1).long() - first
            parts = [
                nn.functional.one_hot(index[:, i], int(n))
                for i, n in enumerate(seen.nvec.reshape(-1))
            ]
            return torch.cat(parts, 1).float()
        return obs.reshape(obs.shape[0], -1).float()

    def _told(self, act: Tensor) -> Tensor:
        """As `heads.Head.emitted` and then `environments.spaces.action_adapter` have it."""
        action, head = self._action, self._policy.head
        space, shape = action.space, action.space.shape or ()
        if isinstance(head, Gaussian):
            if head.squashed:
                act = torch.where(torch.tensor(head.squashed), act.tanh(), act)
            act = self.action_centre + self.action_half * act
            act = torch.maximum(torch.minimum(act, self.action_high), self.action_low)
        elif isinstance(space, spaces.Discrete):
            return act + int(space.start)
        elif isinstance(space, spaces.MultiDiscrete):
            act = act + torch.from_numpy(space.start.reshape(-1).astype(np.int64))
        return act.reshape(-1, *shape).to(_type(action))


def write(form: ExportFormat, place: Path, subject: Subject) -> list[str]:
    """Write `<place>/policy-seed-<seed>.<form>` for every seed; their names."""
    names = []
    for i, seed in enumerate(subject.seeds):
        module = exported(subject, i)
        path = place / f"policy-seed-{seed}.{form.name}"
        write_atomically(path, WRITERS[form](module, examples(module)))
        names.append(path.name)
    return names


def exported(subject: Subject, i: int) -> Exported:
    """The module of the policy of the seed at place i."""
    return Exported(subject.policy, subject.theta[i : i + 1].float(), subject.spaces).eval()


def examples(module: Exported) -> Tensor:
    """Two raw observations, in their own type."""
    seen = module._seen
    zero: Any = np.zeros(seen.shape or (), seen.dtype)
    if isinstance(seen, (spaces.Discrete, spaces.MultiDiscrete)):
        zero = np.asarray(seen.start, seen.dtype)
    return torch.from_numpy(np.stack([zero, zero]))


def _pt2(module: Exported, obs: Tensor) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(_program(module, obs), buffer)
    return buffer.getvalue()


def _program(module: Exported, obs: Tensor) -> torch.export.ExportedProgram:
    shapes = ({0: torch.export.Dim("batch")},)
    return torch.export.export(module, (obs,), dynamic_shapes=shapes)


def _onnx(module: Exported, obs: Tensor) -> bytes:
    names, shapes = module.names, ({0: torch.export.Dim("batch")},)
    with _silent():
        made: Any = torch.onnx.export(
            module, (obs,), input_names=[OBS], output_names=names, dynamic_shapes=shapes,
            dynamo=True, verbose=False,
        )  # fmt: skip
    content: bytes = made.model_proto.SerializeToString()
    return content


@contextmanager
def _silent() -> Iterator[None]:
    """Without what the exporter tells of its own insides."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _safetensors(module: Exported, obs: Tensor) -> bytes:
    from safetensors.torch import save

    head = module._policy.head
    kind = {"distribution": type(head).__name__, "action": str(module._action.space)}
    if isinstance(head, Gaussian):
        kind |= {"squashed": json.dumps(head.squashed), "state_std": json.dumps(head.state_std)}
        kind |= {"min_std": json.dumps(head.min_std), "max_std": json.dumps(head.max_std)}
    if (normalized := module._policy.normalized) is not None:
        kind["clip_obs"] = json.dumps(normalized.clip)
    told = {"activation": module._policy.net.activation, "observation": str(module._seen), **kind}
    content: bytes = save({k: x.contiguous() for k, x in module.state_dict().items()}, told)
    return content


WRITERS: dict[ExportFormat, Callable[[Exported, Tensor], bytes]] = {
    ExportFormat.onnx: _onnx,
    ExportFormat.pt2: _pt2,
    ExportFormat.safetensors: _safetensors,
}


def _type(action: ActionAdapter) -> torch.dtype:
    """Of the environment's actions."""
    return torch.from_numpy(np.zeros(0, action.space.dtype)).dtype
