"""An exported policy is the policy: raw observations in, what the environment is told out."""

import io
from itertools import count

import gymnasium as gym
import numpy as np
import pytest
import torch
from scripted import Spaces as Any_
from settings import train_config

from pgcli.environments.choose import check_environment
from pgcli.environments.spaces import obs_adapter
from pgcli.evaluation import export
from pgcli.evaluation.subject import ITSELF, Subject, Trained
from pgcli.policies.actor import GreedyActor
from pgcli.policies.build import build_policy
from pgcli.settings.schema import ExportFormat

INF = np.inf
BOX = gym.spaces.Box(-1, 1, (2, 3), np.float64)
RANGE = gym.spaces.Box(np.float32([-2, 0, -INF]), np.float32([4, 1, INF]))
CASES = {  # spaces, and what is typed beside
    "categorical": (BOX, gym.spaces.Discrete(3, start=4), []),
    "tabular": (gym.spaces.Discrete(5, start=1), gym.spaces.Discrete(4), ["policy=tabular"]),
    "linear": (BOX, RANGE, ["policy=linear"]),
    "gaussian": (BOX, RANGE, ["policy.activation=relu", "policy.bias=false"]),
    "squashed": (BOX, RANGE, ["policy.squash=true", "policy.activation=elu"]),
    "state_std": (BOX, RANGE, ["policy.state_std=true", "policy.min_std=0.1"]),
    "multi": (
        gym.spaces.MultiDiscrete([2, 4], start=[3, 0]),
        gym.spaces.MultiDiscrete([3, 2], start=[0, 5]),
        [],
    ),
    "bits": (gym.spaces.MultiBinary(4), gym.spaces.MultiBinary((2, 2)), []),
    "pixels": (gym.spaces.Box(0, 255, (3, 3, 1), np.uint8), gym.spaces.Discrete(2), []),
    "normalized": (BOX, RANGE, ["policy.normalize_obs=true", "policy.clip_obs=1.5"]),
    "composite": (
        gym.spaces.Dict({"a": BOX, "b": gym.spaces.Discrete(3)}), gym.spaces.Discrete(2), [],
    ),
}  # fmt: skip
numbers = count()


def subject_of(case) -> Subject:
    """Two seeds' random policies between these spaces, in an environment made for them."""
    seen, acted, typed = CASES[case]
    name = f"Exported{next(numbers)}-v0"
    gym.register(name, lambda: Any_(seen, acted), max_episode_steps=5)
    config = train_config(f"env={name}", *typed)
    spaces = check_environment(config.env)
    policy = build_policy(config.policy, ITSELF, spaces)
    rng = torch.Generator().manual_seed(len(case))
    theta = 0.3 * torch.randn(2, policy.width, generator=rng)
    if policy.normalized is not None:
        theta[:, policy.num_params :].abs_()
    return Subject(Trained("", ".", config.env, config.policy, 0), spaces, policy, theta, [1, 1])


def watched(subject, i, batch=16):
    """Raw observations [B, ...], and the greedy actions that an environment would be told."""
    space = subject.spaces.seen
    space.seed(1)
    raw = np.stack([space.sample() for _ in range(batch)])
    made = subject.spaces
    obs = obs_adapter(space, "").encode(raw).astype(np.float32)
    actor = GreedyActor(subject.policy, subject.theta[i : i + 1], [0], 0, batch)
    act = actor(obs[None])[0]
    return raw, made.action.to_env(actor.emitted(act)), torch.from_numpy(obs)


def same(given, expected):
    given = np.asarray(given)
    assert given.dtype == expected.dtype
    assert given.shape == expected.shape
    np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_the_module_is_the_policy(case):
    subject = subject_of(case)
    for i in range(2):
        module = export.exported(subject, i)
        raw, acts, obs = watched(subject, i)
        action, *parameters = module(torch.from_numpy(raw))
        same(action, acts)
        out, extra = subject.policy.distribution(subject.theta[i : i + 1], obs[None])
        wanted = subject.policy.head.parameters(out, extra)
        assert module.names == ["action", *wanted]
        for one, (name, x) in zip(parameters, wanted.items(), strict=True):
            torch.testing.assert_close(one, x[0].expand_as(one), msg=name)


@pytest.mark.parametrize("case", CASES)
def test_a_program_gives_what_the_policy_gives(case):
    """For any number of observations, without the code that made it."""
    subject = subject_of(case)
    module = export.exported(subject, 1)
    content = export.WRITERS[ExportFormat.pt2](module, export.examples(module))
    program = torch.export.load(io.BytesIO(content)).module()
    for batch in (1, 16):
        raw, acts, _ = watched(subject, 1, batch)
        same(program(torch.from_numpy(raw))[0], acts)


@pytest.mark.parametrize(
    "case", [c if c == "squashed" else pytest.param(c, marks=pytest.mark.slow) for c in CASES]
)
def test_onnx_gives_what_the_policy_gives(case):
    onnx = pytest.importorskip("onnx", reason="extra onnx")
    pytest.importorskip("onnxscript", reason="extra onnx")
    from onnx.reference import ReferenceEvaluator

    subject = subject_of(case)
    module = export.exported(subject, 0)
    model = onnx.load_from_string(
        export.WRITERS[ExportFormat.onnx](module, export.examples(module))
    )
    onnx.checker.check_model(model)
    assert [x.name for x in model.graph.output] == module.names
    for batch in (1, 16):
        raw, acts, _ = watched(subject, 0, batch)
        same(ReferenceEvaluator(model).run(None, {"obs": raw})[0], acts)


@pytest.mark.parametrize("case", CASES)
def test_safetensors_hold_all_numbers(case):
    safetensors = pytest.importorskip("safetensors.torch", reason="extra safetensors")
    subject = subject_of(case)
    first, second = (export.exported(subject, i) for i in range(2))
    content = export.WRITERS[ExportFormat.safetensors](second, export.examples(second))
    first.load_state_dict(safetensors.load(content))  # strict: the same names
    raw, acts, _ = watched(subject, 1)
    same(first(torch.from_numpy(raw))[0], acts)
