"""What was typed and has no effect, or half of one, to be said before a run begins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from pgcli.cli.commands import COMMANDS
from pgcli.cli.compose import Composed, parse
from pgcli.cli.precedence import leaves
from pgcli.cli.sources import files, is_whole
from pgcli.settings.schema import Target

if TYPE_CHECKING:  # it would bring Gymnasium
    from pgcli.environments.spaces import Spaces

OFF = {"null", "false", "none", "False", "None"}  # who types these wants no effect


def without_effect(
    command: str,
    lines: Sequence[str],
    composed: Sequence[Composed],
    spaces: Sequence[Spaces | None],
) -> list[str]:
    """A sentence on each of the `lines` that can change nothing in what they are composed to.

    `composed`: the jobs of a sweep, or one run, in `spaces` of their own; None: it has none.
    """
    unused = COMMANDS[command].unused
    if unused is None:
        return []
    jobs = [(c.config, x) for c, x in zip(composed, spaces, strict=True)]
    idle = [unused(config, None if x is None else x.action) for config, x in jobs]
    swept = composed[0].asked.swept if composed[0].asked is not None else {}
    typed = {o.key_or_group: _text(o) for o in parse(lines)} | dict(swept)
    said = []
    for key, text in typed.items():
        if text in OFF:
            continue
        whys = [why for one in idle if (why := _why(key, text, one)) is not None]
        if whys:
            some = " in some of the jobs" if len(whys) < len(jobs) else ""
            said.append(f"{key}={text} has no effect{some}: {whys[0]}")
    halves = [_half(typed, config, x) for config, x in jobs if x is not None]
    return [*said, *dict.fromkeys(x for half in halves for x in half)]


def _why(key: str, text: str, idle: Mapping[str, str]) -> str | None:
    """Why a setting has no effect, or whatever the file sets that was chosen in a group."""
    if key in idle:
        return idle[key]
    if text not in (chosen := files(key)) or key == "env":
        return None
    tree: Any = OmegaConf.load(chosen[text])
    if is_whole(chosen[text]):
        return None
    keys = [f"{key}.{name}" for name in leaves(tree)]
    return idle[keys[0]] if keys and all(name in idle for name in keys) else None


def _half(typed: Mapping[str, str], config: Any, spaces: Spaces) -> Iterator[str]:
    """What has another effect than its name says."""
    if typed.get("policy") == "tabular" and not spaces.table:
        yield "policy=tabular is no table here: observations are not counted, it is linear in them"
    estimator = config.estimator
    bootstraps = getattr(estimator, "bootstrap", False) and "estimator.bootstrap" in typed
    if bootstraps and config.critic.target is Target.monte_carlo:
        yield (
            "estimator.bootstrap=true beside critic.target=monte_carlo: Φ goes on with V at a time "
            "limit, but V learns that nothing follows; critic.target=td_lambda goes on there too"
        )


def _text(override: Override) -> str:
    return (override.input_line or "").partition("=")[2]
