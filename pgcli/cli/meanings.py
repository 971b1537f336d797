"""What each setting and each option means, from the comments of `conf/`, their only home."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

from pgcli.cli.sources import conf_dir, files

COLUMN = 30  # where comments begin
WIDTH = 96
KEY = re.compile(r"( *)'?([A-Za-z_]\w*)'?:(?= |$)")  # YAML quotes n, which it might take for no
GROUP = re.compile(r"([\w/.-]+): (\S+(?:, \S+)*)")  # and its options, as Hydra lists them
TOLD = ("estimator", "method", "update", "critic", "optimizer", "policy")  # an option a line


def comments(primary: str) -> dict[str, str]:
    """The comment beside each setting of a primary configuration, by its dotted key."""
    files = (conf_dir() / f"{name}.yaml" for name in ("base", "common", primary))
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    by_key = {key: line.partition(" # ")[2].strip() for key, line in keyed(lines) if key}
    return {key: comment for key, comment in by_key.items() if comment}


def with_limits(meanings: Mapping[str, str], limits: Mapping[str, str]) -> dict[str, str]:
    """The meanings, with what a setting may be where its comment does not say all of it."""
    told = {}
    for key in meanings.keys() | limits.keys():
        meaning, limit = meanings.get(key, ""), limits.get(key, "")
        if all(re.search(rf"\b{re.escape(name)}\b", meaning) for name in limit.split(", ")):
            limit = ""
        told[key] = "; ".join(filter(None, [meaning, limit]))
    return told


def grouped(text: str) -> str:
    """The text with its list of groups in lines that fit, an option a line where files tell it."""
    lines = []
    for line in text.splitlines():
        match = GROUP.fullmatch(line)
        group, names = (match[1], match[2].split(", ")) if match else ("", [])
        known = files(group) if match else {}
        if group.startswith("tuned/"):  # nobody chooses in them
            continue
        if not known.keys() >= set(names) or match is None:
            lines.append(line)
        elif group in TOLD:
            width = max(map(len, names))
            told = (f"  {name:<{width}}  {about(known[name])}".rstrip() for name in names)
            lines += [f"{group}:", *told]
        else:
            wrapped = textwrap.wrap(", ".join(names), WIDTH, break_on_hyphens=False)
            lines += [f"{group}:", *(f"  {one}" for one in wrapped)]
    return "\n".join(lines) + "\n"


def about(preset: Path) -> str:
    """The first line of what a file says of itself."""
    lines = preset.read_text(encoding="utf-8").splitlines()
    said = (line[2:] for line in lines if line.startswith("# ") and not line.startswith("# @"))
    return next(said, "")


def annotated(text: str, meanings: dict[str, str]) -> str:
    """The text with the meaning of each setting beside it, where a YAML line sets one."""
    lines = [
        f"{line:<{COLUMN - 1}} # {meanings[key]}" if key in meanings else line
        for key, line in keyed(text.splitlines())
    ]
    return "\n".join(lines) + "\n"


def keyed(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Each line after the dotted key that it sets; "" where it sets none."""
    path: list[str] = []
    for line in lines:
        match = KEY.match(line)
        if match is not None:
            path = [*path[: len(match[1]) // 2], match[2]]
        yield ".".join(path) if match else "", line
