"""A run from the outside: its lock, its records, its checkpoints, its signals and its end."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from pgcli.errors import PartFailed, PgError, RunDirectoryError, Stopped
from pgcli.machine.signals import Shield
from pgcli.runs import checkpoint, saved, summary, tags
from pgcli.runs.directory import lock
from pgcli.runs.logbook import Logbook, Metrics, Places
from pgcli.runs.progress import Progress, fitting, short, table
from pgcli.runs.provenance import provenance
from pgcli.runs.recorder import OwnRecorder
from pgcli.settings.schema import Schedule, TrainConfig, flat, role_of
from pgcli.training.callback import Callback
from pgcli.training.counts import Counters

ALIKE = {"sync", "async", "workers", "ray"}  # engines that play the same episodes

Closing = TypeVar("Closing", bound="Closeable")


class Closeable(Protocol):
    """Anything to be closed when the run ends."""

    def close(self) -> None:
        """Let go of what it holds."""
        ...


class Recorder(Protocol):
    """Where the records of a run go."""

    def write(
        self, iteration: ArrayLike, env_steps: np.ndarray, metrics: Metrics, ran: Places = None
    ) -> None:
        """Record an iteration of the seeds at the places `ran` [n]; None: of all.

        Their numbers and env_steps, of all seeds [S]; metrics [n] each.
        """
        ...

    def close(self, final: Metrics) -> None:
        """Record the final metrics [S] and end."""
        ...


class Stateful(Protocol):
    """A part of the training state."""

    def arrays(self) -> dict[str, np.ndarray]:
        """Copies of everything, by a name that no other part uses."""
        ...

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Take over what `arrays()` gave."""
        ...


