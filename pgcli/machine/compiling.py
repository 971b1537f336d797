"""How numba (extra `fast`) compiles what is compiled, and keeps it on disk.

Its cache notices changes of a compiled function's own file only, so no compiled function calls one
of another file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit

from pgcli.errors import Stopped
from pgcli.machine.signals import noted

Function = TypeVar("Function", bound=Callable[..., Any])
REORDERED = {"reassoc", "contract", "arcp", "nsz"}  # what LLVM may do to arithmetic


def compiled(function: Function) -> Function:
    """Compile, every operation as it is written."""
    return _jitted(function)


def inlined(function: Function) -> Function:
    """The same, without a call where it is used."""
    return _jitted(function, forceinline=True)


def reordered(function: Function) -> Function:
    """Compile where the order of a sum does not matter, so that it runs on whole vectors."""
    return _jitted(function, fastmath=REORDERED)


def _jitted(function: Function, **options: Any) -> Function:
    """Kept on disk, where there is a place for it: else each process compiles anew."""
    common = {"nogil": True, "error_model": "numpy", **options}
    try:
        return cast(Function, njit(function, cache=True, **common))
    except RuntimeError:  # a read-only installation, and no home to write to
        return cast(Function, njit(function, **common))


@contextmanager
def undisturbed(*dispatchers: Any) -> Iterator[None]:
    """A signal that comes while these are compiled for the first time is raised afterwards.

    Raised within LLVM's callbacks it would be lost, and the code with it.
    """
    if all(one.signatures for one in dispatchers):
        yield
        return
    with noted() as signums:
        yield
    if signums:
        raise Stopped(signums[0])


def forget(*dispatchers: Any) -> None:
    """Take what an earlier version left on disk away: numba reads it before it looks at its age."""
    for each in dispatchers:
        file = Path(each.py_func.__code__.co_filename).stem
        for kept in Path(each.stats.cache_path).glob(f"{file}.*.nb[ic]"):
            kept.unlink(missing_ok=True)


def lambert(order: int) -> tuple[tuple[np.float32, ...], tuple[np.float32, ...]]:
    """Coefficients in x² of P and Q in tanh x ≈ x P(x²) / Q(x²), the highest power first.

    Lambert's continued fraction x/(1 + x²/(3 + x²/(5 + …))), cut after `order` terms.
    """
    x2 = np.polynomial.Polynomial([0, 1])
    before, now = [np.polynomial.Polynomial([c]) for c in (0, 1)], [x2**0, x2**0]
    for k in range(2, order + 1):
        before, now = now, [(2 * k - 1) * a + x2 * b for a, b in zip(now, before, strict=True)]
    scale = now[1].coef[0]
    p, q = (tuple(np.float32(c / scale) for c in poly.coef[::-1]) for poly in now)
    return p, q
