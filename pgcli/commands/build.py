"""From a configuration to what trains: policy, critics, device, and the facts worth telling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pgcli.agents.critic import Critic, LinearCritic
from pgcli.agents.heads import make_head
from pgcli.agents.learner import Learner
from pgcli.agents.network import Mlp
from pgcli.agents.policy import Policy
from pgcli.config.schema import (
    Baseline,
    BehaviourConfig,
    CriticKind,
    Device,
    PolicyConfig,
    TrainConfig,
)
from pgcli.environments.engines import Engine
from pgcli.environments.spaces import ActionKind
from pgcli.errors import ConfigError
from pgcli.estimators import estimator
from pgcli.estimators.bias import bias_notes
from pgcli.runs import checkpoint
from pgcli.streams import Purpose


def build_policy(settings: PolicyConfig, behaviour: BehaviourConfig, engine: Engine) -> Policy:
    """The policy that fits the environment's spaces."""
    kind = engine.action.kind
    if behaviour.epsilon and kind is ActionKind.GAUSSIAN:
        allowed = "only 0: a continuous action space has no uniform policy"
        raise ConfigError("behaviour.epsilon", behaviour.epsilon, allowed)
    head = make_head(kind.name, engine.action.sizes)
    sizes = (engine.obs_dim, *settings.hidden, head.num_outputs)
    return Policy(Mlp(sizes, settings.activation.name, settings.bias), head)


def build_learner(
    config: TrainConfig, engine: Engine, seeds: list[int], device: torch.device
) -> Learner:
    """Policy, and the critics that the estimator needs, to fit the environment's spaces."""
    policy = build_policy(config.policy, config.behaviour, engine)
    critics: dict[str, Critic | LinearCritic] = {}
    horizon = engine.max_episode_steps
    linear = config.critic.kind is CriticKind["linear"]
    if config.estimator.baseline is Baseline["linear"] or (
        linear and estimator.needs_value(config.estimator)
    ):
        timed = config.critic.time_input
        critics["value"] = LinearCritic(engine.obs_dim, horizon, len(seeds), device, timed)
    elif estimator.needs_value(config.estimator):
        critics["value"] = Critic(config.critic, engine.obs_dim, horizon, seeds, device)
    if estimator.needs_q(config.estimator):
        inputs = engine.obs_dim + policy.head.num_outputs
        critics["q"] = Critic(
            config.critic, inputs, horizon, seeds, device, Purpose.Q_INIT, Purpose.Q_FIT
        )
    return Learner(config, policy, critics, seeds, device)


def behaviour_parameters(
    config: TrainConfig, policy: Policy, device: torch.device
) -> Tensor | None:
    """theta [S, P] of the run that `behaviour.checkpoint` names; None where nothing is named.

    A run of one seed collects for all seeds. ConfigError where its policy is another's.
    """
    run = config.behaviour.checkpoint
    if run is None:
        return None
    found = checkpoint.load(Path(run), config.behaviour.iteration)
    checkpoint.check_policy("behaviour.checkpoint", run, found, config)
    theta = torch.from_numpy(found.arrays["theta"]).to(device)
    if len(theta) not in (1, config.seeds):
        allowed = f"it has {len(theta)} seeds, this run {config.seeds}: 1, or as many"
        raise ConfigError("behaviour.checkpoint", run, allowed)
    return theta.expand(config.seeds, -1).contiguous()


def facts(config: TrainConfig, engine: Engine, policy: Policy) -> dict[str, Any]:
    """What a reader of the results must know; "bias" and "notices" are said at the start."""
    notices = []
    if not engine.exact_resume:
        notices.append(f"{engine.name} cannot be seeded at reset: a resumed run is not bit-exact")
    bias = bias_notes(
        config.estimator,
        counted_by_steps=config.batch_steps is not None,
        off_policy=config.off_policy,
        reused=config.updates_per_batch > 1,
    )
    return {
        "environment": config.env.id,
        "engine": engine.name,
        "parameters": policy.num_params,
        "bias": bias,
        "notices": notices,
    }


def choose_device(device: Device) -> torch.device:
    """The torch device; `auto` is CUDA where there is one."""
    if device is Device["cpu"] or (device is Device["auto"] and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError("device", device, "no CUDA device here: cpu or auto")
    return torch.device("cuda")
