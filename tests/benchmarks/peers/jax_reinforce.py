"""REINFORCE with reward-to-go as one compiled JAX program: `python jax_reinforce.py SEEDS TOTAL`.

Written from the algorithm, with gymnax's CartPole: 32 whole episodes a batch and seed, 2×64 tanh
policy, Adam; everything, the loop over iterations included, is inside `jit`. The rollout stops
with the last episode of the batch, so that short episodes cost little. It measures nothing.
"""

from __future__ import annotations

import sys
import time

start = time.perf_counter()

import gymnax  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import optax  # noqa: E402
from timing import told  # noqa: E402

EPISODES, LIMIT = 32, 500
seeds, total = map(int, sys.argv[1:])
env, settings = gymnax.make("CartPole-v1")
over_slots = jax.vmap(jax.vmap(env.reset, (0, None)), (0, None))
step_slots = jax.vmap(jax.vmap(env.step_env, (0, 0, 0, None)), (0, 0, 0, None))
optimizer = optax.adam(5e-3)


def initial(key):
    keys = jax.random.split(key, 3)
    sizes, gains = [(4, 64), (64, 64), (64, 2)], [2**0.5, 2**0.5, 0.01]
    return [
        (jax.nn.initializers.orthogonal(gain)(k, size), jnp.zeros(size[1]))
        for k, size, gain in zip(keys, sizes, gains, strict=True)
    ]


def logits(params, obs):  # of one seed
    for weight, bias in params[:-1]:
        obs = jnp.tanh(obs @ weight + bias)
    return obs @ params[-1][0] + params[-1][1]


def collected(params, key):
    """obs [T, S, N, 4], act, rew, mask [T, S, N]."""
    shape = (seeds, EPISODES)
    first, rest = jax.random.split(key)
    obs, state = over_slots(jax.random.split(first, shape), settings)
    film = (
        jnp.zeros((LIMIT, *shape, 4)), jnp.zeros((LIMIT, *shape), jnp.int32),
        jnp.zeros((LIMIT, *shape)), jnp.zeros((LIMIT, *shape), bool),
    )  # fmt: skip

    def play(carry):
        t, obs, state, alive, key, film = carry
        key, k_act, k_env = jax.random.split(key, 3)
        act = jax.random.categorical(k_act, jax.vmap(logits)(params, obs))
        after, state, rew, done, _ = step_slots(
            jax.random.split(k_env, shape), state, act, settings
        )
        film = tuple(x.at[t].set(y) for x, y in zip(film, (obs, act, rew, alive), strict=True))
        return t + 1, after, state, alive & ~done, key, film

    def playing(carry):
        return (carry[0] < LIMIT) & carry[3].any()

    return jax.lax.while_loop(playing, play, (0, obs, state, jnp.ones(shape, bool), rest, film))[-1]


def surrogate(params, obs, act, ret, mask):  # of one seed
    logp = jax.nn.log_softmax(logits(params, obs))
    logp = jnp.take_along_axis(logp, act[..., None], -1)[..., 0]
    return -(logp * ret * mask).sum() / EPISODES


def iterate(carry, _):
    params, state, key = carry
    key, own = jax.random.split(key)
    obs, act, rew, mask = collected(params, own)
    ret = jnp.flip(jnp.cumsum(jnp.flip(rew * mask, 0), 0), 0)
    gradient = jax.vmap(jax.grad(surrogate), (0, 1, 1, 1, 1))(params, obs, act, ret, mask)
    update, state = optimizer.update(gradient, state, params)
    return (optax.apply_updates(params, update), state, key), mask.sum()


def train(key, iterations):
    params = jax.vmap(initial)(jax.random.split(key, seeds))
    return jax.lax.scan(iterate, (params, optimizer.init(params), key), None, iterations)[1]


iterations = max(1, total // (LIMIT * EPISODES * seeds))
ready = time.perf_counter()
program = jax.jit(train, static_argnums=1).lower(jax.random.key(0), iterations).compile()
compiled = time.perf_counter()
steps = program(jax.random.key(0)).block_until_ready()
told(start=start, ready=ready, compiled=compiled, steps=int(steps.sum()))
