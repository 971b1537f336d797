"""REINFORCE with TorchRL: `python torchrl_reinforce.py ENVIRONMENTS STEPS_PER_BATCH TOTAL`.

Its environment wrapper, collector, actor and `reward2go`; the loss is written out, because its
`ReinforceLoss` asks for a critic. A 2×64 tanh policy, one full-batch update by Adam per batch;
episodes run on from batch to batch, and a return ends with its batch.

It prefers vectorised environments with autoreset disabled (it resets by mask, and needs no
`TransformedEnv`); `track_traj_ids=False` is its option for learners without trajectory ids. One
PyTorch thread, because two only contend for networks of this size.
"""

from __future__ import annotations

import sys
import time

start = time.perf_counter()

import gymnasium  # noqa: E402
import torch  # noqa: E402
from gymnasium.vector import AutoresetMode, SyncVectorEnv  # noqa: E402
from tensordict.nn import TensorDictModule  # noqa: E402
from timing import told  # noqa: E402
from torchrl.collectors import Collector  # noqa: E402
from torchrl.envs import GymWrapper  # noqa: E402
from torchrl.modules import MLP, ProbabilisticActor  # noqa: E402
from torchrl.objectives.value.functional import reward2go  # noqa: E402

environments, batch, total = map(int, sys.argv[1:])
torch.set_num_threads(1)
torch.manual_seed(0)


def make():
    return gymnasium.make("CartPole-v1", disable_env_checker=True)


envs = GymWrapper(
    SyncVectorEnv([make] * environments, autoreset_mode=AutoresetMode.DISABLED),
    categorical_action_encoding=True,
)
envs.set_seed(0)
network = MLP(
    in_features=4, out_features=2, num_cells=[64, 64], activation_class=torch.nn.Tanh
)  # its output: logits
policy = ProbabilisticActor(
    TensorDictModule(network, in_keys=["observation"], out_keys=["logits"]),
    in_keys=["logits"],
    spec=envs.action_spec,
    distribution_class=torch.distributions.Categorical,
)
optimizer = torch.optim.Adam(policy.parameters(), lr=5e-3)
collector = Collector(
    envs,
    policy,
    frames_per_batch=batch,
    total_frames=max(1, total // batch) * batch,
    track_traj_ids=False,
    auto_register_policy_transforms=False,
)
steps = 0
ready = time.perf_counter()
for data in collector:
    ends = data["next", "done"].clone()
    ends[:, -1] = True
    returns = reward2go(data["next", "reward"], ends, 1.0).squeeze(-1)
    loss = -(policy.get_dist(data).log_prob(data["action"]) * returns).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    steps += data.numel()
told(start=start, ready=ready, steps=steps)
