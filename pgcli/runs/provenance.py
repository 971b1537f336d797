"""What a run was made with, and where: what has to be the same for the same bits."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pgcli.machine.cores import cores
from pgcli.version import __version__

PACKAGES = (
    "torch", "numpy", "gymnasium", "hydra-core", "tensorboard",
    "numba", "mujoco", "box2d-py", "box2d", "envpool", "ale-py",
)  # fmt: skip
PATIENCE = 5.0  # seconds for git to answer

_typed: ContextVar[list[str] | None] = ContextVar("typed", default=None)


@contextmanager
def typed(words: Sequence[str]) -> Iterator[None]:
    """What is made in here was asked for by this command line."""
    token = _typed.set(list(words))
    try:
        yield
    finally:
        _typed.reset(token)


def provenance() -> dict[str, Any]:
    """The versions, the cores that pg may use, the command line, the state of the folder."""
    return {
        "versions": {
            "python": platform.python_version(), "policygrad": __version__, **_versions(),
        },
        "platform": platform.platform(),
        "processor": processor(),
        "cores": cores(),
        "git": commit(),
        "command": _typed.get() or sys.argv,
    }  # fmt: skip


@cache
def processor() -> str:
    """What this machine calls its processor."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def commit(folder: Path | None = None) -> dict[str, Any] | None:
    """The git commit of a folder, else the current one, and whether tracked files differ from it.

    None where there is no git, no repository or no commit.
    """
    try:
        head = _git("rev-parse", "--verify", "HEAD", folder=folder)
        changes = _git("status", "--porcelain", "--untracked-files=no", folder=folder)
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": head.strip(), "dirty": bool(changes.strip())}


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What of two provenances differs that may change the bits, in a line each."""
    lines = []
    before, here = _dict(then.get("versions")), _dict(now.get("versions"))
    moved = [
        f"{name} {before.get(name, 'absent')} (here {here.get(name, 'absent')})"
        for name in (*before, *(sorted(here.keys() - before) if "processor" in then else ()))
        if before.get(name) != here.get(name)
    ]
    if moved:
        lines.append("made with " + ", ".join(moved))
    if then.get("processor") and then["processor"] != now.get("processor"):
        lines.append(f"made on {then['processor']} (here {now.get('processor')}): it may round")
        lines[-1] += " otherwise"
    git, head = _dict(then.get("git")), _dict(now.get("git"))
    if git and git.get("commit") != head.get("commit"):
        lines.append(f"its folder was at commit {git.get('commit')}")
    if git.get("dirty"):
        lines.append("its folder had changes that no commit holds")
    return lines


def _dict(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _git(*words: str, folder: Path | None) -> str:
    return subprocess.run(
        ["git", *words],
        cwd=folder,
        env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},  # only looks
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    ).stdout


def _versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions
