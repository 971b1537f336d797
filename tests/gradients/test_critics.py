"""Q in its forms: V is the mean of Q under the policy, advantages have mean 0, seeds are apart."""

from dataclasses import replace

import pytest
import torch
from made_places import HEADS, D, N, S, T
from made_places import place as place
from settings import train_config

from pgcli.errors import ConfigError
from pgcli.gradients.critics import build_critics, policy_at, state_values
from pgcli.machine.cores import started
from pgcli.policies.critic import Critic
from pgcli.settings.schema import ActionValue, Target

BOTH = frozenset({"q", "value"})
COUNTED = ("outputs", "dueling", "compatible")


def settings(form, **changes):
    given = {"hidden": [8], "lr": 0.01, "minibatches": 4, **changes}
    return replace(train_config().critic, q=ActionValue[form], **given)


def made(policy, form, seeds=(0, 1), asked=(BOTH,), **changes):
    device = torch.device("cpu")
    return build_critics(asked, settings(form, **changes), policy, D, T, list(seeds), device)


def single(batch):
    return replace(batch, obs=batch.obs.float(), final_obs=batch.final_obs.float())


def target(batch, seed=3):
    rng = torch.Generator().manual_seed(seed)
    y = 50 + 20 * torch.randn(batch.mask.shape, generator=rng, dtype=torch.float64)
    return y * batch.mask


def fit(states, q, theta, batch, iterations=3):
    for i in range(iterations):
        for critic in states.values():
            started(critic.fits(batch.obs, batch.mask, target(batch), i))()
        started(q.fits(theta, batch, target(batch), i))()


def actions(head):
    """Every action, in the order of `index`."""
    sizes = {
        "categorical": (3,),
        "normalized": (3,),
        "multi_categorical": (2, 3),
        "bernoulli": (2, 2),
    }
    name = next(name for name, one in HEADS.items() if one is head)
    listed = torch.cartesian_prod(*(torch.arange(n) for n in sizes[name]))
    return listed


@pytest.mark.parametrize("form", COUNTED)
def test_v_is_the_mean_of_q_under_the_policy(place, form):
    policy, theta, batch, _ = place
    if policy.head.count is None:
        return
    theta, batch = theta.float(), single(batch)
    states, q = made(policy, form)
    fit(states, q, theta, batch)
    value, final = state_values(BOTH, states, q, policy, theta, batch)
    pi = policy_at(policy, theta, batch)
    torch.testing.assert_close(pi.sum(-1), torch.ones(S, N, T))
    mean, spread = torch.zeros(S, N, T), 0.0
    for k, action in enumerate(actions(policy.head)):
        taken = replace(batch, act=action.expand(batch.act.shape).contiguous())
        assert (policy.head.index(taken.act) == k).all()
        found = q.along(theta, taken)
        rows = taken.obs.flatten(1, 2), taken.act.flatten(1, 2)
        chance = policy.log_prob(theta, *rows).exp().reshape(S, N, T)
        torch.testing.assert_close(chance, pi[..., k])
        mean = mean + pi[..., k] * found
        spread = max(spread, float((found - value)[batch.mask].abs().max()))
    assert spread > 1e-3  # actions differ
    torch.testing.assert_close(mean[batch.mask], value[batch.mask].to(mean), rtol=1e-4, atol=1e-3)
    assert not value[~batch.mask].any()
    assert final.shape == (S, N)


@pytest.mark.parametrize("form", [*COUNTED, "action_input"])
def test_a_seed_fits_alone_as_beside_others(place, form):
    policy, theta, batch, _ = place
    if policy.head.count is None and form in ("outputs", "dueling"):
        return
    theta, batch = theta.float(), single(batch)
    states, q = made(policy, form)
    fit(states, q, theta, batch)
    there = {f: x for f, x in vars(batch).items() if x is not None}
    rows = {f: x[1:] if x.ndim else x for f, x in there.items()}
    alone = replace(batch, **rows)
    states_, q_ = made(policy, form, seeds=[1])
    for i in range(3):
        for critic in states_.values():
            started(critic.fits(alone.obs, alone.mask, target(batch)[1:], i))()
        started(q_.fits(theta[1:], alone, target(batch)[1:], i))()
    found = q_.along(theta[1:], alone)
    torch.testing.assert_close(q.along(theta, batch)[1:], found, rtol=1e-3, atol=1e-2)


