"""A2C as one compiled JAX program: `python jax_a2c.py ENVIRONMENTS STEPS TOTAL`.

Written from the algorithm (Mnih et al. 2016, algorithm S3, synchronous), with gymnax's CartPole:
segments of STEPS steps that bootstrap from the value of what follows, 2×64 tanh networks for
policy and value, Adam, one update per segment; everything is inside `jit`. It measures nothing.
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

environments, length, total = map(int, sys.argv[1:])
GAMMA, VALUE, ENTROPY = 0.99, 0.5, 0.01
env, settings = gymnax.make("CartPole-v1")
optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(1e-3))


def initial(key, outputs, gain):
    keys = jax.random.split(key, 3)
    sizes, gains = [(4, 64), (64, 64), (64, outputs)], [2**0.5, 2**0.5, gain]
    return [
        (jax.nn.initializers.orthogonal(g)(k, size), jnp.zeros(size[1]))
        for k, size, g in zip(keys, sizes, gains, strict=True)
    ]


def network(params, x):
    for weight, bias in params[:-1]:
        x = jnp.tanh(x @ weight + bias)
    return x @ params[-1][0] + params[-1][1]


def iterate(carry, _):
    params, learned, obs, state, key = carry
    key, own = jax.random.split(key)

    def play(carry, key):
        obs, state = carry
        k_act, k_env = jax.random.split(key)
        act = jax.random.categorical(k_act, network(params["policy"], obs))
        keys = jax.random.split(k_env, environments)
        after, state, rew, done, *_ = jax.vmap(env.step, (0, 0, 0, None))(
            keys, state, act, settings
        )
        return (after, state), (obs, act, rew, done)

    (after, state), film = jax.lax.scan(play, (obs, state), jax.random.split(own, length))
    seen, act, rew, done = film
    last = network(params["value"], after)[..., 0]

    def back(ret, step):
        rew, done = step
        ret = rew + GAMMA * ret * (1 - done)
        return ret, ret

    _, ret = jax.lax.scan(back, last, (rew, done), reverse=True)

    def loss(params):
        logp = jax.nn.log_softmax(network(params["policy"], seen))
        value = network(params["value"], seen)[..., 0]
        chosen = jnp.take_along_axis(logp, act[..., None], -1)[..., 0]
        advantage = jax.lax.stop_gradient(ret - value)
        entropy = -(jnp.exp(logp) * logp).sum(-1)
        errors = (ret - value) ** 2
        return (-chosen * advantage + VALUE * errors - ENTROPY * entropy).mean()

    update, learned = optimizer.update(jax.grad(loss)(params), learned, params)
    return (optax.apply_updates(params, update), learned, after, state, key), None


def train(key, iterations):
    k_policy, k_value, k_env, key = jax.random.split(key, 4)
    params = {"policy": initial(k_policy, 2, 0.01), "value": initial(k_value, 1, 1.0)}
    keys = jax.random.split(k_env, environments)
    obs, state = jax.vmap(env.reset, (0, None))(keys, settings)
    first = (params, optimizer.init(params), obs, state, key)
    return jax.lax.scan(iterate, first, None, iterations)[0][0]


iterations = max(1, total // (environments * length))
ready = time.perf_counter()
program = jax.jit(train, static_argnums=1).lower(jax.random.key(0), iterations).compile()
compiled = time.perf_counter()
jax.block_until_ready(program(jax.random.key(0)))
told(start=start, ready=ready, compiled=compiled, steps=iterations * environments * length)
