"""Checkpoints: named arrays and a little JSON in one `.npz`, without pickle."""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

from pgcli.errors import ConfigError, NoCheckpoint, RunDirectoryError
from pgcli.machine import memory
from pgcli.runs.directory import write_atomically
from pgcli.settings.schema import BEST, Role, TrainConfig, before, flat, having, role_of

META = "meta.json"
# What later iterations of a run depend on beside its arrays; a resumed run keeps the one it has.
# 1: no number saved; slots are seeded by 32 bits each; steps that a step quota throws away are not
#    counted; all seeds share one budget, of the one with fewest steps.
FORMAT = 2
UNREADABLE = (
    OSError, ValueError, KeyError, TypeError, RuntimeError, EOFError, MemoryError,
    zipfile.BadZipFile, zlib.error, NotImplementedError,
)  # fmt: skip
# What a policy is, beside its parameters.
SAME_POLICY = (
    "env.id",
    "env.kwargs",
    "env.wrappers",
    "policy.hidden",
    "policy.activation",
    "policy.bias",
    "policy.normalize_obs",
    "policy.squash",
    "policy.state_std",
    "policy.min_std",
    "policy.max_std",
)
MOST_ORDERS = 6  # arguments of an environment in as many orders: 720
MAY_CHANGE = (Role.BUDGET, Role.BOOKKEEPING)  # on resume
BELOW_BEST = f"{BEST}/"  # the arrays of the best policies so far, beside the state


@dataclass(frozen=True)
class Checkpoint:
    """The state after `iteration` iterations; of the best policies, the newest's."""

    iteration: int
    arrays: dict[str, np.ndarray]
    meta: dict[str, Any]
    damage: str = ""  # why newer ones were passed over, if any were

    @property
    def format(self) -> int:
        """By whose rules the run goes on: see FORMAT."""
        return int(self.meta.get("format", 1))


def save(
    run: Path, iteration: int, arrays: dict[str, np.ndarray], meta: dict[str, Any], keep: int | None
) -> None:
    """Write `<run>/checkpoint/<iteration>.npz` in one piece; drop all but the newest `keep`.

    And `best.npz`, where the state holds policies that were the best and each seed has one.
    """
    _write(_path(run, iteration), arrays, meta)
    if best := best_of(arrays):
        _write(_path(run, BEST), best, meta)
    if keep is not None:
        # Whatever is newer was passed over as damaged and must not displace this one.
        for old in [i for i in iterations(run) if i <= iteration][:-keep]:
            _path(run, old).unlink(missing_ok=True)


