"""``adjoint finetune``: a checkpoint optimised by a metric of its images."""

from __future__ import annotations

import argparse
import sys
import tomllib
from pathlib import Path
from typing import Any

import torch

from samplers.cli.arguments import Commands, add_command
from samplers.cli.failure import Failure
from samplers.cli.processes import is_main_process


def add_parser(commands: Commands) -> None:
    """Add the command ``finetune``."""
    parser = add_command(commands, "finetune", "optimise a checkpoint by a metric of its images")
    parser.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="the settings, in TOML"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting in place of the file's, such as training.steps=20; repeatable",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Optimise what the config says; returns the exit code."""
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
        raise Failure(str(error)) from error
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
    from samplers.training import CHECKPOINT

    if (folder / CHECKPOINT).exists():
        return f"{folder} keeps the last checkpoint, from which the same command goes on."
    return f"Nothing was saved in {folder} yet."
