"""The exact mean and variance of every estimator, where the model is known.

Nothing is sampled and no trajectory is listed. Every estimate is a linear functional of vectors
that obey a backward recursion along the trajectory: with ψ_t = ∇log π(a_t|s_t),

    y_t = C_t y_{t+1},    X_t = ψ_t (D_t y_{t+1}) + F_t X_{t+1},    y_T = (1, 0, ...), X_T = 0,

where y holds 1 and returns, X gradient-valued sums, and C, D, F depend on the transition at t
only. So E[y yᵀ], E[X yᵀ] and E[X Xᵀ], parameter by parameter, obey recursions over (t, s).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from pgcli.comparison.maps import spread
from pgcli.comparison.parts import Parts, Step, parts, score_products
from pgcli.estimators.baselines import Baseline, baseline
from pgcli.estimators.importance import importance
from pgcli.estimators.phi import Episodes, Stream, phi
from pgcli.gradients.truth import Placed, transitions, visits
from pgcli.machine.cores import ordered
from pgcli.settings.registry import is_own
from pgcli.settings.schema import NONE, EstimatorConfig

BLOCK = 2**21  # numbers in one moment's table at once
LARGE = 1e4  # a reward beside the spread of all rewards


@dataclass(frozen=True)
class Exact:
    """The mean and the noise of one estimator, known exactly."""

    mean: Tensor  # [P]: E[ĝ]
    trace_cov: (
        float | None
    )  # N · tr Var(ĝ) at the batch size asked for; None: not known, or lost to rounding
    limit: bool = False  # of N → ∞, where the fitted baseline is its expectation
    constant: Tensor | float = 0.0  # the baseline, [P] or one for all, where it is one number
    parts: Parts | None = None  # of trace_cov, where they were asked for


class Problem:
    """One policy in one model, with the data of a behaviour policy and with given critics."""

    def __init__(
        self,
        at: Placed,
        *,
        behaviour: Tensor | None = None,
        value: Tensor | None = None,
        q: Tensor | None = None,
    ) -> None:
        """`behaviour`: probabilities [states, actions] of who collects, None: the policy itself.

        value [T + 1, states + 1] and q [T, states + 1, actions]: what the estimator takes for
        V_t(s), with value[T] at a time limit, and for Q_t(s, a).
        """
        self.model, self.value, self.q, self.psi = at.model, value, q, at.psi
        acting = at.chance if behaviour is None else behaviour.double()
        self.chance = transitions(at._replace(chance=acting))  # [K]: a, s', r
        self.ratio = (at.chance / acting)[self.model.state, self.model.action]  # [K]
        self._off_policy = behaviour is not None
        self._known: dict[str, Moments] = {}

    def estimate(self, config: EstimatorConfig, batch_size: int) -> Exact | None:
        """The exact mean and N · tr Var(ĝ) of this estimator for N = batch_size ≥ 2.

        None where the estimate is no such recursion: normalised or cross-fitted Φ, self-normalised
        or clipped cumulative weights, a Φ of one's own.
        """
        if not self._off_policy:
            config = replace(config, importance=NONE)
        base, form = baseline(config), importance(config)
        clipped = config.clip_ratio is not None and form.before
        parts = (config.phi, config.baseline, config.importance)
        if config.normalize or base.exact is None or not form.exact or any(map(is_own, parts)):
            return None  # what a part of one's own says of itself is no proof
        if phi(config).couples:
            return None
        if config.weighted and (clipped or config.self_normalize):
            return None
        if base.exact == "time":
            return self._time_baseline(config)
        if base.fitted == "time":
            return self._optimal_in_time(config)
        moments = self._moments(config, base)
        if base.exact == "fitted":
            return self._optimal(moments, per_parameter=base.fitted == "per_parameter")
        if base.exact in ("mean", "own_mean"):
            return self._mean_baseline(config, moments, batch_size, own=base.exact == "own_mean")
        return Exact(moments.mean[0], self._trace(moments))

    def parts(self, config: EstimatorConfig, found: Exact) -> Parts | None:
        """Of the variance that `estimate` has found; None where it has found none."""
        if found.trace_cov is None:
            return None
        config = config if self._off_policy else replace(config, importance=NONE)
        kernel = self._kernel(config)
        if baseline(config).fitted == "time":
            kernel = self._with(config, self._best_in_time(config))
        split = kernel.parts(found.constant)
        if not self._off_policy or (config.weighted and config.clip_ratio is None):
            split = split._replace(floor=split.start + split.dynamics)
        if baseline(config).exact in ("mean", "own_mean"):
            split = split._replace(batch=found.trace_cov - split.total)
        return split

    def _moments(self, config: EstimatorConfig, base: Baseline) -> Moments:
        """Of the estimate before a baseline that depends on the batch is subtracted."""
        key = repr(config if base.exact == "state" else replace(config, baseline=NONE))
        if key not in self._known:
            kernel = self._kernel(config)
            moments = kernel.moments(measure=2)
            if kernel.weighs_measure:
                moments = moments._replace(mean=kernel.moments(second=False).mean)
            self._known[key] = moments
        return self._known[key]

    def _kernel(self, config: EstimatorConfig) -> _Kernel:
        """Of the estimate before a constant is subtracted."""
        kind, bare = baseline(config).exact, replace(config, baseline=NONE)
        if kind == "state":
            return _Kernel(config, self)
        if kind != "time":
            return _Kernel(bare, self)
        expected, alive = _Kernel(bare, self).expected_phi(), self.visits()
        b = (alive * expected).sum(-1) / alive.sum(-1).clamp(min=1e-300)  # [T]
        return self._with(config, b)

    def _with(self, config: EstimatorConfig, b: Tensor) -> _Kernel:
        """With a number for each time, b [T], for its baseline."""
        table = b[:, None].expand(-1, self.model.states + 1)
        return _Kernel(replace(config, baseline=NONE), self, baseline=table)

    def _optimal_in_time(self, config: EstimatorConfig) -> Exact | None:
        """b*_t = E⟨X, s_t⟩/E‖s_t‖², what the fit over the others tends to."""
        if self._off_policy:
            return None
        moments = self._with(config, self._best_in_time(config)).moments()
        return Exact(moments.mean[0], self._trace(moments), limit=True)

    def _best_in_time(self, config: EstimatorConfig) -> Tensor:
        """b*_t [T]; 0 where nothing runs any more."""
        discounted = config.discount_state and not phi(config).from_start
        time = torch.arange(self.model.horizon, dtype=torch.float64)
        control = config.gamma**time if discounted else 1.0
        square = self.psi.square().sum(-1).flatten()  # [S·A]
        acted = self.chance.new_zeros(len(square)).index_add(
            0, self.model.state * self.model.actions + self.model.action, self.chance
        )
        each = (acted * square).unflatten(0, (self.model.states, -1)).sum(1)  # E‖ψ‖² in each state
        below = self.visits() @ each
        above = self._kernel(replace(config, baseline=NONE)).score_products()
        there = below > 0
        return torch.where(there, above / torch.where(there, control * below, 1.0), 0.0)

    def _mean_baseline(
        self, config: EstimatorConfig, moments: Moments, n: int, *, own: bool
    ) -> Exact:
        """g_n = X_n − b S_n, with b the batch's mean of a, the time average of Φ."""
        a, a_square, a_score = self._time_average(config)
        mean = moments.mean[0] - a * moments.mean[1]
        if own:
            return Exact(mean - (a_score - a * moments.mean[1]) / n, None, constant=a)
        if moments.mean[1].norm() > 1e-9 * (1 + moments.product[1, 1].sum().sqrt()):
            return Exact(mean, None, constant=a)  # under these weights the mean score is not zero
        b_square = a**2 + (a_square - a**2) / (n - 1)
        xx, xs, ss = (float(moments.product[i].sum()) for i in ((0, 0), (0, 1), (1, 1)))
        # b_{−n} holds a_m and b_{−m} holds a_n: two trajectories of one batch are correlated.
        both = float(a_score.square().sum()) / (n - 1)
        squares = (xx, -2 * a * xs, b_square * ss, -float(mean.square().sum()), both)
        return Exact(mean, self._told(*squares), constant=a)

    def _time_average(self, config: EstimatorConfig) -> tuple[float, float, Tensor]:
        """E[a], E[a²] and E[a S] [P] of a = (1/L) Σ_t Φ_t, where Φ itself is not weighted."""
        plain = replace(config, importance=NONE, baseline=NONE)
        scored = replace(config, baseline=NONE)
        if phi(config).from_start:  # Φ is the same at every step
            kernel = _Kernel(plain, self)
            y = self._at_start(kernel.y_moments())
            scored_moments = _Kernel(scored, self, weigh_terms=False).moments(second=False)
            return float(y[0, -1]), float(y[-1, -1]), scored_moments.with_y[1, kernel.y]
        kernel = _Kernel(plain, self, average=True)
        first = self._at_start(kernel.y_moments(end=lambda length: 1 / length))
        second = self._at_start(kernel.y_moments(end=lambda length: 1 / length**2))
        weighted = _Kernel(scored, self, average=True, weigh_terms=False)
        moments = weighted.moments(end=lambda length: 1 / length, second=False)
        return float(first[0, -1]), float(second[-1, -1]), moments.with_y[1, -1]

    def _at_start(self, moments: Tensor) -> Tensor:
        return (self.model.start[:, None, None] * moments[0, :-1]).sum(0)

    def _time_baseline(self, config: EstimatorConfig) -> Exact | None:
        """With b_t = E[Φ_t | still running], what the mean over the others tends to."""
        if phi(config).from_start or self._off_policy:
            return None
        moments = self._kernel(config).moments()
        return Exact(moments.mean[0], self._trace(moments), limit=True)

    def _optimal(self, moments: Moments, *, per_parameter: bool) -> Exact:
        """b* = E⟨X, S⟩ / E‖S‖², the constant of least variance, or one for each parameter."""
        (xx, xs), (_, ss) = moments.product
        above, below = xs, ss
        if not per_parameter:
            above, below = (x.sum().expand_as(x) for x in (xs, ss))
        b = torch.where(below > 0, above / torch.where(below > 0, below, 1.0), 0.0)
        mean = moments.mean[0] - b * moments.mean[1]
        squares = (xx.sum(), -2 * (b * xs).sum(), (b.square() * ss).sum(), -mean.square().sum())
        return Exact(mean, self._told(*map(float, squares)), limit=True, constant=b)

    def _trace(self, moments: Moments) -> float | None:
        return self._told(
            float(moments.product[0, 0].sum()), -float(moments.mean[0].square().sum())
        )

    def _told(self, *squares: float) -> float | None:
        """A variance as the sum of these second moments; None where rounding leaves little of it.

        It may be 0; but where rewards are large beside their spread, it is lost.
        """
        reward, total = self.model.reward, sum(squares)
        spread = float(reward.max() - reward.min()) or float(reward.abs().max())
        rounding = torch.finfo(torch.float64).eps * max(map(abs, squares))
        lost = float(reward.abs().max()) > LARGE * spread and rounding > 1e-6 * total
        if total < 0 and not lost:
            return 0.0 if -total <= 8 * rounding else None
        return None if lost else total

    def visits(self) -> Tensor:
        """The chance that the collecting policy is in each state at each time, [T, states]."""
        return visits(self.model, self.chance)


