"""The command line: `hf-dwt train`, `assess`, `grow`, `evaluate` and `demo`.

Only this package prints. What a command needs is imported when the command runs, so that `--help` is quick.
"""

import json
import math
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from typing import Any

from hf_dwt.cli.parser import make_parser

# And what goes before them.
_TAKES_FURTHER_OPTIONS = {"train": "recipe", "assess": "recipe", "grow": "teacher"}
# What it has finished is not repeated.
_GOES_ON_BY_ITSELF = ("evaluate",)
_PARTLY_FAILED = 1
_INTERRUPTED = 128 + 2  # as shells count a process that SIGINT has ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Errors of the user's, and a teacher that turns out broken, are told in one line, with exit status 2. Where some
    cells of a suite have failed and others have not, it is 1. Ctrl-C ends with 130, and the command that goes on is
    told. With `--json` nothing but JSON gets to stdout.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = make_parser()
    known, rest = parser.parse_known_args(given)
    own = vars(known)
    command, as_json = own.pop("command"), own.pop("as_json")
    if rest and command not in _TAKES_FURTHER_OPTIONS:
        parser.error(f"unrecognised arguments: {' '.join(rest)}")
    if early := _option_before(given, rest, own.get(_TAKES_FURTHER_OPTIONS.get(command, ""))):
        first = "RECIPE.yaml" if _TAKES_FURTHER_OPTIONS[command] == "recipe" else "TEACHER"
        parser.error(f"`{early}` stands before {first}, which comes first: hf-dwt {command} {first} {early} VALUE")
    try:
        with redirect_stdout(sys.stderr) if as_json else nullcontext():
            content = _run(command, own, rest)
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        print(f"hf-dwt: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        _tell_how_to_go_on(command, given, stop.args)
        return _INTERRUPTED
    if as_json and content is not None:
        print(json.dumps(_finite(content), indent=2, allow_nan=False))
    return _PARTLY_FAILED if content and any(cell["error"] for cell in content.get("cells", ())) else 0


def _option_before(given: Sequence[str], rest: Sequence[str], first: str | None) -> str | None:
    """The further option, if there is one, whose value was taken for what goes before all of them."""
    before = given[given.index(first) - 1] if first in given else ""
    return before if before.startswith("--") and "=" not in before and before in rest else None


def _run(command: str, own: dict[str, Any], rest: Sequence[str]) -> dict[str, Any] | None:
    """Carry a command out; it prints text, and what it returns is the same for JSON."""
    if command == "train":
        from hf_dwt.cli.train import train

        return train(own.pop("recipe"), rest, **own)
    if command == "assess":
        from hf_dwt.cli.assess import assess

        return assess(own.pop("recipe"), rest, **own)
    if command == "grow":
        from hf_dwt.cli.grow import grow

        return grow(own.pop("teacher"), rest, **own)
    if command == "evaluate":
        from hf_dwt.cli.evaluate import evaluate

        return evaluate(own.pop("models"), **own)
    from hf_dwt.cli.demo import demo

    return demo(folder=own.pop("output"), **own)


def _tell_how_to_go_on(command: str, given: Sequence[str], resume: Sequence[str]) -> None:
    """Print the command that goes on, with the options that take it up; under a launcher one process speaks for all."""
    if os.environ.get("RANK", "0") != "0":
        return
    goes_on = resume or command in _GOES_ON_BY_ITSELF
    again = shlex.join(["hf-dwt", *given, *(option for option in resume if option not in given)])
    print(f"hf-dwt: interrupted; to {'go on' if goes_on else 'begin again'}: {again}", file=sys.stderr)


def _finite(content: Any) -> Any:
    """The same with null for what JSON has no number for."""
    if isinstance(content, dict):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(each) for each in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
