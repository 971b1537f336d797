"""Checkpoints: named arrays and a little JSON in one `.npz`, without pickle."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pgcli.config.schema import TrainConfig, flat
from pgcli.errors import ConfigError, NoCheckpoint, RunDirectoryError
from pgcli.runs.directory import write_atomically

META = "meta.json"
# What later iterations of a run depend on beside its arrays; a resumed run keeps the one it has.
# 1: no number saved; slots are seeded by 32 bits each.
FORMAT = 2
UNREADABLE = (OSError, ValueError, KeyError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error)
# What a policy is, beside its parameters.
SAME_POLICY = ("env.id", "policy.hidden", "policy.activation", "policy.bias")
BUDGET = (
    "iterations",
    "total_steps",
    "resume",
    "claims",
    "checkpoint.",
    "log.",
)  # may change on resume


@dataclass(frozen=True)
class Checkpoint:
    """The state after `iteration` iterations."""

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
    """Write `<run>/checkpoint/<iteration>.npz` in one piece; drop all but the newest `keep`."""
    buffer = io.BytesIO()
    # Names go in as they are: as keyword arguments, "file" would clash.
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(META, json.dumps({"arrays": list(arrays), "meta": meta}))
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as entry:
                np.lib.format.write_array(entry, np.asarray(array), allow_pickle=False)
    write_atomically(_path(run, iteration), buffer.getvalue())
    if keep is not None:
        # Whatever is newer was passed over as damaged and must not displace this one.
        for old in [i for i in iterations(run) if i <= iteration][:-keep]:
            _path(run, old).unlink(missing_ok=True)


def load(run: Path, iteration: int | None = None) -> Checkpoint:
    """The checkpoint of that iteration, or the newest that can be read; else NoCheckpoint."""
    wanted = iterations(run)[::-1] if iteration is None else [iteration]
    damage: list[str] = []
    for number in wanted:
        path = _path(run, number)
        try:
            return _read(path, number, "; ".join(damage))
        except UNREADABLE as error:
            damage.append(f"{path}: {error}")
    raise NoCheckpoint("; ".join([f"{run} has no usable checkpoint", *damage]))


def load_for(run: Path, config: TrainConfig) -> Checkpoint:
    """The newest usable checkpoint, if `config` may continue it; else RunDirectoryError."""
    found = load(run)
    if found.format > FORMAT:
        raise RunDirectoryError(f"resume={run}: a newer version of pg has written that run")
    old, new = found.meta["settings"], fingerprints(config)
    differ = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    if differ:
        raise RunDirectoryError(
            f"resume={run}: the run there was started with another {', '.join(differ)}; "
            "only iterations, total_steps, checkpoint.* and log.* may change"
        )
    return found


def check_policy(key: str, run: str, found: Checkpoint, config: Any) -> None:
    """ConfigError where the policy saved there is of another kind, or for another environment."""
    old, new = found.meta["settings"], fingerprints(config)
    differ = [name for name in SAME_POLICY if old.get(name) != new.get(name)]
    if differ:
        raise ConfigError(key, run, f"that run has another {', '.join(differ)}")


def fingerprints(config: Any) -> dict[str, str]:
    """A digest of each setting that a resumed run must share: comparable, yet no secret leaks."""
    return {
        key: hashlib.sha256(repr(value).encode()).hexdigest()[:12]
        for key, value in flat(config).items()
        if not key.startswith(BUDGET)
    }


def iterations(run: Path) -> list[int]:
    """The iterations that are saved, in order."""
    found = (run / "checkpoint").glob("*.npz")
    return sorted(int(path.stem) for path in found if path.stem.isdigit())


def _path(run: Path, iteration: int) -> Path:
    return run / "checkpoint" / f"{iteration:08d}.npz"


def _read(path: Path, iteration: int, damage: str) -> Checkpoint:
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        index = json.loads(archive.read(META))
        for name in index["arrays"]:
            entry = io.BytesIO(archive.read(f"{name}.npy"))  # verifies the entry's checksum
            arrays[name] = np.lib.format.read_array(entry, allow_pickle=False)
    return Checkpoint(iteration, arrays, index["meta"], damage)