class Moments(NamedTuple):
    """E over whole trajectories, for X = (the estimate, its score sum) per parameter."""

    mean: Tensor  # [2, P]: E[X]
    product: Tensor  # [2, 2, P]: E[X_i X_k]
    with_y: Tensor  # [2, a, P]: E[X yᵀ]


EndWeight = Callable[[int], float]  # of a trajectory of that length


def equal(length: int) -> float:
    """Every trajectory counts as it is."""
    return 1.0


class _Kernel:
    """C, D and F of an estimator on every transition, at each time.

    y = (1, Y, ..., A): Y are the returns that Φ is made of, as many as its window has steps, and A
    the sum of Φ to the end, where `average` asks for it. X = (X, S): the estimate with its constant
    or state-dependent baseline, and S = Σ_t ω_t ψ_t, what one unit of a constant one subtracts.
    The total return looks back: there X is Z − B with Z = ψ(r + γR') + r S' + γZ', B = ψb + B'.
    """

    def __init__(
        self,
        config: EstimatorConfig,
        problem: Problem,
        *,
        baseline: Tensor | None = None,
        average: bool = False,
        weigh_terms: bool = True,
    ) -> None:
        """`baseline`: b_t(s) [T, states + 1] in place of that of `config`.

        `weigh_terms`: False leaves the terms of Φ without weights where these would be its own.
        """
        self._config, self._problem, self._baseline = config, problem, baseline
        self._form, self._average = phi(config), average
        weights = importance(config)
        self._terms = weights.terms and weigh_terms
        self._before = weights.before
        self.weighs_measure = weights.after and not weights.terms
        stream = self._stream(0)
        self._whole, self._n, self._c = stream.whole, stream.n, stream.discount
        self.y = 1 if self._n is None else min(self._n, problem.model.horizon)  # index of Y
        self._a = self.y + 1 + average
        self._v = 3 if self._whole else 2

    def y_moments(self, measure: int = 1, end: EndWeight = equal) -> Tensor:
        """E[y_t y_tᵀ | s_t], [T + 1, states + 1, a, a]: no parameter enters it."""
        m, weight = self._problem.model, self._chance(measure)
        y2 = torch.zeros(m.horizon + 1, m.states + 1, self._a, self._a, dtype=torch.float64)
        y2[m.horizon, :, 0, 0] = end(m.horizon)
        for t in reversed(range(m.horizon)):
            C, _, _ = self._transition(t)
            y2[t + 1, m.states, 0, 0] = end(t + 1)
            y2[t].index_add_(0, m.state, weight * (C @ y2[t + 1, m.following] @ C.mT))
        return y2

    def moments(self, measure: int = 1, end: EndWeight = equal, *, second: bool = True) -> Moments:
        """The recursion, for the parameters block by block; products only if `second`.

        Trajectory weights multiply the measure: by ρ_{0:T} to the power `measure`, 1 for means and
        2 for second moments. `end(L)`: a weight on trajectories of length L.
        """
        m, psi = self._problem.model, self._problem.psi.flatten(0, 1)
        weight = self._chance(measure)
        y2 = self.y_moments(measure, end)
        cell, cells = m.state * m.actions + m.action, m.states * m.actions
        v, a = self._v, self._a

        def into_cells(each: Tensor) -> Tensor:
            return each.new_zeros(cells, *each.shape[1:]).index_add_(0, cell, each)

        def maps(t: int) -> _Maps:
            C, D, F = self._transition(t)
            ending = y2[t + 1, m.following]
            onto = partial(spread, following=m.following, cell=cell, shape=(cells, m.states + 1))
            return _Maps(
                into_cells(weight * (D @ ending @ C.mT)),
                into_cells(weight * (D @ ending @ D.mT)),
                *(onto(weight * F, other) for other in (C, D, F)),
            )

        prepared = [maps(t) for t in range(m.horizon)]

        def block(index: slice) -> tuple[Tensor, Tensor]:
            score = psi[:, None, None, index]  # [S·A, 1, 1, p]
            p = score.shape[-1]
            xy = torch.zeros(m.states + 1, v, a, p, dtype=torch.float64)
            xx = torch.zeros(m.states + 1, v, v, p, dtype=torch.float64)
            for at in reversed(prepared):
                new_xy = (at.fxyc @ xy.flatten(0, 2)).reshape(cells, v, a, p)
                new_xy += at.dyc.unsqueeze(-1) * score
                if second:
                    half = (at.fxyd @ xy.flatten(0, 2)).reshape(cells, v, v, p)  # Σ F X'y'ᵀ Dᵀ
                    new_xx = (at.fxxf @ xx.flatten(0, 2)).reshape(cells, v, v, p)
                    new_xx += at.dyd.unsqueeze(-1) * score.square()
                    new_xx += (half + half.transpose(1, 2)) * score
                    xx[:-1] = new_xx.unflatten(0, (m.states, -1)).sum(1)
                xy[:-1] = new_xy.unflatten(0, (m.states, -1)).sum(1)
            start = m.start[:, None, None, None]
            return (start * xy[:-1]).sum(0), (start * xx[:-1]).sum(0)

        width = max(1, BLOCK // (cells * v**2))
        blocks = list(ordered(block, [slice(i, i + width) for i in range(0, psi.shape[1], width)]))
        xy, xx = (torch.cat(parts, -1) for parts in zip(*blocks, strict=True))
        if self._whole:
            out = torch.tensor([[1.0, 0, -1], [0, 1, 0]], dtype=torch.float64)
            xy = torch.einsum("iv,vap->iap", out, xy)
            xx = torch.einsum("iv,vwp,jw->ijp", out, xx, out)
        return Moments(xy[:, 0], xx, xy)

    def parts(self, constant: Tensor | float) -> Parts:
        """Of the estimate with this constant baseline, in whatever batch."""
        problem, ends = self._problem, self._ends(constant)
        steps = [self._step(t) for t in range(problem.model.horizon)]
        return parts(problem.model, problem.chance, problem.psi.flatten(0, 1), steps, *ends)

    def score_products(self) -> Tensor:
        """E⟨X, ψ_t⟩ [T], X the estimate without a baseline."""
        problem = self._problem
        steps = [self._step(t) for t in range(problem.model.horizon)]
        ends = self._ends(0.0)
        return score_products(
            problem.model, problem.chance, problem.psi.flatten(0, 1), steps, *ends
        )

    def _ends(self, constant: Tensor | float) -> tuple[Tensor, Tensor]:
        """z at the end of a trajectory [m], and what of z_0 the estimate is [m, P]."""
        m = self._a + self._v
        out = torch.zeros(m, self._problem.psi.shape[-1], dtype=torch.float64)
        out[self._a], out[self._a + 1] = 1.0, -constant
        if self._whole:
            out[self._a + 2] = -1.0
        end = torch.zeros(m, dtype=torch.float64)
        end[0] = 1.0
        return end, out

    def _step(self, t: int) -> Step:
        """One step back for (y, X) together; trajectory weights in it, not in the measure."""
        C, D, F = self._transition(t)
        k, a = C.shape[:2]
        one = C.new_zeros(k, a + self._v, a + self._v)
        one[:, :a, :a], one[:, a:, a:] = C, F
        scored = torch.zeros_like(one)
        scored[:, a:, :a] = D
        if self.weighs_measure:
            rho = self._problem.ratio[:, None, None]
            one, scored = rho * one, rho * scored
        return Step(one, scored)

    def _chance(self, measure: int) -> Tensor:
        """The weight of every transition, [K, 1, 1]."""
        chance = self._problem.chance
        if self.weighs_measure:
            chance = chance * self._problem.ratio**measure
        return chance[:, None, None]

    def expected_phi(self) -> Tensor:
        """E[Φ_t | s_t] on-policy, [T, states]; only for a Φ that does not look back."""
        m = self._problem.model
        y = torch.zeros(m.states + 1, self._a, dtype=torch.float64)
        y[:, 0] = 1
        expected: list[Tensor] = []
        for t in reversed(range(m.horizon)):
            C, _, _ = self._transition(t)
            each = self._problem.chance[:, None] * (C @ y[m.following].unsqueeze(-1)).squeeze(-1)
            y = torch.zeros_like(y).index_add_(0, m.state, each)
            y[:, 0] = 1
            expected.insert(0, y[:-1, self.y])
        return torch.stack(expected)

    def _transition(self, t: int) -> tuple[Tensor, Tensor, Tensor]:
        """C [K, a, a], D [K, v, a] and F [K, v, v] at time t."""
        x = self._stream(t).x[:, 0, 0]
        k, c, b = len(x), self._c, self._b(t)
        eta, delta, phi_ = self._ratios()
        discounted = self._config.discount_state and not self._form.from_start
        w = self._config.gamma**t if discounted else 1.0

        C = x.new_zeros(k, self._a, self._a)
        C[:, 0, 0] = 1
        for m in range(1, self.y + 1):
            C[:, m, 0] = eta * x
            if (before := m if self._n is None else m - 1) > 0:  # a window shrinks by a step
                C[:, m, before] = eta * c
        if self._average:  # A = Y + A'
            C[:, -1] = C[:, self.y]
            C[:, -1, -1] += 1
        D = x.new_zeros(k, self._v, self._a)
        D[:, 0, 0] = x if self._whole else x - b
        if (before := self.y if self._n is None else self.y - 1) > 0:
            D[:, 0, before] = c
        D[:, 1, 0] = 1
        F = torch.eye(self._v, dtype=x.dtype).repeat(k, 1, 1)
        if self._whole:
            D[:, 2, 0] = b
            F[:, 0, 0], F[:, 0, 1] = c, x
        return C, D * (w * delta)[:, None, None], F * phi_[:, None, None]

    def _ratios(self) -> tuple[Tensor, Tensor, Tensor]:
        """How the ratio of a step enters: returns from it on, its score, what comes after."""
        rho, limit = self._problem.ratio, self._config.clip_ratio
        one = torch.ones_like(rho)
        if self.weighs_measure or not self._config.weighted:
            return one, one, one
        rho = rho if limit is None else rho.clamp(max=limit)
        return rho if self._terms else one, rho, rho if self._before else one

    def _stream(self, t: int) -> Stream:
        """The production code's x on every transition, each as an episode of one step."""
        # Before the time limit the next state's value counts in any case.
        last = t == self._problem.model.horizon - 1
        config = replace(self._config, bootstrap=self._config.bootstrap or not last)
        stream = self._form.function(config, self._one_step(t))
        assert isinstance(stream, Stream)
        return stream

    def _one_step(self, t: int) -> Episodes:
        """Every transition at time t as an episode of one step, [K, 1, 1]."""
        problem, m = self._problem, self._problem.model
        shape = (len(m.state), 1, 1)
        value = final = q = None
        if problem.value is not None:
            value = problem.value[t, m.state].reshape(shape)
            final = problem.value[t + 1, m.following].reshape(shape[:-1])
        if problem.q is not None:
            q = problem.q[t, m.state, m.action].reshape(shape)
        goes_on = (m.following != m.states).reshape(shape[:-1])
        reward = m.reward.reshape(shape)
        return Episodes(reward, torch.ones(shape).bool(), goes_on, value, final, q)

    def _b(self, t: int) -> Tensor:
        """The baseline at time t on every transition, [K], by the production code too."""
        if self._baseline is not None:
            return self._baseline[t, self._problem.model.state]
        step = self._one_step(t)
        b = baseline(self._config).function(self._config, step, step.rew)
        return b.expand(step.rew.shape)[:, 0, 0]


class _Maps(NamedTuple):
    """One step back, for moments of a block of parameters, into cells (s, a)."""

    dyc: Tensor  # [S·A, v, a]: Σ_{s'} D y'y'ᵀ Cᵀ, which ψ multiplies
    dyd: Tensor  # [S·A, v, v]: Σ_{s'} D y'y'ᵀ Dᵀ, which ψ² multiplies
    fxyc: Tensor  # sparse: X'y'ᵀ ↦ Σ_{s'} F X'y'ᵀ Cᵀ
    fxyd: Tensor  # sparse: X'y'ᵀ ↦ Σ_{s'} F X'y'ᵀ Dᵀ, which ψ multiplies
    fxxf: Tensor  # sparse: X'X'ᵀ ↦ Σ_{s'} F X'X'ᵀ Fᵀ
