"""An episode as a video: played again from its seed, in an environment that draws itself."""

from __future__ import annotations

import importlib.util
import io
import math
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pgcli.collection.play import Played, replay
from pgcli.environments.make import spec_of
from pgcli.environments.vector import SyncEngine
from pgcli.errors import ConfigError, EnvironmentFailed, StorageFailed
from pgcli.evaluation.subject import Subject
from pgcli.policies.actor import GreedyActor
from pgcli.runs.directory import write_atomically
from pgcli.settings.schema import Engine as EngineName
from pgcli.settings.schema import EnvConfig, VideoEpisode, VideoFormat

Array = np.ndarray

REPEATABLE = ("auto", "compiled", "sync", "async")  # seed each copy by itself
FASTEST = 25  # frames a second of a GIF: viewers slow faster ones down
WIDEST = 360  # pixels of a GIF, which is not compressed as a film is
MUJOCO = "gymnasium.envs.mujoco"
FRAMES = 30  # a second, where an environment does not say


def check(form: VideoFormat) -> None:
    """Raise ConfigError where the extra that writes it is missing."""
    if form is VideoFormat.mp4 and not _there("imageio", "imageio_ffmpeg"):
        raise ConfigError("video", form, "needs the extra video; gif does not")


def check_environment(form: VideoFormat, env: EnvConfig) -> None:
    """Raise ConfigError where its episodes cannot be drawn, or not be played again."""
    headless()
    if env.engine.name not in REPEATABLE:
        allowed = f"env.engine={env.engine.name} cannot play one of its episodes again: "
        raise ConfigError("video", form, allowed + "env.engine=" + " or ".join(REPEATABLE))
    try:
        engine = SyncEngine(_drawing(env), 1)
    except EnvironmentFailed as error:
        raise ConfigError("video", form, f"cannot be drawn: {error}") from error
    try:
        engine.reset([0])
        frame = engine.frame(0)
    except (EnvironmentFailed, ImportError) as error:
        hint = "; MUJOCO_GL=egl or osmesa may help" if "GL" in str(error) else ""
        raise ConfigError("video", form, f"cannot be drawn: {error}{hint}") from error
    finally:
        engine.close()
    if np.ndim(frame) != 3:
        allowed = f"{env.id} gives no picture with render_mode=rgb_array"
        raise ConfigError("video", form, allowed)


def headless() -> None:
    """Let libraries draw where there is no screen, unless somebody has said how."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    if sys.platform.startswith("linux") and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        os.environ.setdefault("MUJOCO_GL", "egl")
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


def record(
    form: VideoFormat,
    which: VideoEpisode,
    place: Path,
    subject: Subject,
    env: EnvConfig,
    slots: int,
    iteration: int,
    played: Played,
) -> dict[str, Any]:
    """Write `<place>/video.<form>` of one of the greedy episodes that were `played`; its facts."""
    seed, episode = chosen(which, played.returns)
    at = (seed, int(played.slot[seed, episode]), int(played.turn[seed, episode]))
    engine = SyncEngine(_drawing(env), 1)
    path, fps = place / f"video.{form.name}", _fps(engine)
    try:
        film: _Gif | _Mp4
        film = _Gif(path, fps) if form is VideoFormat.gif else _Mp4(path, fps)

        def watch(left: Array) -> None:
            if left[0] == 1:  # the one that is meant
                film.add(lambda: np.asarray(engine.frame(0), np.uint8))

        seeds = subject.seeds
        actor = GreedyActor(subject.policy, subject.theta, seeds, iteration, slots)
        try:
            ret, length = replay(engine, actor, seeds, iteration, slots, at, watch)
        except BaseException:
            film.drop()
            raise
        film.close()
    finally:
        engine.close()
    return {
        "file": path.name,
        "seed": seeds[seed],
        "episode": episode,
        "return": ret,
        "length": length,
        "evaluated_return": float(played.returns[seed, episode]),
    }


def chosen(which: VideoEpisode, returns: Array) -> tuple[int, int]:
    """Place of the seed and of the episode whose return [S, N] is the median, best or worst.

    The lower of two medians, the first of equals.
    """
    order = np.argsort(returns, axis=None, kind="stable")
    last = returns.size - 1
    rank = {VideoEpisode.worst: 0, VideoEpisode.median: last // 2, VideoEpisode.best: last}[which]
    first = np.flatnonzero(returns == returns.flat[order[rank]])[0]
    seed, episode = divmod(int(first), returns.shape[1])
    return seed, episode


def _drawing(env: EnvConfig) -> EnvConfig:
    kwargs = {**env.kwargs, "render_mode": "rgb_array"}
    if str(spec_of(env.id).entry_point).startswith(MUJOCO) and "camera_id" not in kwargs:
        kwargs.setdefault("camera_name", "track")  # where there is one; else who runs runs away
    return replace(env, kwargs=kwargs, engine=EngineName["sync"], num_envs=None)


def _fps(engine: SyncEngine) -> float:
    return float(engine.metadata.get("render_fps") or FRAMES)


def _there(*modules: str) -> bool:
    return all(importlib.util.find_spec(module) is not None for module in modules)


class _Gif:
    """Frames as they come, small, with a palette each."""

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._every = path, math.ceil(fps / FASTEST)
        self._delay = 10 * round(100 * self._every / fps)  # milliseconds, whole hundredths
        self._count = 0
        self._frames: list[Any] = []

    def add(self, frame: Callable[[], Array]) -> None:
        """Take a frame [height, width, 3] in, or leave it undrawn."""
        from PIL import Image

        if self._count % self._every == 0:
            image = Image.fromarray(frame())
            if image.width > WIDEST:
                image = image.resize((WIDEST, round(image.height * WIDEST / image.width)))
            self._frames.append(image.quantize(64, dither=Image.Dither.NONE))
        self._count += 1

    def drop(self) -> None:
        """Leave nothing."""

    def close(self) -> None:
        """Write the file."""
        buffer = io.BytesIO()
        first, *rest = self._frames
        first.save(buffer, "GIF", save_all=True, append_images=rest, duration=self._delay, loop=0)
        write_atomically(self._path, buffer.getvalue())


class _Mp4:
    """Frames as they come, to an encoder that writes beside the file until it is whole."""

    def __init__(self, path: Path, fps: float) -> None:
        import imageio.v2 as imageio

        self._path, self._part = path, path.with_name(f".{path.name}.{os.getpid()}.mp4")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageFailed(f"{path}: {error.strerror}") from error
        open_: Callable[..., Any] = imageio.get_writer
        self._writer = open_(self._part, fps=fps, macro_block_size=1)

    def add(self, frame: Callable[[], Array]) -> None:
        """Take a frame [height, width, 3] in; the codec wants even sides."""
        picture = frame()
        odd = [(0, side % 2) for side in picture.shape[:2]]
        whole = np.pad(picture, [*odd, (0, 0)], "edge")
        self._write(lambda: self._writer.append_data(whole))

    def drop(self) -> None:
        """Leave nothing."""
        self._writer.close()
        self._part.unlink(missing_ok=True)

    def close(self) -> None:
        """Let the file have its name."""
        self._write(self._writer.close)
        self._write(lambda: os.replace(self._part, self._path))

    def _write(self, work: Callable[[], Any]) -> None:
        try:
            work()
        except OSError as error:
            self._part.unlink(missing_ok=True)
            raise StorageFailed(f"{self._path}: {error.strerror or error}") from error
