"""``adjoint finetune``: a checkpoint optimised by a reward of its images."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samplers.cli.common.errors import Failure, is_main_process, named_failures
from samplers.cli.common.options import REPLACE_RUN
from samplers.cli.common.output import held
from samplers.cli.common.program import command, option
from samplers.cli.common.values import PATH

if TYPE_CHECKING:
    from adjoint.finetune import FinetuneConfig, FinetuneResult

_EXAMPLES = """\
Examples:
  adjoint finetune --config examples/effects/bold.toml
  adjoint finetune --config examples/effects/bold.toml --set training.steps=20
  accelerate launch -m adjoint.finetune --config examples/effects/bold.toml
"""

_LESS_MEMORY = (
    "raise training.accumulation, which splits a batch into parts (the same command resumes from "
    "the last checkpoint, if one was saved)"
)


@command(_EXAMPLES)
def run(
    *,
    config: Path = option(
        "--config", type=PATH, required=True, help="Settings, in TOML: see docs/finetune.md."
    ),
    overrides: tuple[str, ...] = option(
        "--set",
        metavar="NAME=VALUE",
        multiple=True,
        help="Setting in place of the file's, such as training.steps=20; repeatable.",
    ),
    overwrite: bool = option(is_flag=True, help=REPLACE_RUN),
) -> None:
    """Optimise a checkpoint by a reward of its images.

    The gradient of the reward is backpropagated through the whole sampler. An interrupted run is
    resumed by the same command.
    """
    from adjoint.finetune import read_finetune_config

    # Custom rewards are imported from where the command runs, as with `python -m`.
    sys.path.insert(0, str(Path.cwd()))
    settings = read_finetune_config(config, dict(map(_override, overrides)))
    _report(_finetune(settings, overwrite))


def _finetune(settings: FinetuneConfig, overwrite: bool) -> FinetuneResult:
    from adjoint.finetune import run_finetuning
    from samplers.checkpoint import CheckpointError

    try:
        with named_failures(_LESS_MEMORY), held(settings.output):
            return run_finetuning(settings, overwrite=overwrite)
    except (ArithmeticError, CheckpointError) as error:
        raise Failure(str(error)) from error
    except KeyboardInterrupt:
        raise Failure(f"Interrupted. {_saved(settings.output)}", 130) from None


def _report(result: FinetuneResult) -> None:
    if not is_main_process():
        return
    for change in result.changes:
        print(f"{change.name}: {change.before:.4g} before, {change.after:.4g} after")
    for path in result.written:
        print(path)


def _override(text: str) -> tuple[str, Any]:
    """A name and its value, written as TOML, or a text as it is."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set {text} has no value; write it as NAME=VALUE.")
    try:
        return name, tomllib.loads(f"value = {value}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return name, value


def _saved(folder: Path) -> str:
    """What an interrupted run can be resumed from."""
    from samplers.training import CHECKPOINT

    if (folder / CHECKPOINT).exists():
        return f"{folder} holds the last checkpoint, from which the same command resumes."
    return f"Nothing was saved in {folder} yet."
