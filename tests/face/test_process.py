"""A call leaves the process to its host: while the run is under way, and afterwards."""

import ctypes
import logging
import os
import signal
import sys
import threading
import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException

import pgcli as pg
from pgcli.errors import ConfigError, EnvironmentFailed, PartFailed
from pgcli.machine import cores

SHORT = ["env=CartPole-v1", "iterations=3", "batch_size=4"]
SEEN = []


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    SEEN.clear()
    return tmp_path


def state():
    """What a call could change of a process."""
    root = logging.getLogger()
    return {
        "signals": [signal.getsignal(x) for x in (signal.SIGINT, signal.SIGTERM)],
        "arguments": list(sys.argv),
        "environment": dict(os.environ),
        "logging": (list(root.handlers), root.level, root.manager.disable),
        "hydra": (GlobalHydra.instance().hydra, HydraConfig.instance().cfg),
        "schemas": sorted(ConfigStore.instance().repo),
        "filters": list(warnings.filters),
        "printing": (sys.stdout, sys.stderr),
        "torch": torch.get_rng_state().tolist(),
    }


def look(iteration, metrics):
    SEEN.append(state())


def by(callback):
    """The line that has a run call it."""
    module = sys.modules[__name__]
    module.callback = callback
    return f"callback={__name__}:callback"


@pytest.mark.parametrize("sweep", [False, True])
def test_while_a_run_is_under_way_everything_is_the_hosts(folder, sweep):
    pg.train(*SHORT)  # what is imported for the first time may add filters of warnings
    before = state()
    pg.train(*(["-m", "seed=0,1"] if sweep else []), *SHORT, by(look))
    assert len(SEEN) == (6 if sweep else 3)
    assert all(seen == before for seen in SEEN)
    assert state() == before


def test_what_a_host_changes_meanwhile_stays(folder, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["own"])

    def change(iteration, metrics):
        os.environ["CHANGED_MEANWHILE"] = str(iteration)
        sys.argv.append(str(iteration))

    pg.train(*SHORT, by(change))
    assert os.environ.pop("CHANGED_MEANWHILE") == "3"
    assert sys.argv == ["own", "1", "2", "3"]


def test_several_threads_may_call_at_once(folder):
    seeds = range(4)
    alone = [pg.train(*SHORT, seed=seed, dir=f"alone{seed}") for seed in seeds]
    found, wrong = {}, []

    def call(seed):
        try:
            found[seed] = pg.train(*SHORT, seed=seed, dir=f"beside{seed}")
            pg.estimate("rtg", np.ones((2, 3)))
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=call, args=(seed,)) for seed in seeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    for seed in seeds:
        same(alone[seed], found[seed])


def same(one, other):
    for name, x in one.metrics.items():
        if not name.startswith("time/"):
            np.testing.assert_array_equal(x, other.metrics[name])


def test_a_callback_may_call_again(folder):
    def again(iteration, metrics):
        if iteration == 1:
            pg.train(*SHORT, dir="inner")

    pg.train(*SHORT, by(again), dir="outer")
    same(pg.Run("outer"), pg.Run("inner"))


def test_torchs_default_type_and_gradient_mode_change_no_result(folder):
    line = [*SHORT, "estimator=gae"]
    plain = pg.train(*line, dir="plain")
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            same(plain, pg.train(*line, dir="double"))
        with torch.inference_mode():
            same(plain, pg.train(*line, dir="inference"))
        assert torch.get_default_dtype() is torch.float64
        assert plain.policy.module()(torch.zeros(1, 4))[0].shape == (1,)
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_hydra_application_of_ones_own_knows_only_its_own(folder):
    pg.train(*SHORT)
    (folder / "app/env").mkdir(parents=True)
    (folder / "app/main.yaml").write_text("defaults: [{env: real}]\n")
    (folder / "app/env/real.yaml").write_text("name: real\n")
    with initialize_config_dir(str(folder / "app"), version_base="1.3"):
        assert compose("main").env.name == "real"
        with pytest.raises(HydraException, match="no-such"):
            compose("main", ["env=no-such"])
        # One that is set up stays so.
        pg.train(*SHORT)
        assert compose("main").env.name == "real"


def test_the_c_library_is_left_alone(folder, monkeypatch):
    def touched(name):
        raise AssertionError("mallopt")

    monkeypatch.setattr(cores.ctypes, "CDLL", touched)
    assert ctypes.CDLL is touched
    pg.train(*SHORT)


