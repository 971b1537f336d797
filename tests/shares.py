"""Batches of one policy by any engine, and whether they are the same."""

import dataclasses
import multiprocessing

import moody  # noqa: F401
import numpy as np
import torch
from settings import train_config

from pgcli.collection.rollout import Quota
from pgcli.machine.randomness import DISTINCT
from pgcli.policies.actor import PolicyActor
from pgcli.training.cohort import Cohort


def collected(engine, seeds, slots, batches, *line):
    """The first batches of a policy that does not learn."""
    own = [f"env.engine={engine}", f"env.num_envs={slots}", f"seeds={seeds}", *line]
    config = train_config("method=none", *own)
    cohort = Cohort(config, list(range(seeds)), slots)
    try:
        cohort.begin(torch.device("cpu"))
        policy, theta = cohort.learner.policy, cohort.learner.theta
        found = []
        for i in range(batches):
            done = np.full(seeds, i)
            changed = config.behaviour if config.behaviour.changes else None
            actor = PolicyActor(policy, theta, cohort.seeds, done, slots, changed)
            found.append(cohort.collect(actor, Quota(13, None), done, DISTINCT))
        return found, cohort.engine.notices()
    finally:
        cohort.close()
        assert not multiprocessing.active_children()


def equal(one, other):
    for x, y in zip(one, other, strict=True):
        for field in dataclasses.fields(x):
            a, b = getattr(x, field.name), getattr(y, field.name)
            if a is None:
                assert b is None
            else:
                torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


PARTS = ["collect=steps", "horizon=11", "estimator=gae", "critic.target=td_lambda"]
