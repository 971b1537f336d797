"""The estimators of the textbook on a batch of one's own."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from pgcli.errors import ConfigError
from pgcli.estimators import estimator
from pgcli.estimators.baselines import baseline
from pgcli.estimators.bias import Circumstances, bias_notes
from pgcli.estimators.phi import Episodes
from pgcli.estimators.unused import unused
from pgcli.gradients.control import controlled, less_in_time

GIVEN = {"value": "values", "q": "q_values", "linear": "values"}  # by the critic that is asked for


class Estimate(NamedTuple):
    """What an estimator makes of N rows of at most T steps."""

    weights: np.ndarray  # [N, T] float64: on the score of each step, zero where padded
    gradient: np.ndarray | None  # [P]: mean over rows of Σ_t weight · score; None without them
    per_episode: np.ndarray | None  # [N, P]: of each row
    variance: float | None  # tr Σ̂ / N of the gradient, by the spread of the rows
    notes: list[str]  # sources of bias


def estimate(
    name: str,
    rewards: Sequence[ArrayLike] | ArrayLike,
    *,
    values: Any = None,
    next_values: Any = None,
    final_values: Any = None,
    q_values: Any = None,
    log_ratios: Any = None,
    log_probs: Any = None,
    behaviour_log_probs: Any = None,
    terminated: Any = None,
    truncated: Any = None,
    scores: Any = None,
    **settings: Any,
) -> Estimate:
    """The weights of a preset of `conf/estimator/` on N rows; settings: those of `estimator.`.

    name: `gae`, `rtg_mean`, ... rewards: N arrays [T_n], or one [N, T]; arrays, lists or tensors.
    Without flags by step a row is one episode, which has ended; `truncated` [N]: by a time limit.
    With `terminated` and `truncated` by step, in the form of the rewards, an episode ends where
    either is true, and a row that does not end with one goes on.

    values: V(s_t); q_values: Q(s_t, a_t); next_values: V of the observation after each step, not of
    the reset that may follow it, or final_values [N]: after the last step of each row. They are
    asked for where Φ goes on with V. log_ratios: log π_θ(a|s)/π_b(a|s), or its two logarithms as
    log_probs and behaviour_log_probs. scores: ∇ log π(a_t|s_t), N arrays [T_n, P], or [N, T, P].

    A normalising or leave-one-out estimator takes the episodes for its batch. ConfigError for what
    the estimator needs and was not given; UserWarning for what has no effect.
    """
    from pgcli.cli.guest import as_guest

    off_policy = log_ratios is not None or log_probs is not None
    with as_guest():
        config, idle = _config(name, settings, off_policy)
        rew, mask = _padded(rewards, "rewards")
        rows = _Rows(mask, *(_flags(x, mask, what) for what, x in
                             (("terminated", terminated), ("truncated", truncated))))  # fmt: skip
        needs = estimator.critics(config)
        given = {"values": values, "q_values": q_values}
        for critic in sorted(needs):
            if critic not in GIVEN:
                allowed = f"its {critic} advantage is fitted on a policy's scores: pg.compare"
                raise ConfigError("estimator", name, allowed)
            if given[GIVEN[critic]] is None:
                raise ConfigError(GIVEN[critic], None, f"{name} needs them")
        ratio = _log_ratio(config, mask, log_ratios, log_probs, behaviour_log_probs)
        used = {GIVEN[critic] for critic in needs}
        for what, x in given.items():
            if x is not None and what not in used:
                idle.append(f"{what} have no effect: {name} looks at none")
        value = _alike(values, "values", mask)
        q = _alike(q_values, "q_values", mask)
        after = _after(mask, next_values, final_values)
        wanted = rows.cut | (rows.truncated & config.bootstrap & _goes_on(config, off_policy))
        looks = bool(wanted.any()) and "value" in needs
        if looks and after is None:
            allowed = "next_values or final_values: it goes on with V where an episode is cut"
            raise ConfigError("next_values", None, f"{name} needs {allowed}")
        if after is not None and not looks:
            idle.append(f"V after the last step has no effect: {name} never goes on with it here")
        if bool(rows.cut.any()):
            estimator.check_parts(config)
        looked = Episodes(
            rew=rows.apart(rew), mask=rows.mask, truncated=rows.truncated,
            value=None if value is None else rows.apart(value),
            final_value=None if value is None else rows.last(after),
            q=None if q is None else rows.apart(q),
            log_ratio=None if ratio is None else rows.apart(ratio),
            cut=rows.cut if bool(rows.cut.any()) else None,
        )  # fmt: skip
        terms = estimator.terms(config, looked)
        notes = bias_notes(config, rows.circumstances(off_policy))
        found = _estimated(config, name, rows, terms, mask, scores, notes)
    for text in idle:
        warnings.warn(text, UserWarning, stacklevel=2)
    return found


def _estimated(
    config: Any, name: str, rows: _Rows, terms: estimator.Terms, mask: Tensor, scores: Any,
    notes: list[str],
) -> Estimate:  # fmt: skip
    weights, fitted = rows.together(terms.weights), baseline(config).fitted
    if scores is None:
        if fitted is not None:
            raise ConfigError("scores", None, f"the baseline of {name} is fitted on them")
        return Estimate(weights.numpy(), None, None, None, notes)
    score, there = _padded(scores, "scores", width=1)
    if not torch.equal(there, mask):
        raise ConfigError("scores", list(score.shape), "as many steps as there are rewards")
    each = torch.einsum("nt,ntp->np", weights, score)
    if fitted == "time":
        along = torch.einsum("np,ntp->nt", each, score)
        control = rows.together(terms.control)
        weights = less_in_time(weights, control, along, score.square().sum(-1))
        each = torch.einsum("nt,ntp->np", weights, score)
    elif fitted is not None:
        unit = torch.einsum("nt,ntp->np", rows.together(terms.control), score)
        each = controlled(each, unit, per_parameter=fitted == "per_parameter")
    spread = float(each.var(0, unbiased=True).sum() / len(each)) if len(each) > 1 else float("nan")
    return Estimate(weights.numpy(), each.mean(0).numpy(), each.numpy(), spread, notes)


class _Rows:
    """N rows, cut into the M episodes, or parts of them, that lie in them one after another."""

    def __init__(self, mask: Tensor, terminated: Tensor | None, truncated: Tensor | None) -> None:
        """mask [N, T]; flags [N, T], or truncated [N]; None: each row is an episode that ended."""
        self._steps, length = mask, mask.sum(1)
        by_step = [x for x in (terminated, truncated) if x is not None and x.ndim == 2]
        pieces: list[tuple[int, int, int]] = []  # row, first step, the one after the last
        for n, steps in enumerate(length.tolist()):
            ends = [steps]
            if by_step:
                over = torch.stack(by_step).any(0)[n, :steps]
                ends = sorted({*(over.nonzero()[:, 0] + 1).tolist(), steps})
            pieces += [(n, i, j) for i, j in zip([0, *ends[:-1]], ends, strict=True)]
        self._row, self._start, self._stop = torch.tensor(pieces).T
        size = self._stop - self._start
        self.mask = torch.arange(int(size.max())) < size[:, None]  # [M, T']
        nothing = torch.zeros(len(pieces), dtype=torch.bool)
        self.truncated = self.cut = nothing  # [M]
        last = self._row, self._stop - 1
        if by_step:
            of_end = nothing if terminated is None else terminated[last]
            limited = nothing if truncated is None else truncated[last]
            self.truncated, self.cut = limited & ~of_end, ~(limited | of_end)
        elif truncated is not None:
            self.truncated = truncated[self._row]

    def _place(self) -> tuple[Tensor, Tensor]:
        steps = torch.arange(self.mask.shape[1])
        return self._row[:, None], torch.where(self.mask, self._start[:, None] + steps, 0)

    def apart(self, x: Tensor) -> Tensor:
        """x [N, T] of the rows as that of the episodes, [M, T'], zero where padded."""
        return torch.where(self.mask, x[self._place()], 0.0)

    def together(self, x: Tensor) -> Tensor:
        """And back: x [M, T'] as that of the rows, [N, T]."""
        whole = x.new_zeros(self._steps.shape)
        row, step = self._place()
        whole[row.expand_as(step)[self.mask], step[self.mask]] = x[self.mask]
        return whole

    def last(self, x: Tensor | None) -> Tensor:
        """x [N, T] after the last step of each episode, [M]; zeros where there is none."""
        if x is None:
            return torch.zeros(len(self._row), dtype=torch.float64)
        return x[self._row, self._stop - 1]

    def circumstances(self, off_policy: bool) -> Circumstances:
        """As far as rows of numbers tell."""
        return Circumstances(
            horizon=self.mask.shape[1], critic="learned", off_policy=off_policy,
            fixed_horizon=bool(self.cut.any()),
        )  # fmt: skip


def _goes_on(config: Any, off_policy: bool) -> bool:
    """Whether Φ reads what goes on at a time limit."""
    return "estimator.bootstrap" not in unused(config, None, off_policy)


def _log_ratio(config: Any, mask: Tensor, ratio: Any, new: Any, old: Any) -> Tensor | None:
    """[N, T]; None: the data are the policy's own. ConfigError where one half is missing."""
    if (new is None) != (old is None):
        missing = "behaviour_log_probs" if old is None else "log_probs"
        raise ConfigError(missing, None, "log_probs and behaviour_log_probs go together")
    if ratio is not None and new is not None:
        raise ConfigError("log_ratios", "...", "either these or the log_probs")
    if new is not None:
        one, other = _alike(new, "log_probs", mask), _alike(old, "behaviour_log_probs", mask)
        assert one is not None
        assert other is not None
        return one - other
    if config.weighted and ratio is None:
        allowed = f"estimator.importance={config.importance} needs them: zeros, if it is on-policy"
        raise ConfigError("log_ratios", None, allowed)
    return _alike(ratio, "log_ratios", mask)


def _after(mask: Tensor, next_values: Any, final_values: Any) -> Tensor | None:
    """V of what is observed after each step [N, T], as far as it is given."""
    if next_values is not None and final_values is not None:
        raise ConfigError("final_values", "...", "either these or next_values, which hold them")
    if next_values is not None:
        return _alike(next_values, "next_values", mask)
    if final_values is None:
        return None
    final = np.asarray(_array(final_values), np.float64)
    if final.shape != (len(mask),):
        raise ConfigError("final_values", list(final.shape), f"{len(mask)} numbers, one per row")
    after = torch.zeros(mask.shape, dtype=torch.float64)
    after[torch.arange(len(mask)), mask.sum(1) - 1] = torch.as_tensor(final)
    return after


def _flags(x: Any, mask: Tensor, what: str) -> Tensor | None:
    """Flags by step [N, T], or [N] of the rows; None: none are given."""
    if x is None:
        return None
    try:
        plain = np.asarray(_array(x), bool) if np.ndim(_array(x)) == 1 else None
    except ValueError:  # rows of several lengths
        plain = None
    if plain is not None and plain.shape == (len(mask),):
        if what == "terminated":
            raise ConfigError(what, list(plain.shape), "flags by step, as there are rewards")
        return torch.as_tensor(plain)
    found = _alike(x, what, mask)
    assert found is not None
    return found != 0


def _config(name: str, settings: dict[str, Any], off_policy: bool) -> tuple[Any, list[str]]:
    """The estimator's settings, and a sentence on each of those given that has no effect."""
    from pgcli.cli.compose import compose_all
    from pgcli.face.words import line

    own = {f"estimator.{key}": value for key, value in settings.items()}
    words = line("train", [f"estimator={name}", "method=none"], None, own)
    (one,) = compose_all("train", words, None, multirun=False)
    config = one.config.estimator
    idle = unused(config, None, off_policy)
    keys = [key for key, value in own.items() if key in idle and value not in (None, False)]
    return config, [f"{key}={own[key]} has no effect: {idle[key]}" for key in keys]


def _array(x: Any) -> Any:
    return x.detach().cpu().numpy() if isinstance(x, Tensor) else x


def _padded(x: Any, what: str, width: int = 0) -> tuple[Tensor, Tensor]:
    """[N, T, ...] float64, and where it is no padding [N, T]."""
    try:
        parts = [torch.as_tensor(np.array(_array(one), np.float64)) for one in x]
    except (TypeError, ValueError) as error:
        raise ConfigError(what, type(x).__name__, "arrays of numbers, one per row") from error
    if not parts or any(one.ndim != 1 + width or len(one) == 0 for one in parts):
        raise ConfigError(what, [list(one.shape) for one in parts], "an array per row, none empty")
    length = torch.tensor([len(one) for one in parts])
    mask = torch.arange(int(length.max())) < length[:, None]
    return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True), mask


def _alike(x: Any, what: str, mask: Tensor) -> Tensor | None:
    if x is None:
        return None
    padded, there = _padded(x, what)
    if not torch.equal(there, mask):
        raise ConfigError(what, list(padded.shape), "as many steps as there are rewards")
    return padded