def _write(path: Path, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    # Names go in as they are: as keyword arguments, "file" would clash.
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(META, json.dumps({"arrays": list(arrays), "meta": meta}))
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as entry:
                np.lib.format.write_array(entry, np.asarray(array), allow_pickle=False)
    write_atomically(path, buffer.getvalue())


def best_of(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The best policies within a state, by their own names; nothing until each seed has one."""
    best = {k.removeprefix(BELOW_BEST): x for k, x in arrays.items() if k.startswith(BELOW_BEST)}
    return best if best and best["iteration"].all() else {}


def load(run: Path, iteration: int | str | None = None) -> Checkpoint:
    """The checkpoint of that iteration, or the newest that can be read; else NoCheckpoint.

    BEST: the policies that did best in the evaluations of `pg train eval.every=...`, each seed's
    own; they stand alone there, for nothing can go on from them.
    """
    saved = iterations(run)
    if iteration is not None and saved and iteration not in saved:
        there = ", ".join(map(str, saved))
        if iteration != BEST:
            raise NoCheckpoint(f"{run} has no checkpoint of iteration {iteration}; saved: {there}")
        if not _path(run, BEST).exists():
            text = "no best checkpoint, which pg train eval.every=... keeps"
            raise NoCheckpoint(f"{run} has {text}; saved: {there}")
    candidates: list[Any] = list(saved[::-1]) if iteration is None else [iteration]
    damage: list[str] = []
    sick: Checkpoint | None = None  # the newest whose policy is none, where no other is better
    for number in candidates:
        path = _path(run, number)
        try:
            found = _read(path, number, "; ".join(damage))
        except UNREADABLE as error:
            damage.append(f"{path}: {error}")
            continue
        if iteration is not None or np.isfinite(found.arrays.get("theta", 0.0)).all():
            return found
        sick = sick or found
        damage.append(f"{path}: its policy is not finite")
    if sick is not None:
        return sick
    raise NoCheckpoint("; ".join([f"{run} has no usable checkpoint", *damage]))


def load_for(run: Path, config: TrainConfig) -> Checkpoint:
    """The newest usable checkpoint, if `config` may continue it; else RunDirectoryError.

    ConfigError where it asks for fewer iterations than there are.
    """
    checkpoint = load(run)
    if checkpoint.format > FORMAT:
        raise RunDirectoryError(f"resume={run}: a newer version of pg has written that run")
    old, new = _settings(checkpoint), fingerprints(config)
    differ = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    if differ:
        raise RunDirectoryError(
            f"resume={run}: the run there was started with another {', '.join(differ)}; "
            f"only {', '.join(having(*MAY_CHANGE))} may change"
        )
    if config.iterations is not None and config.iterations < checkpoint.iteration:
        done = f"that run has done {checkpoint.iteration} iterations: as many, or more"
        raise ConfigError("iterations", config.iterations, done)
    return checkpoint


def _settings(checkpoint: Checkpoint) -> dict[str, str]:
    """Fingerprints of what it was made with, also of settings that came later."""
    later = {k: _digest(x) for k, x in before(TrainConfig).items() if role_of(k) not in MAY_CHANGE}
    return {**later, **checkpoint.meta["settings"]}


def policy(
    key: str,
    run: str,
    checkpoint: Checkpoint,
    config: Any,
    spaces: dict[str, str],
    width: int,
    elsewhere: bool = False,
) -> np.ndarray:
    """theta [S, P] as saved there, for a policy of `width` = P parameters between these spaces.

    ConfigError where the one saved there is another: of another kind, for other spaces, for an
    environment made otherwise (unless it may go `elsewhere`), or of another size.
    """
    same = [name for name in SAME_POLICY if not (elsewhere and name.startswith("env."))]
    if config.policy.normalize_obs:
        same.append("policy.clip_obs")
    differ = others(checkpoint, config, same)
    known = checkpoint.meta.get("spaces", spaces)  # none is noted in older ones
    differ += [
        f"{name} space ({known.get(name)}, here {here})"
        for name, here in spaces.items()
        if known.get(name) != here
    ]
    theta = checkpoint.arrays["theta"]
    if theta.shape[1:] != (width,):
        shape = " × ".join(map(str, theta.shape[1:]))
        differ.append(f"number of parameters ({shape}, here {width})")
    if differ:
        raise ConfigError(key, run, f"that run has another {', '.join(differ)}")
    return theta


def others(checkpoint: Checkpoint, config: Any, keys: Iterable[str]) -> list[str]:
    """Those of the settings `keys` that the run of a checkpoint has otherwise."""
    old = _settings(checkpoint)
    return [key for key in keys if not _alike(old.get(key), config, key)]


def _alike(old: str | None, config: Any, name: str) -> bool:
    """Whether a digest is of this setting, in whichever order a dictionary was typed."""
    value = flat(config)[name]
    if not isinstance(value, dict) or len(value) > MOST_ORDERS:
        return old == _digest(value)
    return any(old == _digest(dict(items)) for items in permutations(value.items()))


def fingerprints(config: Any) -> dict[str, str]:
    """A digest of each setting that a resumed run must share: comparable, yet no secret leaks."""
    return {
        key: _digest(value) for key, value in flat(config).items() if role_of(key) not in MAY_CHANGE
    }


def _digest(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:12]


def iterations(run: Path) -> list[int]:
    """The iterations that are saved, in order."""
    files = (run / "checkpoint").glob("*.npz")
    numbers = [int(path.stem) for path in files if path.stem.isdecimal() and path.stem.isascii()]
    return sorted(number for number in numbers if _path(run, number).is_file())


def _path(run: Path, iteration: int | str) -> Path:
    name = iteration if isinstance(iteration, str) else f"{iteration:08d}"
    return run / "checkpoint" / f"{name}.npz"


def _read(path: Path, iteration: int | str, damage: str) -> Checkpoint:
    if not path.is_file():  # a pipe would be waited for
        raise OSError("no regular file")
    arrays: dict[str, np.ndarray] = {}
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > memory.total():
            raise ValueError("larger than this machine's memory")
        index = json.loads(archive.read(META))
        if not (isinstance(index, dict) and isinstance(index.get("meta"), dict)):
            raise ValueError(f"{META} is not what pg writes")
        if not isinstance(index["meta"].get("settings"), dict):
            raise ValueError(f"{META} tells no settings")
        for name in index["arrays"]:
            arrays[name] = _array(archive.read(f"{name}.npy"))  # verifies the entry's checksum
    number = int(arrays["iteration"].max()) if isinstance(iteration, str) else iteration
    return Checkpoint(number, arrays, index["meta"], damage)


def _array(content: bytes) -> np.ndarray:
    """Of numbers, and of as many as its header says."""
    entry = io.BytesIO(content)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0,
                   (2, 0): np.lib.format.read_array_header_2_0}  # fmt: skip
    shape, _, dtype = read_header[np.lib.format.read_magic(entry)](entry)
    if dtype.kind not in "biuf" or math.prod(shape) * dtype.itemsize != len(content) - entry.tell():
        raise ValueError("an array is not what its header says")
    entry.seek(0)
    array: np.ndarray = np.lib.format.read_array(entry, allow_pickle=False)
    return array
