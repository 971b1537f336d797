"""`pg`: choose the command, and turn its failures into a line and an exit code.

Imports nothing heavy, so that `pg --help` answers at once.
"""

from __future__ import annotations

import difflib
import gc
import os
import signal
import sys
from collections.abc import Sequence

from pgcli.cli.commands import COMMANDS
from pgcli.errors import PgError, Stopped
from pgcli.machine import signals
from pgcli.version import __version__

USAGE = 2


def usage() -> str:
    """What `pg --help` prints."""
    lines = "\n".join(f"  pg {one.name:<11}{one.does}" for one in COMMANDS.values())
    return f"""pg {__version__}: policy gradients from the command line, their estimators measured

{lines}

  pg <command> --help    its settings
  pg --version

For example:
  pg train estimator=rtg env=CartPole-v1
  pg train -m estimator=total,rtg,gae seed=0,1
  pg compare env=FrozenLake-v1 policy=tabular
  pg report outputs
  tensorboard --logdir outputs

Exit codes: 0 ok, 1 failure, 2 usage or configuration, 3 run directory in use or incompatible,
4 no usable checkpoint, 5 non-finite numbers, 6 environment failed, 7 storage failed,
130/143 stopped by a signal."""


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `pg`; always ends in SystemExit."""
    args = list(sys.argv[1:] if argv is None else argv)
    # Imports make a hundred thousand objects and no garbage: searching them took 0.3 s of a start.
    gc.set_threshold(100_000, 50, 100)
    try:
        sys.exit(_dispatch(args))
    except (PgError, Stopped) as error:
        print("pg:", *str(error).splitlines(), file=sys.stderr)
        sys.exit(error.exit_code)
    except MemoryError as error:
        print("pg: not enough memory:", *str(error).splitlines(), file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("pg: stopped by SIGINT", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:  # the reader of a pipe left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _dispatch(args: list[str]) -> int:
    if args and args[0] in ("-sc", "--shell-completion"):
        return _complete(args)
    if not args or args[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if args else USAGE
    if args[0] in ("-V", "--version"):
        print(f"pg {__version__}")
        return 0
    command = args[0]
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1, cutoff=0.5)
        hint = f"did you mean pg {near[0]}?" if near else f"commands: {', '.join(COMMANDS)}"
        print(f"pg: {command}: no such command; {hint}", file=sys.stderr)
        return USAGE
    return _run(command, args[1:])


def _run(command: str, args: list[str]) -> int:
    signals.listen()
    try:
        # env=my_module:MyEnv-v0 finds a module of the user's folder; last, so that none of them
        # stands in for a library.
        sys.path.append(os.getcwd())
    except FileNotFoundError as error:
        raise PgError("the current directory does not exist any more") from error
    if COMMANDS[command].answer_name:
        return COMMANDS[command].answer(args)
    from pgcli.cli.launch import launch

    return launch(command, args)


def _complete(args: list[str]) -> int:
    """Answer the shell: Hydra knows one application, so the command's word is taken out."""
    if not any(arg.startswith("query=") for arg in args):
        return _run("train", args)  # to install or uninstall: the same for every command
    program, _, line = os.environ.get("COMP_LINE", "").lstrip().partition(" ")
    command, space, rest = line.lstrip().partition(" ")
    if not space:
        print(" ".join(name for name in COMMANDS if name.startswith(command)))
        return 0
    if command not in COMMANDS or COMMANDS[command].run is None:
        return 0
    os.environ["COMP_LINE"] = f"{program} {rest}"
    try:
        return _run(command, args)
    except Exception:  # half a line need not make sense, and a shell shows what it is told
        return 1
