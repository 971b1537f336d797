"""REINFORCE of Tianshou: `python tianshou_reinforce.py ENVIRONMENTS COLLECT TOTAL`.

COLLECT is what an update learns from: `2048` steps, or `32e`, 32 whole episodes. A 2×64 tanh
policy, reward-to-go, one full-batch update by Adam; no test collector, no logger, no progress bar.

Its documentation takes `DummyVectorEnv` for CartPole and calls validation slow, which is off as
by default; one PyTorch thread, because two only contend for networks of this size.
"""

from __future__ import annotations

import math
import sys
import time

start = time.perf_counter()

import gymnasium  # noqa: E402
import torch  # noqa: E402
from tianshou.algorithm import Reinforce  # noqa: E402
from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy  # noqa: E402
from tianshou.algorithm.optim import AdamOptimizerFactory  # noqa: E402
from tianshou.data import Collector, VectorReplayBuffer  # noqa: E402
from tianshou.env import DummyVectorEnv  # noqa: E402
from tianshou.trainer import OnPolicyTrainerParams  # noqa: E402
from tianshou.utils.net.common import Net  # noqa: E402
from timing import told  # noqa: E402

LIMIT = 500
environments, total = int(sys.argv[1]), int(sys.argv[3])
collect = int(sys.argv[2].removesuffix("e"))
whole = sys.argv[2].endswith("e")
torch.set_num_threads(1)
torch.manual_seed(0)


def make():
    return gymnasium.make("CartPole-v1", disable_env_checker=True)


envs = DummyVectorEnv([make] * environments)
envs.seed(0)
actor = Net(
    state_shape=4, action_shape=2, hidden_sizes=(64, 64), activation=torch.nn.Tanh
)  # its output: logits
policy = DiscreteActorPolicy(actor=actor, action_space=envs.action_space[0])
algorithm = Reinforce(policy=policy, gamma=1.0, optim=AdamOptimizerFactory(lr=5e-3))
rows = math.ceil(collect / environments) * (LIMIT if whole else 1)  # no environment needs more
collector = Collector(algorithm, envs, VectorReplayBuffer(rows * environments, environments))
params = OnPolicyTrainerParams(
    training_collector=collector,
    collection_step_num_env_steps=None if whole else collect,
    collection_step_num_episodes=collect if whole else None,
    max_epochs=1,
    epoch_num_steps=total,
    batch_size=None,
    show_progress=False,
    verbose=False,
)
ready = time.perf_counter()
algorithm.run_training(params)
told(start=start, ready=ready, steps=collector.collect_step)
