"""Run directories made up in a moment, as `pg train` leaves them."""

import json
from pathlib import Path

import numpy as np

HEADER = (
    "iteration,seed,env_steps,rollout/ep_rew_mean,rollout/ep_len_mean,rollout/episodes,"
    "gradient/norm,gradient/norm_sq_unbiased,gradient/trace_cov,gradient/variance,time/fps"
)
CONFIG = """\
iterations: 20
batch_size: 10
seed: {seed}
seeds: {seeds}
resume: null
env:
  id: {environment}
  kwargs: {{}}
estimator:
  phi: {phi}
  baseline: {baseline}
optimizer:
  lr: {lr}
policy:
  hidden:
  - 64
checkpoint:
  every: {every}
log:
  interval: {interval}
"""
PRESETS = {
    "rtg": ("reward_to_go", "none"),
    "rtg_mean": ("reward_to_go", "mean"),
    "gae": ("gae", "none"),
}
DEFAULTS = {"environment": "CartPole-v1", "lr": 0.005, "every": 50, "interval": 5.0}


def made_run(
    directory: Path,
    seeds=(0,),
    estimator="rtg",
    rows=20,
    height=100.0,
    typed=("estimator",),
    **settings,
) -> Path:
    """A finished run: seed s climbs to height + s in `rows` iterations of 10 episodes.

    An iteration takes 100 steps; tr Σ is 40, ‖G‖² is 8 and the variance of the estimate 4.
    """
    phi, baseline = PRESETS[estimator]
    values = {**DEFAULTS, **settings}
    hydra = directory / ".hydra"
    hydra.mkdir(parents=True)
    config = CONFIG.format(seed=seeds[0], seeds=len(seeds), phi=phi, baseline=baseline, **values)
    (hydra / "config.yaml").write_text(config)
    (hydra / "overrides.yaml").write_text("".join(f"- {key}=…\n" for key in typed) or "[]\n")
    choices = f"estimator: {estimator}\n      env: {values['environment']}\n      hydra/help: x"
    (hydra / "hydra.yaml").write_text(
        f"hydra:\n  job:\n    name: train\n  runtime:\n    choices:\n      {choices}\n"
    )
    lines = [HEADER]
    for i, x in enumerate(np.linspace(0, 1, rows) if rows > 1 else [1.0], start=1):
        for seed in seeds:
            ret = float(x * (height + seed))
            lines.append(f"{i},{seed},{100 * i},{ret!r},10.0,10,3.0,8.0,40.0,4.0,1e4")
    (directory / "metrics.csv").write_text("\n".join(lines) + "\n")
    write_summary(directory, status="finished", reason=None, iterations=rows)
    return directory


def write_summary(directory: Path, **content) -> None:
    (directory / "summary.json").write_text(json.dumps(content))