def test_each_form_has_the_critics_that_it_takes_and_no_more(place):
    policy, *_ = place
    if policy.head.count is None:
        for form in ("outputs", "dueling"):
            with pytest.raises(ConfigError, match=rf"critic\.q={form}: an output per action"):
                made(policy, form)
        return
    only = frozenset({"q"})
    there = {
        form: [sorted(made(policy, form, asked=asked)[0]) for asked in ([only], [BOTH])]
        for form in (*COUNTED, "action_input")
    }
    assert there == {
        "outputs": [[], []], "dueling": [["value"], ["value"]],
        "compatible": [["value"], ["value"]], "action_input": [[], ["value"]],
    }  # fmt: skip
    assert sorted(made(policy, "outputs", asked=[BOTH, frozenset({"value"})])[0]) == ["value"]
    assert sorted(made(policy, "outputs", kind="linear")[0]) == ["value"]
    assert sorted(made(policy, "dueling", asked=[frozenset({"q", "linear"})])[0]) == ["linear"]
    assert made(policy, "dueling", asked=[frozenset({"value"})])[1] is None
    with pytest.raises(ConfigError, match=r"critic\.target=expected_sarsa: critic\.q=action_input"):
        made(policy, "action_input", asked=[only], target=Target.expected_sarsa)


def test_the_dueling_network_is_fitted_to_what_v_leaves(place):
    """Targets that are a function of the action alone, beside a V of them: it finds them."""
    policy, theta, batch, _ = place
    if policy.head.count != 3:
        return
    theta, batch = theta.float(), single(batch)
    states, q = made(policy, "dueling", lr=0.05)
    y = torch.tensor([-1.0, 0.0, 2.0])[batch.act].double() * batch.mask + 100 * batch.mask
    for i in range(400):
        started(states["value"].fits(batch.obs, batch.mask, y, i))()
        started(q.fits(theta, batch, y, i))()
    assert float((q.along(theta, batch) - y)[batch.mask].abs().max()) < 0.5


@pytest.mark.parametrize("clip", [0.05, 0.3])
def test_the_clipped_error_has_the_gradient_that_autograd_finds(clip):
    critic = Critic(settings("outputs", clip=clip), 3, 5, [0], torch.device("cpu"))
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(1, 40, 4, generator=rng)
    y = torch.randn(1, 40, generator=rng)
    theta = critic.theta.clone()
    old = critic._outputs(theta, x)
    theta = theta + 0.1 * torch.randn(theta.shape, generator=rng)
    found = critic._gradient(theta, x, y, old)
    at = theta.clone().requires_grad_()
    v = critic.net.forward(at, x).squeeze(-1)
    cut = old + (v - old).clamp(-clip, clip)
    loss = torch.maximum((v - y).square(), (cut - y).square()).mean()
    torch.testing.assert_close(found, torch.autograd.grad(loss, at)[0], rtol=1e-4, atol=1e-6)
    whole = critic._gradient(theta, x, y, None)
    assert (found - whole).norm() > 1e-3 * whole.norm()
    far = replace(critic._config, clip=1e6)
    critic._config = far
    torch.testing.assert_close(critic._gradient(theta, x, y, old), whole)


def test_v_of_a_part_knows_its_time(place):
    """The parts of an episode, each from its own time on, have the values of the whole."""
    policy, theta, batch, *_ = place
    batch = single(batch)
    states, _ = made(policy, "outputs", asked=(frozenset({"value"}),), time_input=True)
    whole, _ = state_values({"value"}, states, None, policy, theta.float(), batch)
    cut = 2
    age = torch.full_like(batch.length, cut)
    later = replace(
        batch, obs=batch.obs[:, :, cut:], mask=batch.mask[:, :, cut:], age=age,
        length=(batch.length - cut).clamp(min=0),
    )  # fmt: skip
    value, last = state_values({"value"}, states, None, policy, theta.float(), later)
    torch.testing.assert_close(value, whole[:, :, cut:])
    _, ends = state_values({"value"}, states, None, policy, theta.float(), batch)
    there = batch.length >= cut
    torch.testing.assert_close(last[there], ends[there])
    fresh, _ = state_values(
        {"value"}, states, None, policy, theta.float(), replace(later, age=None)
    )
    assert not torch.allclose(fresh, value)