class Session:
    """Holds the run directory while training; leaves a checkpoint and a summary however it ends.

    Where an older run goes on, `config` gets the limit on its iterations back.
    """

    def __init__(
        self,
        config: TrainConfig,
        directory: Path,
        seeds: Sequence[int],
        composed: str | None = None,
    ) -> None:
        """`composed`: the configuration as a command line gave it; see `saved.write_settings`."""
        self._composed = composed
        self._config, self._directory, self._seeds = config, directory, list(seeds)
        self._stack = ExitStack()
        self._parts: list[Stateful] = []
        self.format = checkpoint.FORMAT  # from `begin` on that of the run which goes on
        self._shield = Shield()  # while records are written, a signal waits
        self._begun = False
        # While records are written: the state before, and the size of metrics.csv.
        self._whole: tuple[dict[str, np.ndarray], int] | None = None
        self._callback: Callback | None = None
        self._told: OwnRecorder | None = None

    def __enter__(self) -> Session:
        self._stack.enter_context(lock(self._directory))
        self._stack.enter_context(self._shield.in_force())
        return self

    def enter(self, resource: Closing) -> Closing:
        """Close `resource` when the run ends."""
        self._stack.callback(resource.close)
        return resource

    def begin(self, counters: Counters, parts: Sequence[Stateful], facts: dict[str, Any]) -> None:
        """Restore the state where the run resumes, open the records, say what is to be known.

        `facts` go into the summary; its lists "bias" and "notices" are told to the user now.
        """
        self._counters, self._parts = counters, [counters, *parts]
        self._facts = {**facts, **provenance()}
        self._progress = Progress(self._config.log.interval)
        known = list(facts["notices"])
        if self._config.resume is not None:
            self._restore()
        elif checkpoint.iterations(self._directory) or (self._directory / "metrics.csv").exists():
            raise RunDirectoryError(f"{self._directory} holds another run")
        self._saved = counters.iteration
        self._snapshot = self._arrays()
        self._last: dict[str, np.ndarray] = {}
        settings = _settings(self._config)
        elsewhere: list[Recorder] = []
        log = self._config.log
        # First: what these refuse leaves no run.
        if (name := self._config.callback) is not None:
            self._callback = Callback(name, self._seeds, self.notice)
        if (name := log.recorder) is not None:
            told = saved.plain(self._config)
            self._told = OwnRecorder(name, self._directory, self._seeds, told)
        if (project := log.wandb) is not None:
            from pgcli.runs.wandb import WeightsAndBiases

            elsewhere.append(
                WeightsAndBiases(project, self._directory, self._seeds, settings, self.notice)
            )
        self._logbook = Logbook(
            self._directory,
            self._seeds,
            config_text=saved.write_settings(self._directory, self._config, self._composed),
            settings=saved.telling(self._directory, settings),
            resume_from=counters.done if self._config.resume is not None else None,
            each=self._config.log.seeds,
            also=tags.EVALUATED if self._config.eval.every is not None else (),
        )
        self._recorders: list[Recorder] = [self._logbook, *elsewhere]
        self._start = time.perf_counter()
        self._begun = True
        for line in summary.remarks({"bias": facts["bias"], "notices": known}):
            self._progress.say(line)

    def notice(self, text: str) -> None:
        """Tell the user once, and the summary."""
        if text not in self._facts["notices"]:
            self._facts["notices"].append(text)
            self._progress.say(f"note: {text}")

    def record(self, metrics: dict[str, np.ndarray], ran: np.ndarray) -> None:
        """Write a finished iteration of the seeds at places `ran` [n]: metrics by tag, [n] each.

        PartFailed where the user's callback or recorder raises: the iteration is kept.
        """
        counters, iteration = self._counters, self._counters.iteration
        failure = None
        if self._callback is not None:
            try:
                more = self._callback(iteration, counters.env_steps, metrics, ran)
                metrics = {**metrics, **more}
            except PartFailed as error:
                failure = error
        self._shield.up()
        if not self._last:  # what ended here before has not ended any more
            summary.remove(self._directory)
        self._whole = self._snapshot, self._logbook.size
        self._snapshot = self._arrays()
        for recorder in self._recorders:
            recorder.write(counters.done, counters.env_steps, metrics, ran)
        self._last = self._logbook.last
        spent = float(counters.spent(self._config).mean())
        self._progress.update(spent, iteration, counters.env_steps, metrics)
        if iteration % self._config.checkpoint.every == 0:
            self._save()
        self._whole = None
        self._shield.down()
        if self._told is not None:
            self._told.write(counters.done, counters.env_steps, metrics, ran)
        if failure is not None:
            raise failure
        if self.stopped is not None:
            self.notice(self.stopped)

    def goes_on(self, left: np.ndarray) -> bool:
        """Whether any seed has budget left [S], and nobody has asked for an end."""
        return bool(left.any()) and self.stopped is None

    @property
    def stopped(self) -> str | None:
        """Why the run is to end before its budget is spent; None: it is not."""
        return None if self._callback is None else self._callback.stop

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._shield.up()
        with self._stack:
            if self._begun:
                self._end(error)

    def _end(self, error: BaseException | None) -> None:
        """Keep what there is: the last whole iteration, the records and a summary."""
        if isinstance(error, KeyboardInterrupt):  # a host's; our own signals wait for the records
            error = Stopped(signal.SIGINT)
            self._take_back()
        self._counters.load(self._snapshot)
        try:
            self._save()
            for recorder in self._recorders:
                recorder.close({tags.RECENT_RETURN: self._counters.mean_return})
            self._last = self._last or self._left_unsaid()
            if error is not None or self._last:  # else the summary there is still true
                summary.write(self._directory, self._summary(error))
            if self._told is not None:
                self._told.finish(self._summary(error))
        except PgError as failure:  # a full disk must not hide why the run failed
            if error is None:
                raise
            self._progress.say(str(failure))
        finally:
            self._progress.close()
        if error is not None:
            keeps = f"{self._directory} keeps {self._saved} iterations"
            goes_on = f"; continue with: pg train resume={self._directory}"
            self._progress.say(keeps + goes_on * (self._saved > 0))
        else:
            self._progress.conclude(self._table() if self._last else "the budget is spent already")
            for line in self._best_lines():
                self._progress.conclude(line)
            self._progress.conclude(f"tensorboard --logdir {self._directory}")

    def _take_back(self) -> None:
        """Forget an iteration whose records were interrupted, unless it is saved."""
        if self._whole is None:
            return
        before, size = self._whole
        if int(self._snapshot["tally/iteration"]) not in checkpoint.iterations(self._directory):
            self._snapshot = before
            self._logbook.cut(size)

    def _left_unsaid(self) -> dict[str, np.ndarray]:
        """The last figures of a run that was killed between its last iteration and its summary."""
        said = summary.read(self._directory).get("status") == "finished"
        return {} if said else self._logbook.last

    @property
    def _budget(self) -> list[int | None]:
        return [self._config.iterations, self._config.total_steps]

    def _arrays(self) -> dict[str, np.ndarray]:
        return {key: value for part in self._parts for key, value in part.arrays().items()}

    def _save(self) -> None:
        """Save the last whole iteration, unless it is saved already."""
        iteration = int(self._snapshot["tally/iteration"])
        if iteration > self._saved:
            checkpoint.save(
                self._directory,
                iteration,
                self._snapshot,
                {
                    "format": self.format,
                    "settings": checkpoint.fingerprints(self._config),
                    "budget": self._budget,
                    "engine": self._facts["engine"],
                    "device": self._facts["device"],
                    "spaces": self._facts["spaces"],
                },
                self._config.checkpoint.keep,
            )
            self._saved = iteration

    def _restore(self) -> None:
        """Load the newest checkpoint of the run directory, if it fits this configuration."""
        ckpt = checkpoint.load_for(self._directory, self._config)
        self.format = ckpt.format
        if ckpt.format < 2:
            self._as_older(ckpt.meta["budget"])
        if ckpt.damage:
            self.notice(f"passed over {ckpt.damage}")
        changes = {"engine": "other episodes", "device": "other rounding"}
        for key, effect in changes.items():  # as auto may choose elsewhere
            now, before = self._facts[key], ckpt.meta.get(key)
            if before is not None and now != before and not {now, before} <= ALIKE:
                self.notice(f"the {key} was {before} and is {now}: {effect} from here on")
        counted = [x.get("spaces", {}).get("action") for x in (ckpt.meta, self._facts)]
        if counted[0] is not None and counted[0] != counted[1]:
            was, now = counted
            self.notice(f"the action space was {was} and is {now}: other actions from here on")
        moved = ckpt.meta["budget"] != self._budget
        schedules = {
            "learning rate": self._config.optimizer.schedule,
            "entropy coefficient": self._config.policy.entropy_schedule,
        }
        for what, schedule in schedules.items():
            if moved and schedule is not Schedule.constant:
                self.notice(f"the budget has changed, and the {what}'s schedule with it")
        try:
            for part in self._parts:
                part.load(ckpt.arrays)
        except (KeyError, ValueError) as error:
            raise RunDirectoryError(f"resume={self._directory}: {error}") from error

    def _as_older(self, budget: list[int | None]) -> None:
        """Go on by the rules of format 1, and say so where they differ from those of a new run."""
        config, begun = self._config, "begun by an earlier version of pg"
        self._counters.older = True
        if config.iterations is None and budget[0] is not None and budget[1] == config.total_steps:
            config.iterations = budget[0]  # which used to hold beside total_steps, unasked
            self.notice(f"{begun}: iterations={budget[0]} holds until total_steps is another")
        if config.batch_steps is not None:
            self.notice(f"{begun}: env_steps leaves out the steps that batch_steps throws away")
        if config.seeds > 1 and config.total_steps is not None:
            ruled = "total_steps and optimizer.schedule go"
            self.notice(f"{begun}: {ruled} by the seed with the fewest steps")

    def _summary(self, error: BaseException | None) -> dict[str, Any]:
        counters, seconds = self._counters, time.perf_counter() - self._start
        return {
            "status": "finished" if error is None else type(error).__name__,
            "reason": self.stopped if error is None else str(error),
            "iterations": int(counters.done.max()),
            "seeds": self._seeds,
            "seed_iterations": counters.done.tolist(),
            "env_steps": counters.env_steps.tolist(),
            "return_100": counters.mean_return.tolist(),
            "seconds": seconds,
            "last": {tag: value.tolist() for tag, value in self._last.items()},
            **self._best(),
            **self._facts,
        }

    def _best(self) -> dict[str, Any]:
        """What did best when it was evaluated, of each seed; nothing where nothing was."""
        found = checkpoint.best_of(self._snapshot)
        named = {name: found[name].tolist() for name in ("iteration", "return") if name in found}
        return {"best": named} if named else {}

    def _best_lines(self) -> list[str]:
        best = self._best().get("best", {"iteration": [], "return": []})
        pairs = zip(self._seeds, best["iteration"], best["return"], strict=False)
        return [
            f"best of seed {seed}: iteration {iteration}, evaluated to {short(ret)}"
            for seed, iteration, ret in pairs
        ]

    def _table(self) -> str:
        shown = (tags.NORM, tags.VARIANCE, tags.SNR, tags.ENTROPY)
        rows = [
            [str(seed), str(steps), short(ret), *(f"{self._last[t][i]:.4g}" for t in shown)]
            for i, (seed, steps, ret) in enumerate(
                zip(self._seeds, self._counters.env_steps, self._counters.mean_return, strict=True)
            )
        ]
        headers = ["seed", "env_steps", f"return (last {tags.RECENT})", *shown]
        count = fitting(headers, rows)
        return table([row[:count] for row in rows], headers[:count])


def _settings(config: TrainConfig) -> dict[str, bool | int | float | str]:
    """The settings that make a run what it is."""
    settings = {k: v for k, v in flat(config).items() if role_of(k) not in checkpoint.MAY_CHANGE}
    settings |= {f"env.kwargs.{key}": value for key, value in config.env.kwargs.items()}
    return {k: v for k, v in settings.items() if isinstance(v, (bool, int, float, str))}
