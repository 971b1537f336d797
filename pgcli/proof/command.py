"""`pg test`: is a part as unbiased as it claims, in every combination?"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NoReturn

from pgcli.errors import ConfigError, one_of
from pgcli.estimators.baselines import BASELINES
from pgcli.proof.combinations import PARTS, Case, combinations
from pgcli.proof.proof import BATCH, Verdict, problems, verdict
from pgcli.settings.registry import OWN, is_own, load

TITLE = "pg test"
DESCRIPTION = """\
Hold parts of an estimator to what they say of their bias: Φ, baselines and forms of importance
weights, yours (module:name) or pg's. Every combination with the other parts and switches is taken
to the expectation of its estimate, exactly, over all batches of small problems whose trajectories
can be listed, and with critics that are wrong everywhere. Without a bias note that expectation must
be the gradient; with one it must not be.
"""
EXAMPLE = """\
examples:
  pg test my_phi:late
  pg test gae                                 pg's own: all of it holds
exit code 1: something does not
"""
UNBIASED, AS_SAID, FAILS = "unbiased", "biased as said", "FAILS"


def test(argv: Sequence[str]) -> int:
    """Run `pg test <argv>`: 0 where all that is claimed holds, 1 where not; ConfigError."""
    args = _arguments(argv)
    found = [(kind, name) for name in args.parts for kind in _kinds(name)]
    codes = [_proven(kind, name) for kind, name in found]
    return max(codes)


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        TITLE,
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="+", metavar="part", help=f"{OWN}, or a name of pg's")
    parser.error = _refuse  # type: ignore[method-assign]
    return parser.parse_args(list(argv))


def _refuse(message: str) -> NoReturn:
    raise ConfigError("command line", "", message)


def _kinds(name: str) -> list[str]:
    """Which parts of that name there are: "phi", "baseline", "importance"."""
    if is_own(name):
        load("part", name)
    kinds = [kind for kind, parts in PARTS.items() if parts.has(name)]
    if not kinds:
        there = {x for parts in PARTS.values() for x in parts.beside(name)}
        raise ConfigError("part", name, f"no Φ, baseline or importance: {one_of(name, there)}")
    if "baseline" in kinds and (fewest := BASELINES.find(name).fewest) > BATCH:
        allowed = f"it needs {fewest} episodes, and what can be listed are batches of {BATCH}"
        raise ConfigError("part", name, allowed)
    return kinds


def _proven(kind: str, name: str) -> int:
    """Say of each combination what it is; the exit code."""
    print(f"estimator.{kind}={name}, errors ‖E[ĝ] − ∇J‖ / ‖∇J‖:")
    counts = Counter[str]()
    for case, found in _verdicts(kind, name):
        what = _said(found)
        counts[what] += 1
        error = max(x.error for x in found)
        print(f"  {what:<{len(AS_SAID)}}  error {error:7.1e}  {' '.join(case.words(kind))}")
        for one in [x for x in found if not x.holds][:1]:
            print(f"    {_wrong(one)}")
    told = ", ".join(f"{counts[what]} {what}" for what in (UNBIASED, AS_SAID, FAILS))
    print(f"{name}: {told}, of {counts.total()} combinations")
    return int(counts[FAILS] > 0)


def _verdicts(kind: str, name: str) -> Iterator[tuple[Case, list[Verdict]]]:
    names = {part: [name] if part == kind else parts.names for part, parts in PARTS.items()}
    for case in combinations(names["phi"], names["baseline"], names["importance"]):
        yield case, [verdict(problem, case) for problem in problems(case)]


def _said(found: Sequence[Verdict]) -> str:
    if not all(one.holds for one in found):
        return FAILS
    return AS_SAID if any(one.notes for one in found) else UNBIASED


def _wrong(one: Verdict) -> str:
    """What is claimed, and is not so."""
    where = f"in episodes of {one.steps} step{'s' * (one.steps > 1)}"
    if not one.notes:
        return f"{where} its error is {one.error:.1e}, and it says nothing of a bias"
    return f"{where} its error is {one.error:.1e}, and it says: {one.notes[0]}"
