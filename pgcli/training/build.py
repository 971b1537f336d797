"""From a configuration to what trains: policy, critics, device, and the facts worth telling."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pgcli.collection.batch import Batch
from pgcli.collection.horizon import Saved
from pgcli.environments.choose import slots_per_seed
from pgcli.environments.choose import unused as unused_of_environment
from pgcli.environments.engine import Engine
from pgcli.environments.info import logged
from pgcli.environments.spaces import Spaces
from pgcli.errors import ConfigError
from pgcli.estimators import estimator
from pgcli.estimators.baselines import baseline
from pgcli.estimators.bias import Circumstances, bias_notes
from pgcli.estimators.unused import unused as unused_of_estimator
from pgcli.gradients.critics import build_critics, discount_of
from pgcli.gradients.trajectory import gradient_sums
from pgcli.policies.build import build_policy
from pgcli.policies.critics import CRITICS
from pgcli.policies.fit import Acted
from pgcli.policies.policy import Policy
from pgcli.policies.unused import unused_of_critics, unused_of_policy
from pgcli.runs.policies import saved_behaviour, saved_theta
from pgcli.settings.registry import imported
from pgcli.settings.schema import Collect, Device, TrainConfig
from pgcli.training.exact import checked
from pgcli.training.learner import Learner
from pgcli.updates import rule as rules

BEGINNING = ("policy.init", "policy.output_gain", "policy.log_std")  # how parameters begin
LONGEST = 1000  # steps of an episode with which devices are compared


def check(config: TrainConfig) -> None:
    """Raise ConfigError for a part that is not there, or that does not go with another."""
    parts = config.collect is Collect.steps
    fixed = config.batch_steps is None and not parts
    estimator.check_estimator(config.estimator, config.batch_size if fixed else None)
    if parts:
        estimator.check_parts(config.estimator)
        for one in logged(config.env.info):
            if one.way == "sum":
                allowed = "collect=steps has parts of episodes: @mean, @end"
                raise ConfigError("env.info", one.text, allowed)
    check_rule(config)
    if config.estimator.exact:
        checked(config)
    for key, name in (("callback", config.callback), ("log.recorder", config.log.recorder)):
        if name is not None:
            imported(key, name)
    if "value" in estimator.critics(config.estimator):
        CRITICS.find(config.critic.kind)
    if config.log.wandb is not None and importlib.util.find_spec("wandb") is None:
        raise ConfigError("log.wandb", config.log.wandb, "needs the extra wandb")


def check_rule(config: TrainConfig) -> None:
    """Raise ConfigError where the update rule is none, or does not go with what is beside it."""
    # What it refuses is refused before anything is written.
    one, name = rules.check(config.update, config.optimizer), config.update.name
    if one.surrogate and baseline(config.estimator).fitted == "per_parameter":
        allowed = f"no weight of a step makes its estimate, and update={name} moves by such weights"
        raise ConfigError("estimator.baseline", config.estimator.baseline, allowed)
    if one.surrogate and config.estimator.exact:
        allowed = f"update={name} moves by the weights of steps, and ∇J has none: only false"
        raise ConfigError("estimator.exact", True, allowed)
    if one.surrogate and config.updates_per_batch > 1:
        allowed = f"update={name} uses a batch as often as it does: only 1"
        raise ConfigError("updates_per_batch", config.updates_per_batch, allowed)
    if not one.optimizer:
        rules.check_unused(config.optimizer, f"update={name}")


def unused(config: TrainConfig, action: Acted) -> dict[str, str]:
    """The settings that can have no effect in this run, whatever their values: why, by key."""
    idle = unused_of_estimator(config.estimator, config.critic, config.off_policy)
    idle |= unused_of_critics(config.critic, estimator.critics(config.estimator))
    idle |= unused_of_policy(config.policy, action) | unused_of_environment(config.env)
    if config.collect is Collect.steps:
        idle["batch_size"] = "collect=steps: a batch is env.num_envs × horizon steps"
    else:
        idle["horizon"] = "it is for collect=steps"
        if config.batch_steps is not None:
            idle["batch_size"] = "batch_steps says how many episodes there are"
    if not rules.registered(config.update).rated(config.update):
        own = f"update={config.update.name} sets the length of its step by itself"
        idle |= {"optimizer.lr": own, "optimizer.schedule": own}
    if config.behaviour.checkpoint is None:
        idle["behaviour.iteration"] = "behaviour.checkpoint names no run"
    if config.eval.every is None:
        idle |= {f"eval.{name}": "eval.every is null" for name in ("episodes", "acting")}
    if config.init.checkpoint is None:
        idle["init.iteration"] = "init.checkpoint names no run"
    else:
        idle |= dict.fromkeys(BEGINNING, "init.checkpoint gives the parameters")
    if not config.gradient.measure:
        idle["gradient.smoothing"] = "gradient.measure is false"
    if config.seeds == 1:
        idle["log.seeds"] = "one seed has one run"
    return idle


def asked_critics(config: TrainConfig) -> list[frozenset[str]]:
    """What the run's estimator asks for, as `build_critics` has it."""
    return [estimator.critics(config.estimator)]


