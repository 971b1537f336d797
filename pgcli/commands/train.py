"""`pg train`: collect whole episodes, weigh their scores, step up the gradient, measure it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pgcli.agents.critic import Critic
from pgcli.agents.heads import make_head
from pgcli.agents.learner import Learner
from pgcli.agents.network import Mlp
from pgcli.agents.policy import Actor, Policy
from pgcli.commands import metrics
from pgcli.config.schema import Device, TrainConfig
from pgcli.environments.engines import Engine, open_engine, slots_per_seed
from pgcli.environments.rollout import Quota, collect
from pgcli.errors import ConfigError, NonFinite
from pgcli.estimators import estimator
from pgcli.estimators.bias import bias_notes
from pgcli.estimators.estimator import Episodes
from pgcli.gradients.statistics import NoiseScale, measure
from pgcli.gradients.trajectory import gradient_sums, group_size
from pgcli.runs.session import Session
from pgcli.runs.tally import Tally


def run(config: TrainConfig, directory: Path) -> None:
    """Train `config.seeds` agents side by side; everything they leave lies in `directory`."""
    seeds = [config.seed + i for i in range(config.seeds)]
    quota = Quota(None if config.batch_steps else config.batch_size, config.batch_steps)
    device = choose_device(config.device)
    with Session(config, directory, seeds) as session:
        slots = slots_per_seed(config.env, quota.episodes)
        engine = session.enter(open_engine(config.env, len(seeds) * slots))
        learner = build_learner(config, engine, seeds, device)
        policy, critic = learner.policy, learner.critic
        noise, tally = (
            NoiseScale.start(config.gradient.smoothing, len(seeds)),
            Tally.start(len(seeds)),
        )
        session.begin(tally, [learner, noise], facts(config, engine, policy))

        while (spent := tally.spent(config)) < 1:
            clock = time.perf_counter()
            actor = Actor(policy, learner.theta, seeds, tally.iteration, slots)
            batch = collect(engine, actor, quota, seeds, tally.iteration, config.env.reward_shift)
            batch = batch.to(device)
            returns = (batch.rew - config.env.reward_shift * batch.mask).sum(-1)  # [S, N]

            episodes = Episodes(batch.rew, batch.mask, batch.truncated)
            if critic:
                v = critic.values(batch.obs, batch.mask, batch.final_obs, batch.length)
                episodes = replace(episodes, value=v.value, final_value=v.final)
            weights = estimator.weights(config.estimator, episodes)

            group = group_size(batch.length.numel(), policy.num_params, config.gradient)
            sums = gradient_sums(policy, learner.theta, batch, weights, group)
            measured = measure(sums)
            check_finite(measured.gradient, "the gradient", tally, seeds)

            old_theta = learner.theta.detach().clone()
            learner.ascend(measured.gradient, spent)
            check_finite(learner.theta, "a parameter of the policy", tally, seeds)
            noise.update(measured)
            tally.add(returns.cpu().numpy(), batch.length.cpu().numpy())

            record = {
                **metrics.rollout(batch, returns),
                **metrics.gradient(measured, noise, batch.episodes),
                "policy/entropy": sums.entropy / batch.steps,
                "policy/kl": metrics.mean_kl(policy, old_theta, learner.theta, batch),
            }
            if critic:  # only now: a baseline must not have seen the batch that it serves
                target = estimator.value_target(config.estimator, config.critic.target, episodes)
                record |= metrics.critic(v.value, target, batch.mask)
                critic.fit(batch.obs, batch.mask, target, tally.iteration)
            record["time/fps"] = batch.steps / (time.perf_counter() - clock)
            session.record({tag: x.double().cpu().numpy() for tag, x in record.items()})


def build_learner(
    config: TrainConfig, engine: Engine, seeds: list[int], device: torch.device
) -> Learner:
    """Policy, and critic where the estimator needs one, to fit the environment's spaces."""
    head = make_head(engine.action.kind.name, engine.action.sizes)
    settings = config.policy
    sizes = (engine.obs_dim, *settings.hidden, head.num_outputs)
    policy = Policy(Mlp(sizes, settings.activation.name, settings.bias), head)
    critic = None
    if estimator.needs_value(config.estimator):
        critic = Critic(config.critic, engine.obs_dim, engine.max_episode_steps, seeds, device)
    return Learner(config, policy, critic, seeds, device)


def facts(config: TrainConfig, engine: Engine, policy: Policy) -> dict[str, Any]:
    """What a reader of the results must know; "bias" and "notices" are said at the start."""
    notices = []
    if not engine.exact_resume:
        notices.append(f"{engine.name} cannot be seeded at reset: a resumed run is not bit-exact")
    if not config.batch_steps:
        group = group_size(config.seeds * config.batch_size, policy.num_params, config.gradient)
        if group > 1 and config.gradient.measure:
            notices.append(
                f"variance from groups of {group} episodes: "
                f"{config.batch_size} × {policy.num_params} numbers exceed gradient.memory_mb"
            )
    return {
        "environment": config.env.id,
        "engine": engine.name,
        "parameters": policy.num_params,
        "bias": bias_notes(config.estimator, counted_by_steps=config.batch_steps is not None),
        "notices": notices,
    }


def choose_device(device: Device) -> torch.device:
    """The torch device; `auto` is CUDA where there is one."""
    if device is Device["cpu"] or (device is Device["auto"] and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError("device", device, "no CUDA device here: cpu or auto")
    return torch.device("cuda")


def check_finite(x: Tensor, what: str, tally: Tally, seeds: list[int]) -> None:
    """Stop before a NaN or an infinity in x [S, P] spreads."""
    bad = (~torch.isfinite(x).all(dim=1)).nonzero().flatten().tolist()
    if bad:
        raise NonFinite(
            f"{what} of seed {seeds[bad[0]]} is NaN or infinite in iteration {tally.iteration + 1}"
            "; a smaller optimizer.lr or optimizer.clip_norm may help"
        )
