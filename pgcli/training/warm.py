"""A warm start: policy, critics and normalisers of another run, in the place of fresh ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from pgcli.environments.spaces import Spaces
from pgcli.errors import ConfigError, NonFinite
from pgcli.gradients.critics import build_critics
from pgcli.policies.build import build_policy
from pgcli.runs import checkpoint
from pgcli.runs.checkpoint import Checkpoint
from pgcli.runs.saved import Unreadable, settings
from pgcli.settings.schema import TrainConfig
from pgcli.training.build import asked_critics
from pgcli.training.learner import Learner, unsaved

KEY = "init.checkpoint"
CRITICS = {"value": "V", "q": "Q"}
NETWORK = {"critic.hidden", "critic.activation", "critic.time_input"}  # what a critic's network is
Arrays = Mapping[str, np.ndarray]


def begun_with(
    config: TrainConfig, learner: Learner, spaces: Spaces, seeds: Sequence[int]
) -> list[str]:
    """Let a learner begin where `init.checkpoint` has come to; what is to be said of that.

    Nothing where none is named, or where a run goes on, which has what it needs itself. What an
    update rule or a fit remembers stays fresh. See `taken` for what is refused.
    """
    if config.init.checkpoint is None or config.resume is not None:
        return []
    own = learner.arrays()
    found, notices = taken(config, own, learner.policy.width, spaces, seeds)
    learner.load({**own, **found})
    return notices


def check(config: TrainConfig, spaces: Spaces) -> None:
    """Raise what `taken` would, for a run in these spaces that has not begun."""
    if config.init.checkpoint is None or config.resume is not None:
        return
    policy = build_policy(config.policy, config.behaviour, spaces)
    device = torch.device("cpu")
    states, q = build_critics(
        asked_critics(config), config.critic, policy, spaces.obs_dim, 1, [0], device
    )
    own = Learner(config, policy, states, q, [0], device).arrays()
    taken(config, own, policy.width, spaces, range(config.seed, config.seed + config.seeds))


def taken(
    config: TrainConfig, own: Arrays, width: int, spaces: Spaces, seeds: Sequence[int]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """What a learner with arrays like `own` takes from the run, and what is to be said of it.

    A row for each of `seeds`: that of the same seed where the run has it, else of its only one.
    NoCheckpoint where there is none; ConfigError where policy or critics are of another kind or
    size, or no row is a seed's; NonFinite where there is a NaN or an infinity in it.
    """
    run = str(config.init.checkpoint)
    ckpt = checkpoint.load(Path(run), config.init.iteration)
    theta = checkpoint.policy(KEY, run, ckpt, config, spaces.told, width, elsewhere=True)
    rows = _rows(run, len(theta), seeds)
    names, notices = ["theta"], []
    for critic, letter in CRITICS.items():
        mine, theirs = _of(own, critic), _of(ckpt.arrays, critic)
        if mine and not theirs:
            notices.append(f"{KEY}: that run has no critic {letter}: it begins afresh")
        elif mine:
            _check_critic(config, critic, {n: own[n] for n in mine}, ckpt)
            names += mine
    for part, told in {"normalizer": "normalize_obs", "reward_scale": "scale_rewards"}.items():
        mine, theirs = _of(own, part), _of(ckpt.arrays, part)
        if mine and theirs:
            names += mine
        elif mine:
            notices.append(f"{KEY}: that run has no {told}: its statistics begin afresh")
        elif theirs and len(names) > 1:  # a critic's unit would be another
            allowed = f"that run has estimator.{told}=true, and its critics tell scaled rewards"
            raise ConfigError(KEY, run, f"{allowed}: the same here")
    found = {name: ckpt.arrays[name][rows] for name in names if name in ckpt.arrays}
    for name, x in found.items():
        if not np.isfinite(x).all():
            raise NonFinite(f"{KEY}={run}: {name} of iteration {ckpt.iteration} is not finite")
    return found, notices


def _of(arrays: Arrays, part: str) -> list[str]:
    """The names of a part's arrays, but for what its optimiser remembers."""
    own = [name for name in arrays if name.startswith(f"{part}/")]
    return [name for name in own if not name.startswith(f"{part}/optimizer/")]


def _check_critic(config: TrainConfig, critic: str, own: Arrays, ckpt: Checkpoint) -> None:
    """Raise ConfigError where the critic that is saved there is another than this run's."""
    run, differ = str(config.init.checkpoint), []
    there = set(_of(ckpt.arrays, critic))
    lacking = {name for name in set(own) - there if unsaved(name) is None}
    if lacking or there - set(own):
        differ.append("critic.q" if critic == "q" else "critic.kind")
    else:
        keys = {"critic.q" if critic == "q" else "critic.kind"}
        if f"{critic}/theta" in own:
            keys |= NETWORK
        if f"{critic}/weight" in own:  # a baseline's is linear whatever that says
            keys.discard("critic.kind")
        differ += checkpoint.others(ckpt, config, sorted(keys))
        for name in there:
            shape = ckpt.arrays[name].shape[1:]
            if shape != own[name].shape[1:] and not differ:
                size = " × ".join(map(str, shape)) or "1"
                differ.append(f"number of parameters ({size} in {name})")
    if differ:
        letter = CRITICS[critic]
        allowed = f"that run's critic {letter} has another {', '.join(differ)}: the same here"
        raise ConfigError(KEY, run, allowed)


def _rows(run: str, count: int, seeds: Sequence[int]) -> list[int]:
    """The row of each seed among so many that were trained there."""
    if count == 1:
        return [0] * len(seeds)
    try:
        first = int(settings(Path(run))["seed"])
    except (Unreadable, KeyError, TypeError, ValueError) as error:
        raise ConfigError(KEY, run, f"which seeds it trained cannot be read: {error}") from error
    for seed in seeds:
        if not first <= seed < first + count:
            allowed = f"that run trained the seeds {first} to {first + count - 1}, and not {seed}"
            raise ConfigError(KEY, run, f"{allowed}: one of them, or a run of one seed")
    return [seed - first for seed in seeds]
