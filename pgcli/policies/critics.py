"""What V may be, by name; a module of your own adds more.

# my_critics.py: pg train estimator=gae critic.kind=my_critics:mean
import torch
from pgcli.policies.critics import register

@register("mean")
class Mean:
    def __init__(self, config, inputs, horizon, seeds, device):
        self.mean = torch.zeros(len(seeds), dtype=torch.float64, device=device)
    def state(self):
        return {"mean": self.mean}
    def value(self, obs, time):
        return self.mean[:, None].expand(time.shape)
    def fit(self, obs, time, target, real):
        self.mean[:] = (target * real).sum(1) / real.sum(1).clamp(min=1)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from pgcli.errors import ConfigError, PartFailed
from pgcli.policies.critic import Critic, LinearCritic, Work, times
from pgcli.settings.registry import Registry, blamed
from pgcli.settings.schema import CriticConfig

KEY = "critic.kind"


class StateCritic(Protocol):
    """V(s) of S agents side by side; an observation is what a critic sees of it."""

    def state(self) -> dict[str, Tensor]:
        """The tensors that a fit changes, [S, ...]; live, not copies."""
        ...

    def along(self, obs: Tensor, mask: Tensor, age: Tensor | None = None) -> Tensor:
        """V(s_t) [S, N, T] for obs [S, N, T, D], zero where the mask is not set.

        age [S, N]: the time of the first; None: 0.
        """
        ...

    def after(self, final_obs: Tensor, length: Tensor) -> Tensor:
        """V(final_obs) [S, N] for final_obs [S, N, D], reached at time length [S, N]."""
        ...

    def fits(
        self,
        obs: Tensor,
        mask: Tensor,
        target: Tensor,
        iteration: ArrayLike,
        age: Tensor | None = None,
    ) -> list[Work]:
        """To regress V on targets [S, N, T] at the real steps: what is to be done."""
        ...

    def scale(self, by: Tensor) -> None:
        """Tell V times `by` [S] from now on, exactly."""
        ...


class OwnCritic(Protocol):
    """What a module of one's own has to give: V of S agents, whose rows know nothing of others."""

    def state(self) -> Mapping[str, Tensor]:
        """The tensors that a fit changes, a row for each seed [S, ...]; live, not copies."""
        ...

    def value(self, obs: Tensor, time: Tensor) -> Tensor:
        """V [S, M] for obs [S, M, D] at steps time [S, M] of their episodes."""
        ...

    def fit(self, obs: Tensor, time: Tensor, target: Tensor, real: Tensor) -> None:
        """Learn targets [S, M] float64 where `real` [S, M] is true; what is not is padding."""
        ...


# Of settings, inputs D, the episodes' time limit, seeds and device.
Maker = Callable[[CriticConfig, int, int, Sequence[int], torch.device], StateCritic]
OwnMaker = Callable[[CriticConfig, int, int, Sequence[int], torch.device], OwnCritic]
CRITICS: Registry[Maker] = Registry(KEY, __name__)


def register(name: str) -> Callable[[Any], Any]:
    """Register what makes an `OwnCritic`, a class or a function, under a name.

    It is called with the settings `critic`, the number of inputs, the time limit of an episode, the
    seeds and torch's device.
    """

    def add(maker: OwnMaker) -> OwnMaker:
        module = maker.__module__
        text = f"{module}:{name}"

        def make(settings: CriticConfig, *shape: Any) -> StateCritic:
            with blamed(KEY, text):
                return Own(text, maker(settings, *shape), *shape[2:])

        CRITICS.add(name, make, module)
        return maker

    return add


def value_critic(
    settings: CriticConfig, inputs: int, horizon: int, seeds: Sequence[int], device: torch.device
) -> StateCritic:
    """The V that `settings` name; ConfigError where there is none."""
    return CRITICS.find(settings.kind)(settings, inputs, horizon, seeds, device)


class Own:
    """An `OwnCritic` as `pg` uses it; what it does wrong is told as its own."""

    def __init__(
        self, name: str, own: OwnCritic, seeds: Sequence[int], device: torch.device
    ) -> None:
        self._name, self._own = name, own
        self.unit = torch.ones(len(seeds), dtype=torch.float64, device=device)  # of what it tells
        for method in ("state", "value", "fit"):
            if not callable(getattr(own, method, None)):
                raise ConfigError(KEY, name, f"its {type(own).__name__} has no {method}()")
        for key, x in own.state().items():
            if not isinstance(x, Tensor) or x.shape[:1] != (len(seeds),):
                allowed = f"its state has {key}, which is no tensor with a row for each seed"
                raise ConfigError(KEY, name, allowed)

    def state(self) -> dict[str, Tensor]:
        """See `StateCritic`."""
        return {"unit": self.unit, **{f"own/{key}": x for key, x in self._own.state().items()}}

    def along(self, obs: Tensor, mask: Tensor, age: Tensor | None = None) -> Tensor:
        """See `StateCritic`."""
        value = self._value(obs.flatten(1, 2), times(mask, age).flatten(1))
        return torch.where(mask, value.reshape(mask.shape), 0.0)

    def after(self, final_obs: Tensor, length: Tensor) -> Tensor:
        """See `StateCritic`."""
        return self._value(final_obs, length)

    def fits(
        self,
        obs: Tensor,
        mask: Tensor,
        target: Tensor,
        iteration: ArrayLike,
        age: Tensor | None = None,
    ) -> list[Work]:
        """See `StateCritic`."""

        def fit() -> None:
            time, y = times(mask, age).flatten(1), target.flatten(1) / self.unit[:, None]
            with blamed(KEY, self._name):
                self._own.fit(obs.flatten(1, 2), time, y, mask.flatten(1))

        return [fit]

    def scale(self, by: Tensor) -> None:
        """See `StateCritic`."""
        self.unit *= by

    def _value(self, obs: Tensor, time: Tensor) -> Tensor:
        """[S, M], of the type of obs."""
        with blamed(KEY, self._name):
            value = self._own.value(obs, time)
        if not isinstance(value, Tensor) or value.shape != time.shape:
            got = f"the shape {list(value.shape)}" if isinstance(value, Tensor) else repr(value)
            raise PartFailed(f"{KEY}={self._name}: value gave {got} for {list(time.shape)} steps")
        return (value * self.unit[:, None]).to(obs.dtype).detach()


def _linear(
    settings: CriticConfig, inputs: int, horizon: int, seeds: Sequence[int], device: torch.device
) -> StateCritic:
    return LinearCritic(inputs, horizon, len(seeds), device, settings.time_input)


def _exact(settings: CriticConfig, *shape: Any) -> StateCritic:
    raise ConfigError(KEY, "exact", "only pg compare has exact critics: mlp, linear")


CRITICS.add("mlp", Critic, __name__)
CRITICS.add("linear", _linear, __name__)
CRITICS.add("exact", _exact, __name__)
