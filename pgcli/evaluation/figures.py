"""What episodes come to: of one policy, and of the policies of several seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pgcli.environments.info import logged, names
from pgcli.statistics.intervals import Estimate, iqm_interval, mean_interval


def of_episodes(
    returns: np.ndarray, length: np.ndarray, success: np.ndarray, level: float
) -> dict[str, Any]:
    """Figures of N episodes of one policy, [N] each; success NaN where nothing tells it.

    The intervals are over episodes: how far N of them tell what this policy would come to.
    """
    told = ~np.isnan(success)
    return {
        "episodes": len(returns),
        **_interval("mean", mean_interval(returns, level)),
        **_interval("iqm", iqm_interval(returns, level)),
        "std": float(returns.std(ddof=1)),
        "min": float(returns.min()),
        "median": float(np.median(returns)),
        "max": float(returns.max()),
        "length": float(length.mean()),
        "success_rate": float(success[told].mean()) if told.any() else None,
        "returns": returns.tolist(),
        "lengths": length.tolist(),
    }


def of_info(entries: Sequence[str], info: np.ndarray) -> dict[str, float | None]:
    """What `env.info` asks for, from info [N, 3, K] of N episodes; None where none has it.

    mean: over the steps at which an entry is there; end: of its values at the last steps; sum: the
    mean over episodes of its sum. As `training.metrics.info` has it of a batch.
    """
    told: dict[str, float | None] = {}
    known = names(entries)
    for one in logged(entries):
        total, count, last = info[:, :, known.index(one.name)].T
        if one.way == "mean":
            value = total.sum() / count.sum() if count.any() else np.nan
        elif one.way == "end":
            there = last[~np.isnan(last)]
            value = there.mean() if len(there) else np.nan
        else:
            value = total.mean()
        told[one.text] = None if np.isnan(value) else float(value)
    return told


def over_seeds(each: Sequence[dict[str, Any]], level: float) -> dict[str, Any]:
    """Figures of S seeds from those of each: mean and IQM of their mean returns.

    The intervals are over seeds: what another seed, trained anew, would come to.
    """
    means = np.array([one["mean"] for one in each])
    rates = [one["success_rate"] for one in each if one["success_rate"] is not None]
    entries = each[0].get("info", {})
    there = {name: [x for one in each if (x := one["info"][name]) is not None] for name in entries}
    return {
        "seeds": len(each),
        **_interval("mean", mean_interval(means, level)),
        **_interval("iqm", iqm_interval(means, level)),
        "length": float(np.mean([one["length"] for one in each])),
        "success_rate": float(np.mean(rates)) if rates else None,
        "info": {name: float(np.mean(x)) if x else None for name, x in there.items()},
    }


def _interval(name: str, estimate: Estimate) -> dict[str, float]:
    value, lower, upper = map(float, estimate)
    return {name: value, f"{name}_lo": lower, f"{name}_hi": upper}
