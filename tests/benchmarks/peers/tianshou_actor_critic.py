"""A2C and PPO of Tianshou: `tianshou_actor_critic.py METHOD ENVIRONMENTS N_STEPS TOTAL ENV KIND`.

METHOD: `a2c`, one update with all steps, or `ppo`, 10 epochs of minibatches of 64; KIND of its
vector environment: `dummy`, or `subproc`. Two 2×64 tanh networks, as Stable-Baselines3 has them;
no test collector, no logger, no progress bar; one PyTorch thread, as for its REINFORCE.
"""

from __future__ import annotations

import sys
import time

start = time.perf_counter()

import gymnasium  # noqa: E402
import torch  # noqa: E402
from tianshou.algorithm import A2C, PPO  # noqa: E402
from tianshou.algorithm.modelfree.reinforce import (  # noqa: E402
    DiscreteActorPolicy,
    ProbabilisticActorPolicy,
)
from tianshou.algorithm.optim import AdamOptimizerFactory  # noqa: E402
from tianshou.data import Collector, VectorReplayBuffer  # noqa: E402
from tianshou.env import DummyVectorEnv, SubprocVectorEnv  # noqa: E402
from tianshou.trainer import OnPolicyTrainerParams  # noqa: E402
from tianshou.utils.net.common import Net  # noqa: E402
from tianshou.utils.net.continuous import (  # noqa: E402
    ContinuousActorProbabilistic,
    ContinuousCritic,
)
from tianshou.utils.net.discrete import DiscreteCritic  # noqa: E402
from timing import told  # noqa: E402

method, name, kind = sys.argv[1], sys.argv[5], sys.argv[6]
environments, n_steps, total = map(int, sys.argv[2:5])


def make():
    return gymnasium.make(name, disable_env_checker=True)


def normal(parameters):
    mean, deviation = parameters
    return torch.distributions.Independent(torch.distributions.Normal(mean, deviation), 1)


def main():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    envs = {"dummy": DummyVectorEnv, "subproc": SubprocVectorEnv}[kind]([make] * environments)
    envs.seed(0)
    actions, shape = envs.action_space[0], envs.observation_space[0].shape
    body = {"hidden_sizes": (64, 64), "activation": torch.nn.Tanh}
    if isinstance(actions, gymnasium.spaces.Discrete):
        net = Net(state_shape=shape, action_shape=int(actions.n), **body)  # its output: logits
        policy = DiscreteActorPolicy(actor=net, action_space=actions)
        critic = DiscreteCritic(preprocess_net=Net(state_shape=shape, **body))
    else:
        actor = ContinuousActorProbabilistic(
            preprocess_net=Net(state_shape=shape, **body),
            action_shape=actions.shape,
            unbounded=True,
        )
        policy = ProbabilisticActorPolicy(actor=actor, dist_fn=normal, action_space=actions)
        critic = ContinuousCritic(preprocess_net=Net(state_shape=shape, **body))
    algorithm = {"a2c": A2C, "ppo": PPO}[method](
        policy=policy, critic=critic, optim=AdamOptimizerFactory(lr=3e-4)
    )
    collector = Collector(algorithm, envs, VectorReplayBuffer(n_steps * environments, environments))
    params = OnPolicyTrainerParams(
        training_collector=collector,
        collection_step_num_env_steps=n_steps * environments,
        update_step_num_repetitions=1 if method == "a2c" else 10,
        max_epochs=1,
        epoch_num_steps=total,
        batch_size=None if method == "a2c" else 64,
        show_progress=False,
        verbose=False,
    )
    ready = time.perf_counter()
    algorithm.run_training(params)
    told(start=start, ready=ready, steps=collector.collect_step)


if __name__ == "__main__":  # processes import it
    main()
