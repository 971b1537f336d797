"""Videos show an episode that was evaluated."""

import json

import numpy as np
import pytest
from command_line import pg

from pgcli.evaluation.video import chosen
from pgcli.settings.schema import VideoEpisode


def test_which_episode_is_shown():
    returns = np.array([[5.0, 1.0, 4.0], [2.0, 5.0, 3.0]])
    assert chosen(VideoEpisode.worst, returns) == (0, 1)
    assert chosen(VideoEpisode.best, returns) == (0, 0)  # the first of equals
    assert chosen(VideoEpisode.median, returns) == (1, 2)  # the lower of two
    assert chosen(VideoEpisode.median, np.array([[7.0]])) == (0, 0)


@pytest.fixture(scope="module")
def user(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("user")
    line = ["env=CartPole-v1", "estimator=rtg", "seeds=2", "iterations=5", "hydra.run.dir=r"]
    assert pg("train", *line, cwd=cwd).returncode == 0
    return cwd


@pytest.mark.parametrize("which", ["median", "best"])
def test_a_gif_is_of_that_episode(which, user):
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("pygame")
    line = ["checkpoint=r", "episodes=6", "video=gif", f"video_episode={which}"]
    done = pg("eval", *line, f"hydra.run.dir={which}", cwd=user)
    assert done.returncode == 0, done.stderr
    assert "played again" not in done.stdout
    (run,) = json.loads((user / which / "eval.json").read_text())["runs"]
    film = run["video"]
    assert film["return"] == film["evaluated_return"] == film["length"]
    every = [x for seed in run["seeds"] for x in seed["greedy"]["returns"]]
    assert film["return"] == (max(every) if which == "best" else sorted(every)[5])
    with image.open(user / which / "video.gif") as gif:
        shown = 0
        for i in range(gif.n_frames):  # what does not change is one frame for longer
            gif.seek(i)
            shown += gif.info["duration"]
        assert shown == 40 * -(-(film["length"] + 1) // 2)  # of 50 a second every other
        gif.seek(0)
        first = np.asarray(gif.convert("RGB"))
        gif.seek(gif.n_frames - 1)
        last = np.asarray(gif.convert("RGB"))
    assert first.shape[1] == 360
    assert (first != last).any()
    assert len(np.unique(first.reshape(-1, 3), axis=0)) > 2  # not blank


@pytest.mark.slow
def test_an_mp4_too(user):
    pytest.importorskip("imageio")
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    pytest.importorskip("pygame")
    line = ["checkpoint=r", "episodes=2", "video=mp4", "hydra.run.dir=m"]
    assert pg("eval", *line, cwd=user).returncode == 0
    (run,) = json.loads((user / "m" / "eval.json").read_text())["runs"]
    frames, _ = ffmpeg.count_frames_and_secs(str(user / "m" / "video.mp4"))
    assert abs(frames - run["video"]["length"] - 1) <= 1


def test_what_cannot_be_drawn_is_refused(user):
    done = pg("train", "env=pgcli.environments.teaching:pg/RareReward-v0", "iterations=1",
              "batch_size=2", "hydra.run.dir=rare", cwd=user)  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = pg("eval", "checkpoint=rare", "video=gif", "hydra.run.dir=no", cwd=user)
    assert done.returncode == 2
    assert "video=gif: " in done.stderr
    assert not (user / "no").exists()
