"""The command ``adjoint``: fine-tuning by a metric, and what there is to choose from."""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from samplers.cli.arguments import Parser, add_command
from samplers.cli.ending import ending
from samplers.cli.failure import Failure
from samplers.cli.processes import is_main_process
from samplers.cli.text import aligned

_TOUR = """\
a tour:
  adjoint rewards                                 what an image can be rewarded for
  adjoint finetune --config examples/effects/bold.toml
                                                  optimise what the file says; after an interruption
                                                  the same command goes on where it stopped
  accelerate launch -m adjoint.finetune --config examples/effects/bold.toml
                                                  the same, by all devices of the machine

exit codes: 0 done, 1 something failed on the way, 2 impossible settings, 130 interrupted
"""


def build_parser() -> Parser:
    """The parser of the whole command line."""
    parser = Parser(
        prog="adjoint",
        description="Optimise what images are drawn from by gradients of a metric.",
        epilog=_TOUR,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    command = add_command(commands, "finetune", "optimise a checkpoint by a metric of its images")
    command.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="the settings, in TOML"
    )
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting in place of the file's, such as training.steps=20; repeatable",
    )
    command.set_defaults(run=_finetune)
    command = add_command(commands, "rewards", "list what an image can be rewarded for")
    command.set_defaults(run=_rewards)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. Errors are one sentence on stderr."""

    def run() -> int:
        arguments = build_parser().parse_args(argv)
        code: int = arguments.run(arguments)
        return code

    return ending("adjoint", run)


def _finetune(arguments: argparse.Namespace) -> int:
    # These take seconds to import, and --help needs nothing of them.
    from adjoint.finetune import finetune, read_config
    from samplers.checkpoint import CheckpointError

    # A function of the user's is looked for where the command runs, as `python -m` does.
    sys.path.insert(0, str(Path.cwd()))
    config = read_config(arguments.config, dict(map(_changed, arguments.set)))
    try:
        outcome = finetune(config)
    except CheckpointError as error:
        raise Failure(str(error)) from error
    except KeyboardInterrupt:
        raise Failure(f"Interrupted. {_kept(config.output)}", 130) from None
    except ArithmeticError as error:
        raise Failure(f"{error} {_kept(config.output)}") from error
    except torch.OutOfMemoryError as error:
        raise Failure(
            "The device ran out of memory; raise training.accumulation, which takes a batch in "
            f"parts. {_kept(config.output)}"
        ) from error
    if is_main_process():
        for change in outcome.changes:
            print(f"{change.name}: {change.before:.4g} before, {change.after:.4g} after")
        for path in outcome.written:
            print(path)
    return 0


def _changed(text: str) -> tuple[str, Any]:
    """A name and its value, written as TOML, or a text as it is."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set {text} has no value; write it as NAME=VALUE.")
    try:
        return name, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name, value


def _kept(folder: Path) -> str:
    """What there is to go on from."""
    if (folder / "checkpoint.pt").exists():
        return f"{folder} keeps the last checkpoint, from which the same command goes on."
    return "There was no checkpoint yet."


def _rewards(arguments: argparse.Namespace) -> int:
    from adjoint.options import REQUIRED
    from adjoint.rewards import get_reward, list_rewards

    rows = [("reward", "high if", "options (* must be set)")]
    for kind in map(get_reward, list_rewards()):
        options = [n + "*" * (o.default is REQUIRED) for n, o in kind.options.items()]
        rows.append((kind.name, kind.description, ", ".join(options)))
    print(aligned([*rows, ("package.module:name", "a function of your own says so", "")]))
    return 0