def build_learner(
    config: TrainConfig, engine: Engine, seeds: list[int], device: torch.device
) -> Learner:
    """Policy, and the critics that the estimator needs, to fit the environment's spaces."""
    policy = build_policy(config.policy, config.behaviour, engine)
    est = config.estimator
    shape = engine.obs_dim, engine.max_episode_steps
    states, q = build_critics(
        asked_critics(config), config.critic, policy, *shape, seeds, device,
        discount=discount_of(est),
    )  # fmt: skip
    slots = engine.num_envs // len(seeds) if config.collect is Collect.steps else 0
    return Learner(config, policy, states, q, seeds, device, slots)


def behaviour_parameters(
    config: TrainConfig, engine: Engine, device: torch.device
) -> Tensor | None:
    """theta [S, P] of the run that `behaviour.checkpoint` names; None where nothing is named.

    A run of one seed collects for all seeds. See `saved_theta` for what is refused.
    """
    named = saved_behaviour(config)
    if named is None:
        return None
    theta = saved_theta("behaviour.checkpoint", *named, config, spaces_of(engine)).to(device)
    return theta.expand(config.seeds, -1).contiguous()


def spaces_of(engine: Engine) -> Spaces:
    """What a policy needs to know of the environment."""
    return Spaces(engine.obs_dim, engine.action)


def facts(
    config: TrainConfig,
    engine: Engine,
    policy: Policy,
    device: torch.device,
    notices: Sequence[str] = (),
) -> dict[str, Any]:
    """What a reader of the results must know; "bias" and "notices" are said at the start."""
    notices = [*engine.notices(), *notices]
    if not engine.exact_resume:
        notices.append(f"{engine.name} cannot be seeded at reset: a resumed run is not bit-exact")
    if config.collect is Collect.steps and not isinstance(engine, Saved):
        notices.append(
            f"collect=steps: {engine.name} cannot give its state, so a resumed run begins new "
            "episodes where this one would have played on"
        )
    if not config.estimator.exact:  # F and ∇J are no more of the same batch
        notices += rules.registered(config.update).notes(config.update)
    circumstances = Circumstances(
        horizon=engine.max_episode_steps,
        critic_of_behaviour=config.behaviour.differs,
        off_policy=config.off_policy,
        reused=config.updates_per_batch > 1,
        fixed_horizon=config.collect is Collect.steps,
        counted_by_steps=config.batch_steps is not None,
    )
    bias = bias_notes(config.estimator, circumstances)
    if config.estimator.exact:
        notices += [f"of what is measured, and not stepped along: {note}" for note in bias]
    return {
        "environment": config.env.id,
        "engine": engine.name,
        "device": str(device),
        "spaces": spaces_of(engine).told,
        "parameters": policy.num_params,
        "bias": [] if config.estimator.exact else bias,
        "notices": notices,
    }


def devices(device: Device) -> list[torch.device]:
    """Where torch may compute: one device, or for `auto` all there are; ConfigError without it."""
    there = torch.cuda.is_available()
    if device is Device.cuda and not there:
        raise ConfigError("device", device, "no CUDA device here: cpu or auto")
    names = {"cpu": ["cpu"], "cuda": ["cuda"], "auto": ["cpu", "cuda"] if there else ["cpu"]}
    return [torch.device(name) for name in names[device.name]]


def fastest(candidates: list[torch.device], config: TrainConfig, engine: Engine) -> torch.device:
    """The one that passes sooner over a batch of this run's size, the way there included."""
    if len(candidates) == 1:
        return candidates[0]
    policy, batch = build_policy(config.policy, config.behaviour, engine), _blank(config, engine)
    theta = torch.zeros(config.seeds, policy.width)

    def seconds(device: torch.device) -> float:
        times = []
        for _ in range(3):  # the first one warms up
            start = time.perf_counter()
            there = batch.to(device)
            gradient_sums(policy, theta.to(device), there, there.rew).gradient.cpu()
            times.append(time.perf_counter() - start)
        return min(times)

    return min(candidates, key=seconds)


def _blank(config: TrainConfig, engine: Engine) -> Batch:
    """As many and as long episodes as one iteration may have, with nothing in them."""
    length = min(engine.max_episode_steps, LONGEST)
    s, n = config.seeds, config.batch_size
    if config.collect is Collect.steps:
        n, length = slots_per_seed(config.env, None), config.horizon
    elif config.batch_steps is not None:
        n = -(-config.batch_steps // length)
    mask = torch.ones(s, n, length, dtype=torch.bool)
    act: np.ndarray = np.zeros((s, n, length, *engine.action.shape), engine.action.dtype)
    return Batch(
        torch.zeros(s, n, length, engine.obs_dim),
        torch.from_numpy(act),
        torch.ones(s, n, length, dtype=torch.float64),
        mask,
        ~mask[..., 0],
        mask[..., 0],
        torch.zeros(s, n, engine.obs_dim),
        torch.full((s, n), length),
    )
