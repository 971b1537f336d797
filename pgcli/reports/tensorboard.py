"""One TensorBoard run per group of runs: its curves over seeds, drawn as bands."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path

import numpy as np
from torch.utils.tensorboard.summary import custom_scalars

from pgcli.pictures.curves import Curve
from pgcli.runs.events import Events
from pgcli.runs.logbook import LOWER, UPPER

LONGEST = 100  # letters of a folder's name


def write(directory: Path, curves: Mapping[str, Mapping[str, Curve]]) -> None:
    """A run below `directory` for each label of curves {label: {tag: curve}}.

    x is environment steps; the tags of a label share theirs. StorageFailed where it cannot be
    written.
    """
    names: set[str] = set()
    for label, tags in curves.items():
        name = folder = re.sub(r"[^\w=.,+-]+", "-", label.replace(", ", ","))[:LONGEST]
        number = 0
        while folder in names:
            number += 1
            folder = f"{name}-{number}"
        names.add(folder)
        _write(directory / folder, tags)


def _write(directory: Path, tags: Mapping[str, Curve]) -> None:
    events = Events(directory, None)
    try:
        several = any(curve.seeds > 1 for curve in tags.values())
        prefixes = ("", LOWER, UPPER) if several else ("",)  # one seed has no band
        if several:
            charts = {
                group: {t: ["Margin", [t, LOWER + t, UPPER + t]] for t in mine}
                for group, mine in groupby(tags, key=lambda tag: tag.split("/")[0])
            }
            events.add(custom_scalars(charts), 0)
        names = [prefix + tag for tag in tags for prefix in prefixes]
        numbers = np.array([x for c in tags.values() for x in c.band[: len(prefixes)]])
        steps = next(iter(tags.values())).steps
        for i in np.flatnonzero(~np.isnan(numbers).any(0)):
            row = zip(names, numbers[:, i].tolist(), strict=True)
            finite = [(name, x) for name, x in row if math.isfinite(x)]  # a limit may not be
            events.add_scalars(finite, round(float(steps[i])))
    finally:
        events.close()
