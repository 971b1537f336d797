"""Every combination of an estimator's parts that is not refused."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from pgcli.estimators.baselines import BASELINES
from pgcli.estimators.importance import IMPORTANCES
from pgcli.estimators.phi import PHIS
from pgcli.settings.registry import Registry
from pgcli.settings.schema import NONE, EstimatorConfig

PARTS: dict[str, Registry[Any]] = {"phi": PHIS, "baseline": BASELINES, "importance": IMPORTANCES}
FLAGS = ("discount_state", "normalize", "bootstrap", "self_normalize")
PLAIN = (NONE, "own_mean")  # where a special case is one for all baselines


class Case(NamedTuple):
    """An estimator, and whether its data are another policy's."""

    config: EstimatorConfig
    off_policy: bool

    @property
    def title(self) -> str:
        """In a line: its settings `estimator.<key>`, those alone that can differ."""
        return " ".join(self.words())

    def words(self, besides: str = "") -> list[str]:
        """The same, word by word, but for the part `besides`."""
        config = self.config
        names = {part: getattr(config, part) for part in PARTS if part != besides}
        words = [f"{part}={name}" for part, name in names.items()]
        words.append(f"gamma={config.gamma:g}")
        words += [name for name in FLAGS if getattr(config, name)]
        if config.phi == "gae":
            words.append(f"lam={config.lam:g}")
        if config.phi == "n_step":
            words.append(f"n={config.n}")
        if config.clip_ratio is not None:
            words.append(f"clip_ratio={config.clip_ratio:g}")
        return [*words, *(["off-policy"] if self.off_policy else [])]


def combinations(
    phis: Iterable[str], baselines: Iterable[str], importances: Iterable[str]
) -> Iterator[Case]:
    """All of these parts, with each of the switches, on-policy and off-policy."""
    switches = itertools.product(phis, baselines, importances, (False, True), (False, True))
    for name, base, form, by_state, off in switches:
        phi, baseline, importance = PHIS.find(name), BASELINES.find(base), IMPORTANCES.find(form)
        if phi.subtracts_value and base != NONE:
            continue  # refused
        if form != NONE and not off:
            continue  # the weights are 1
        if importance.terms and not phi.stream:
            continue  # refused
        options: list[dict[str, Any]] = [{}, {"gamma": 0.9}]
        if base in PLAIN:
            options += [{"gamma": 0.0}]
        if name == "gae":
            options += [{"lam": 0.0}, {"lam": 1.0}, {"lam": 1.0, "bootstrap": True}]
        if name == "n_step":
            options += [{"n": n, "bootstrap": on} for n in (2, 3) for on in (False, True)]
        if form != NONE and name in ("reward_to_go", "total_return"):
            options += [{"self_normalize": True}, {"clip_ratio": 1.1}]
        if not baseline.fitted and form == NONE:
            options += [{"normalize": True}]
        for option in options:
            given = {
                "gamma": 1.0, "lam": 0.7, "normalize": False, "scale_rewards": False,
                "exact": False,
                "bootstrap": False, "n": 1,
                "constant": 1.3, "self_normalize": False, "clip_ratio": None, **option,
            }  # fmt: skip
            yield Case(EstimatorConfig(name, base, form, discount_state=by_state, **given), off)
