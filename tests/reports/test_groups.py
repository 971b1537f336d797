"""What makes a group, what it is called, and which seeds count in it."""

from command_line import pg
from made_runs import made_run, write_summary

from pgcli.reports.groups import UNSET, group, shared
from pgcli.runs.saved import find, read


def groups(directory, unfinished=False):
    return group([read(run) for run in find([directory])], unfinished)


def labels(directory):
    return [g.label for g in groups(directory)]


def test_seeds_checkpoints_and_logs_make_no_difference(tmp_path):
    made_run(tmp_path / "a", seeds=(0, 1), every=50, interval=5.0)
    made_run(tmp_path / "b", seeds=(2,), every=10, interval=1.0)
    (only,) = groups(tmp_path)
    assert (only.label, sorted(only.seeds), only.counted) == ("estimator=rtg", [0, 1, 2], 2)
    assert only.settings == {}


def test_an_option_names_what_it_brings(tmp_path):
    for name in ("rtg", "rtg_mean", "gae"):
        made_run(tmp_path / name, estimator=name)
    found = groups(tmp_path)
    assert [g.label for g in found] == ["estimator=gae", "estimator=rtg", "estimator=rtg_mean"]
    assert found[0].settings == {"estimator.phi": "gae", "estimator.baseline": "none"}


def test_what_was_typed_is_said_even_where_the_option_would_tell_it(tmp_path):
    made_run(tmp_path / "a", estimator="rtg", lr=0.1, typed=("estimator", "optimizer.lr"))
    made_run(tmp_path / "b", estimator="gae", lr=0.2, typed=("estimator", "optimizer.lr"))
    assert labels(tmp_path) == [
        "estimator=rtg, optimizer.lr=0.1",
        "estimator=gae, optimizer.lr=0.2",
    ]


def test_an_option_that_does_not_tell_a_setting_does_not_hide_it(tmp_path):
    made_run(tmp_path / "a", estimator="rtg", lr=0.1)
    made_run(tmp_path / "b", estimator="rtg", lr=0.2)
    made_run(tmp_path / "c", estimator="gae", lr=0.2)
    found = labels(tmp_path)
    assert found[:2] == ["estimator=rtg, optimizer.lr=0.1", "estimator=rtg, optimizer.lr=0.2"]


def test_without_hydras_notes_settings_name_a_group(tmp_path):
    for name in ("rtg", "gae"):
        run = made_run(tmp_path / name, estimator=name)
        (run / ".hydra" / "hydra.yaml").unlink()
    assert labels(tmp_path) == ["estimator.phi=gae", "estimator.phi=reward_to_go"]


def test_a_setting_that_some_runs_do_not_have(tmp_path):
    made_run(tmp_path / "a")
    path = made_run(tmp_path / "b") / ".hydra" / "config.yaml"
    path.write_text(path.read_text().replace("kwargs: {}", "kwargs: {g: 9.8}"))
    first, second = groups(tmp_path)
    assert first.settings == {"env.kwargs.g": UNSET}
    assert second.label == "env.kwargs.g=9.8"


def test_a_seed_counts_once_and_its_longest_run_wins(tmp_path):
    made_run(tmp_path / "a", seeds=(0, 1), rows=10)
    made_run(tmp_path / "b", seeds=(1, 2), rows=20)
    made_run(tmp_path / "c", seeds=(2,), rows=20)
    (only,) = groups(tmp_path)
    assert {seed: len(rows) for seed, rows in only.seeds.items()} == {0: 10, 1: 20, 2: 20}
    assert [(run.directory.name, why) for run, why in only.left_out] == [
        ("a", f"seed 1 is counted from {tmp_path / 'b'}"),
        ("c", f"seed 2 is counted from {tmp_path / 'b'}"),
    ]
    assert only.counted == 2


def test_unfinished_runs_count_where_asked_for(tmp_path):
    made_run(tmp_path / "a", seeds=(0,))
    write_summary(made_run(tmp_path / "b", seeds=(1,)), status="Stopped", reason="", iterations=20)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "metrics.csv").write_text("")
    (only,) = groups(tmp_path)
    assert sorted(only.seeds) == [0]
    assert [why for _, why in only.left_out] == ["Stopped:"]
    (only,) = groups(tmp_path, unfinished=True)
    assert sorted(only.seeds) == [0, 1]
    assert not only.left_out


def test_a_setting_that_always_failed_is_a_group_without_seeds(tmp_path):
    made_run(tmp_path / "a", lr=0.1)
    failed = made_run(tmp_path / "b", lr=9.0)
    write_summary(failed, status="NonFinite", reason="NaN", iterations=20)
    found = groups(tmp_path)
    assert [(g.label, len(g.seeds), len(g.runs)) for g in found] == [
        ("optimizer.lr=0.1", 1, 1),
        ("optimizer.lr=9.0", 0, 1),
    ]


def test_the_same_setting_has_one_name_in_every_environment(tmp_path):
    for i, environment in enumerate(("CartPole-v1", "Acrobot-v1")):
        for name in ("rtg", "gae"):
            lr = (0.1, 0.2)[i]  # of no interest within an environment
            made_run(
                tmp_path / f"{i}{name}", environment=environment, estimator=name, lr=lr,
                typed=("optimizer.lr",),
            )  # fmt: skip
    found = groups(tmp_path)
    assert found[0].label == "estimator=gae, env=CartPole-v1, optimizer.lr=0.1"
    assert [g.series for g in found] == ["estimator=gae", "estimator=rtg"] * 2


def test_shared_settings_are_those_in_which_no_two_differ(tmp_path):
    for name in ("rtg", "gae"):
        made_run(tmp_path / name, estimator=name)
    found = shared([read(run) for run in find([tmp_path])])
    assert found["env.id"] == "CartPole-v1"
    assert not {"estimator.phi", "seed", "log.interval"} & set(found)


def test_a_run_that_does_not_know_a_setting_is_of_one_group_with_those_that_do(tmp_path):
    old, new = made_run(tmp_path / "old"), made_run(tmp_path / "new", seeds=(1,))
    path = new / ".hydra" / "config.yaml"
    path.write_text(path.read_text() + "critic:\n  lam: null\nupdate:\n  name: ascent\n")
    (whole,) = group([read(old), read(new)])
    assert sorted(whole.seeds) == [0, 1]


def test_a_label_says_what_was_typed_and_not_what_follows(tmp_path):
    lines = [
        ["estimator=rtg", "env=CartPole-v1"],
        ["estimator=rtg", "env=Pendulum-v1", "method=none", "env.kwargs.g=9.0"],
        ["method=ppo", "total_steps=1"],
        ["-m", "estimator=rtg,rtg_mean", "batch_size=3"],
    ]
    for number, line in enumerate(lines):
        place = f"hydra.{'sweep' if '-m' in line else 'run'}.dir={number}"
        words = [*line, "iterations=1", place]
        if "batch_size=3" not in line:
            words.append("batch_size=2")
        assert pg("train", *words, cwd=tmp_path).returncode == 0
    groups = group([read(run) for run in find([tmp_path])])
    assert sorted(g.label for g in groups) == [
        "env=CartPole-v1, estimator=gae, method=ppo, total_steps=1, batch_size=2",
        "env=CartPole-v1, estimator=rtg, batch_size=2",
        "env=CartPole-v1, estimator=rtg, batch_size=3",
        "env=CartPole-v1, estimator=rtg_mean, batch_size=3",
        "env=Pendulum-v1, estimator=rtg, method=none, batch_size=2, env.kwargs.g=9.0",
    ]
