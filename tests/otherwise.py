"""Another value of every setting, and an environment in which it can make a difference."""

import gymnasium as gym
import numpy as np
from omegaconf import OmegaConf


class Wandering(gym.Env):
    """Rewards of any kind, ends of both kinds."""

    observation_space = gym.spaces.Box(0, 1, (2,))
    action_space = gym.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.obs = self.np_random.random(2, np.float32)
        return self.obs, {}

    def step(self, action):
        reward = float(self.obs[0] * (action - 1))
        self.obs = self.np_random.random(2, np.float32)
        return self.obs, reward, bool(self.obs[1] < 0.1), False, {"luck": self.obs[1]}


gym.register("Wandering-v0", Wandering)

OTHERWISE = {  # another value of each
    "batch_size": "5",
    "batch_steps": "40",
    "collect": "steps",
    "horizon": "5",
    "updates_per_batch": "2",
    "env.reward_shift": "1.0",
    "env.info": "[luck]",
    "estimator.importance": "first_order",
    "estimator.gamma": "0.9",
    "estimator.lam": "0.5",
    "estimator.discount_state": "true",
    "estimator.normalize": "true",
    "estimator.scale_rewards": "true",
    "estimator.exact": "true",
    "estimator.bootstrap": "true",
    "estimator.n": "2",
    "estimator.constant": "3.0",
    "estimator.self_normalize": "true",
    "estimator.clip_ratio": "0.9",
    "behaviour.temperature": "2.0",
    "behaviour.epsilon": "0.3",
    "behaviour.iteration": "1",
    "init.iteration": "1",
    "policy.normalize_obs": "true",
    "policy.clip_obs": "0.1",
    "policy.hidden": "[4]",
    "policy.activation": "relu",
    "policy.init": "zeros",
    "policy.output_gain": "1.0",
    "policy.bias": "false",
    "policy.log_std": "-1.0",
    "policy.squash": "true",
    "policy.state_std": "true",
    "policy.min_std": "0.9",
    "policy.max_std": "0.5",
    "policy.entropy_coef": "0.1",
    "policy.entropy_schedule": "linear",
    "critic.kind": "linear",
    "critic.hidden": "[4]",
    "critic.activation": "relu",
    "critic.lr": "0.1",
    "critic.epochs": "2",
    "critic.minibatches": "2",
    "critic.target": "td_lambda",
    "critic.lam": "0.5",
    "critic.time_input": "false",
    "critic.q": "outputs",
    "critic.ridge": "1.0",
    "critic.clip": "0.01",
    "optimizer.name": "sgd",
    "optimizer.lr": "0.05",
    "optimizer.schedule": "constant",
    "optimizer.clip_norm": "0.001",
    "optimizer.momentum": "0.5",
    "optimizer.weight_decay": "0.5",
    "optimizer.betas": "[0.5,0.9]",
    "optimizer.eps": "0.1",
    "update.delta": "0.5",
    "update.step": "lr",
    "update.fisher": "sampled",
    "update.damping": "1.0",
    "update.cg_iterations": "1",
    "update.cg_tolerance": "0.9",
    "update.backtracks": "0",
    "update.shrink": "0.1",
    "update.epochs": "2",
    "update.minibatches": "2",
    "update.minibatch_of": "steps",
    "update.clip": "0.001",
    "update.target_kl": "1e-9",
    "update.normalize": "true",
    "gradient.measure": "false",
    "gradient.smoothing": "0.1",
    "gradient.score": "true",
}


def changed(config, key, value):
    """The configuration with that value of one setting."""
    tree = OmegaConf.merge(OmegaConf.structured(config), OmegaConf.from_dotlist([f"{key}={value}"]))
    return OmegaConf.to_object(tree)
