"""Exported policies act as those of the run do, on raw observations."""

import io

import numpy as np
import pytest
import torch
from command_line import pg

from pgcli.cli.compose import compose_all
from pgcli.cli.evaluated import trained
from pgcli.environments.choose import open_engine, slots_per_seed
from pgcli.environments.spaces import decoded
from pgcli.evaluation import export
from pgcli.evaluation.subject import load
from pgcli.policies.actor import GreedyActor
from pgcli.settings.schema import ExportFormat

KINDS = {
    "categorical": ["env=CartPole-v1", "policy.activation=relu"],
    "gaussian": ["env=Pendulum-v1", "method=none", "policy.normalize_obs=true"],
    "squashed": ["env=MountainCarContinuous-v0", "method=none", "policy.squash=true",
                 "policy.state_std=true", "policy.min_std=0.1", "policy.max_std=2"],
    "tabular": ["env=FrozenLake-v1", "method=none", "policy=tabular"],
    "linear": ["env=CartPole-v1", "policy=linear", "policy.bias=false"],
}  # fmt: skip
ROWS = 40


@pytest.fixture(scope="module", params=KINDS)
def subject(request, tmp_path_factory):
    cwd = tmp_path_factory.mktemp(request.param)
    line = [*KINDS[request.param], "seeds=2", "iterations=2", "batch_size=4", "optimizer.lr=0.05"]
    assert pg("train", *line, "hydra.run.dir=r", cwd=cwd).returncode == 0
    (one,) = compose_all("eval", [f"checkpoint={cwd / 'r'}"], None, False)
    (run,) = trained(one.config)
    return load(run, None)


def observations(subject):
    """Raw ones at random [ROWS, *shape], and as the policy is given them [S, ROWS, D]."""
    rng, seen = np.random.default_rng(0), subject.spaces.seen
    if seen.shape == ():  # Discrete
        raw = rng.integers(0, seen.n, ROWS)
    else:
        raw = rng.normal(size=(ROWS, *seen.shape)).astype(seen.dtype)
    env = subject.trained.env
    engine = open_engine(env, slots_per_seed(env, 1))
    coded = engine.obs.encode(raw)
    np.testing.assert_array_equal(decoded(engine.obs, coded), raw)
    engine.close()
    return raw, np.repeat(coded[None].astype(np.float32), len(subject.theta), 0)


def acted(subject, coded):
    """What the environment is told by the greedy policy of each seed, [S, ROWS, ...]."""
    actor = GreedyActor(subject.policy, subject.theta, subject.seeds, 0, ROWS)
    act = actor(coded)
    emitted = subject.policy.head.emitted(act)
    return [np.asarray(subject.spaces.action.to_env(x)) for x in emitted]


def test_the_module_acts_as_the_policy(subject):
    raw, coded = observations(subject)
    for i, wanted in enumerate(acted(subject, coded)):
        action, *parameters = export.exported(subject, i)(torch.from_numpy(raw))
        np.testing.assert_allclose(action.numpy(), wanted, rtol=1e-5, atol=1e-6)
        assert action.numpy().dtype == subject.spaces.action.space.dtype
        assert len(parameters) == len(export.exported(subject, i).names) - 1


def test_the_distributions_parameters_are_those_of_the_policy(subject):
    raw, coded = observations(subject)
    theta = subject.theta.float()
    obs = subject.policy.inputs(theta, torch.from_numpy(coded))
    out = subject.policy.net.forward(theta[:, : subject.policy.num_params], obs)
    for i in range(len(theta)):
        module = export.exported(subject, i)
        _, *parameters = module(torch.from_numpy(raw))
        told = dict(zip(module.names[1:], parameters, strict=True))
        wanted = subject.policy.head.parameters(out[i], subject.policy.extra(theta)[i])
        assert told.keys() == wanted.keys()
        for name, x in told.items():
            torch.testing.assert_close(x, wanted[name], rtol=1e-5, atol=1e-6)


def test_pt2_needs_nothing_but_torch(subject, tmp_path):
    raw, _ = observations(subject)
    (name, _) = export.write(ExportFormat.pt2, tmp_path, subject)
    assert name == "policy-seed-0.pt2"
    module = torch.export.load(io.BytesIO((tmp_path / name).read_bytes())).module()
    for got, wanted in zip(
        module(torch.from_numpy(raw)),
        export.exported(subject, 0)(torch.from_numpy(raw)),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_onnx_is_the_same(subject, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    from onnx.reference import ReferenceEvaluator

    raw, _ = observations(subject)
    (name, _) = export.write(ExportFormat.onnx, tmp_path, subject)
    module = export.exported(subject, 0)
    program = ReferenceEvaluator(onnx.load(tmp_path / name))
    assert program.output_names == module.names
    for got, wanted in zip(
        program.run(None, {"obs": raw}), module(torch.from_numpy(raw)), strict=True
    ):
        np.testing.assert_allclose(got, wanted.numpy(), rtol=1e-4, atol=1e-5)


def test_safetensors_hold_the_weights(subject, tmp_path):
    pytest.importorskip("safetensors")
    from safetensors import safe_open

    (name, _) = export.write(ExportFormat.safetensors, tmp_path, subject)
    module = export.exported(subject, 0)
    with safe_open(tmp_path / name, "pt") as file:
        assert set(file.keys()) == set(module.state_dict())
        for key, wanted in module.state_dict().items():
            torch.testing.assert_close(file.get_tensor(key), wanted)
        assert file.metadata()["activation"] == subject.policy.net.activation
