"""`pg test`: what a part says of its bias, held to the expectation of its estimate."""

import pytest
from command_line import pg

PARTS = """
from pgcli.estimators import baselines, importance, phi, returns

@phi.register("to_go", stream=True, couples=False)
def to_go(config, episodes):
    return phi.Stream(episodes.rew, config.gamma)

@phi.register("next_reward")
def next_reward(config, episodes):
    return episodes.rew

@phi.register("shy", bias="it may be")
def shy(config, episodes):
    return returns.reward_to_go(episodes.rew, config.gamma)

@phi.register("broken")
def broken(config, episodes):
    return episodes.rew.nothing

@baselines.register("own")
def own(config, episodes, phi):
    return baselines.own_mean(phi, episodes.mask)

@baselines.register("half", fewest=2)
def half(config, episodes, phi):
    return 0.5 * baselines.leave_one_out_time_mean(phi, episodes.mask)

@baselines.register("three", fewest=3)
def three(config, episodes, phi):
    return 0 * phi

@importance.register("last")
def last(log_ratio):
    return log_ratio
"""


@pytest.fixture
def tested(tmp_path):
    (tmp_path / "my.py").write_text(PARTS)
    return lambda *args: pg("test", *args, cwd=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "code"),
    [("phi:to_go", 0), ("phi:next_reward", 1), ("phi:shy", 1), ("baseline:own", 1),
     ("baseline:half", 0), ("importance:last", 0)],
)  # fmt: skip
def test_what_is_said_of_bias_is_so_or_fails(part, code, tested):
    kind, _, name = part.partition(":")
    done = tested(f"my:{name}")
    assert done.returncode == code, done.stderr
    head, *lines, last = done.stdout.splitlines()
    assert head.startswith(f"estimator.{kind}=my:{name}")
    assert (" 0 FAILS" in last) == (code == 0)
    assert f"of {sum(not line.startswith('    ') for line in lines)} combinations" in last
    assert any(line.startswith("    in episodes of") for line in lines) == (code == 1)


@pytest.mark.slow
def test_what_comes_with_pg_holds(tested):
    done = tested("first_order")
    assert done.returncode == 0, done.stderr
    assert "0 FAILS" in done.stdout


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["my:to_goo"], 2, "part=my:to_goo: no Φ, baseline or importance: must be one of my:"),
        (["nowhere:x"], 2, "the module does not import: ModuleNotFoundError"),
        (["gea"], 2, "did you mean gae?"),
        (["my:three"], 2, "it needs 3 episodes"),
        (["my:broken"], 1, "estimator.phi=my:broken failed (my.py, line 18): AttributeError"),
        ([], 2, "required: part"),
    ],
    ids=str,
)
def test_what_cannot_be_tested_is_one_line(args, code, said, tested):
    done = tested(*args)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
    assert said in done.stderr