def test_own_handlers_of_signals_stay_in_force(folder):
    came = []

    def kill(iteration, metrics):
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, lambda *_: came.append(1))
    try:
        run = pg.train(*SHORT, by(kill))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert came == [1, 1, 1]
    assert run.summary["status"] == "finished"


@pytest.mark.parametrize("where", ["write", "_save", "_keep", "update"])
def test_ctrl_c_in_the_middle_of_the_records_leaves_whole_iterations(folder, where, monkeypatch):
    from pgcli.runs.logbook import Logbook
    from pgcli.runs.progress import Progress
    from pgcli.training.session import Session

    owner = {"write": Logbook, "_keep": Logbook, "update": Progress, "_save": Session}[where]
    real, calls = getattr(owner, where), []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3 and where != "write":
            raise KeyboardInterrupt
        result = real(*args, **kwargs)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return result

    line = [*SHORT, "checkpoint.every=1"]
    whole = pg.train(*line, dir="whole")
    with monkeypatch.context() as patch:
        patch.setattr(owner, where, interrupted)
        with pytest.raises(KeyboardInterrupt):
            pg.train(*line, dir="cut")
    cut = pg.Run("cut")
    assert cut.summary["status"] == "Stopped"
    assert cut.metrics["iteration"].tolist() == [1, 2]
    pg.train("resume=cut")
    same(whole, pg.Run("cut"))


class Exits(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (1,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self, where="step"):
        self.where = where
        self._exit("init")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._exit("reset")
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self._exit("step")
        return np.zeros(1, np.float32), 0.0, False, False, {}

    def close(self):
        self._exit("close")

    def _exit(self, where):
        if where == self.where:
            sys.exit(0)


@pytest.mark.parametrize("engine", ["sync", "async"])
@pytest.mark.parametrize("where", ["init", "reset", "step"])
def test_an_environment_that_exits_has_failed(folder, engine, where):
    if "Exits-v0" not in gym.registry:
        gym.register("Exits-v0", Exits, max_episode_steps=5)
    line = ["env=Exits-v0", f"env.engine={engine}", "iterations=1", "batch_size=2"]
    error = ConfigError if where == "init" else EnvironmentFailed
    said = "SystemExit" if (engine, where) != ("async", "step") else "SystemExit|process ended"
    with pytest.raises(error, match=said):
        pg.train(*line, env__kwargs={"where": where})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pg.train(*line, env__kwargs={"where": "close"}, dir="closes")


def test_a_part_of_ones_own_that_exits_has_failed(folder):
    with pytest.raises(PartFailed, match="SystemExit"):
        pg.train(*SHORT, by(lambda iteration, metrics: sys.exit(0)))


def test_what_has_no_effect_is_a_warning(folder):
    with pytest.warns(UserWarning, match=r"^estimator\.lam=0\.9 has no effect: ") as told:
        pg.train(*SHORT, estimator__lam=0.9)
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pg.train(*SHORT, dir="fine")


def test_settings_may_be_what_python_has(folder):
    run = pg.train(
        "env=Pendulum-v1", "method=none", dir=folder / "here", iterations=np.int64(2),
        batch_size=2, optimizer={"lr": np.float32(0.25)}, policy={"hidden": (4, 4)},
        env={"max_episode_steps": 7, "kwargs": {"g": 9.0}},
    )  # fmt: skip
    assert run.path == folder / "here"
    told = run.config
    assert told["optimizer"]["lr"] == 0.25
    assert told["policy"]["hidden"] == [4, 4]
    assert told["env"]["kwargs"] == {"g": 9.0}
    assert pg.Run(str(run.path)) == run
    swept = pg.train("-m", *SHORT, "seed=0,1", dir="swept")
    assert {one.path.parent for one in swept} == {folder / "swept"}
    with pytest.raises(ConfigError, match="seed=object: a number"):
        pg.train(seed=object())
    with pytest.raises(ConfigError, match="path=nowhere: no run there"):
        pg.Run("nowhere")
    place = pg.report(run, out="told", threshold=-1e6, unfinished=True)
    assert (place / "report.html").exists()


def test_a_policy_that_is_played_finds_its_own_program(folder):
    net = torch.nn.Linear(4, 2)
    threads = []

    def act(obs):
        threads.append(torch.get_default_dtype())
        os.environ["SET_BY_ACT"] = "1"
        return net(torch.tensor(obs, dtype=torch.float32)).numpy().argmax(1)

    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            pg.play("CartPole-v1", act, episodes=2)
    finally:
        torch.set_default_dtype(torch.float32)
    assert set(threads) == {torch.float64}
    assert os.environ.pop("SET_BY_ACT") == "1"
