"""What episodes come to: of one policy, and of the policies of several seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

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


def over_seeds(each: Sequence[dict[str, Any]], level: float) -> dict[str, Any]:
    """Figures of S seeds from those of each: mean and IQM of their mean returns.

    The intervals are over seeds: what another seed, trained anew, would come to.
    """
    means = np.array([one["mean"] for one in each])
    rates = [one["success_rate"] for one in each if one["success_rate"] is not None]
    return {
        "seeds": len(each),
        **_interval("mean", mean_interval(means, level)),
        **_interval("iqm", iqm_interval(means, level)),
        "length": float(np.mean([one["length"] for one in each])),
        "success_rate": float(np.mean(rates)) if rates else None,
    }


def _interval(name: str, estimate: Estimate) -> dict[str, float]:
    value, lower, upper = map(float, estimate)
    return {name: value, f"{name}_lo": lower, f"{name}_hi": upper}
