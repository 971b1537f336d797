"""What each setting means, read from the comments of `conf/`, their only home."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pgcli.cli.sources import conf_dir

COLUMN = 30  # where comments begin
KEY = re.compile(r"( *)([A-Za-z_]\w*):(?= |$)")


def comments(primary: str) -> dict[str, str]:
    """The comment beside each setting of a primary configuration, by its dotted key."""
    files = (conf_dir() / f"{name}.yaml" for name in ("base", "common", primary))
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    by_key = {key: line.partition(" # ")[2].strip() for key, line in keyed(lines) if key}
    return {key: comment for key, comment in by_key.items() if comment}


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
