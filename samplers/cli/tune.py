"""``samplers tune``: samplers of few evaluations, learned for a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from samplers.checkpoint.index import restores
from samplers.cli.common.options import ConditionOptions, ModelOptions
from samplers.cli.common.processes import join
from samplers.cli.common.program import argument, command, option
from samplers.cli.common.tuning import Subject, TuningOptions, write_tuned
from samplers.cli.common.values import PATH, POSITIVE, Value, listed

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from samplers.diffusers.restoration import RestorationPipeline

_EXAMPLES = """
Examples:
  samplers tune assets/digits --nfe 5,8 --output tuned/
  samplers sample assets/digits --sampler tuned/digits-5.json --output digits.png
  samplers tune assets/restore photographs/ --nfe 3,5 --output tuned/
                                                  of a network that restores: the photographs are
                                                  degraded in each way that it undoes

A command that was interrupted continues when it is repeated, to the same file.
"""

Item = TypeVar("Item")
_SIZE = 64
"""Height and width of parts of images, if the network does not say what it was trained on."""

_OF_RESTORATION = {
    "images": "IMAGES",
    "task": "--task",
    "degrade": "--degrade",
    "size": "--size",
}
_OF_SAMPLING = {
    "label": "--label",
    "guidance": "--guidance",
    "guidance_rescale": "--guidance-rescale",
    "guidance_interval": "--guidance-interval",
    "null_label": "--null-label",
}


class TuneOptions(ConditionOptions, ModelOptions, TuningOptions, section="Restoration"):
    images: tuple[Path, ...] = argument(
        "[IMAGES...]",
        type=PATH,
        help="For a network that restores: PNG or JPEG files, and folders.",
        nargs=-1,
    )
    degrade: tuple[str, ...] | None = option(
        type=Value("NAME,NAME,…", listed(str)),
        help="Degradations of intact images, taken in turn.",
        show_default="all that the checkpoint names; if it names none, they are degraded already",
    )
    task: str | None = option(
        help="Degradation that the images have already, as the checkpoint names it.",
        metavar="NAME",
        excludes=["--degrade"],
    )
    size: int | None = option(
        type=POSITIVE,
        help="Height and width of the parts of images that are restored, in pixels.",
        show_default=f"as the network was trained on, else {_SIZE}",
    )


@command(_EXAMPLES)
def run(options: TuneOptions) -> None:
    """Learn samplers of few network evaluations for a checkpoint."""
    restoring = restores(options.checkpoint)
    _refuse_others(options, restoring)
    options.check_output(options.checkpoint)
    config = options.config()
    device = join(options.device).device
    subject = _restored(options, device) if restoring else _sampled(options, device)
    write_tuned(options, config, options.checkpoint, subject)


def _refuse_others(options: TuneOptions, restoring: bool) -> None:
    """Raise ValueError for what another kind of checkpoint needs, or for a lack of images."""
    names = _OF_SAMPLING if restoring else _OF_RESTORATION
    given = [written for name, written in names.items() if getattr(options, name)]
    if given:
        kind = "restores images" if restoring else "samples images from noise"
        raise ValueError(f"{options.checkpoint} {kind}, so it has no {given[0]}; omit it.")
    if restoring and not options.images:
        raise ValueError(f"{options.checkpoint} restores images; name some, or a folder of them.")


# --------------------------------------------------------------------------- images from noise


def _sampled(options: TuneOptions, device: torch.device) -> Subject:
    """Images from noise, of the classes in turn."""
    from samplers.cli.common.checkpoints import (
        in_python,
        labels_in_turn,
        open_network,
        purpose_of,
        recipe_from,
    )

    checkpoint = open_network(options, device, in_python("tune"))
    recipe = checkpoint.settle(recipe_from(options))
    turn = labels_in_turn(options, checkpoint, options.count)
    labels = None if turn is None else _in_turn(turn, options.count)
    return Subject(
        checkpoint.guided(recipe),
        checkpoint.start(checkpoint.settings.schedule.noisiest, options.seeds),
        checkpoint.conditions(labels),
        purpose_of(checkpoint, recipe, turn, options.licence),
    )


# ---------------------------------------------------------------------------- restored images


def _restored(options: TuneOptions, device: torch.device) -> Subject:
    """Parts of images, degraded in turn unless they are degraded already."""
    import torch

    from samplers.checkpoint import LoadOptions, load_restoration
    from samplers.checkpoint.folder import read_folder
    from samplers.tuning import Purpose

    pickles = options.allow_pickle
    load = LoadOptions(getattr(torch, options.dtype), device, pickles)
    pipe = load_restoration(options.checkpoint, load)
    kinds = _kinds(options, pipe)
    mu = _degraded(options, pipe, kinds)
    tasks = [kind if pipe.config.tasks else None for kind in _in_turn(kinds, options.count)]
    weights = read_folder(options.checkpoint, pickles).identity().weights_hash
    words = "degraded images" if kinds == [None] else f"images: {', '.join(map(str, kinds))}"
    return Subject(
        pipe.denoiser(),
        pipe.initial(mu.shape, options.seeds),
        pipe.conditions(mu, tasks),
        Purpose(weights, conditions=words, licence=options.licence),
    )


def _kinds(options: TuneOptions, pipe: RestorationPipeline) -> list[str | None]:
    """The degradations of the images, taken in turn; [None] if they are not known."""
    if options.task is not None:
        return [options.task]
    return [*(options.degrade or pipe.config.tasks)] or [None]


def _degraded(
    options: TuneOptions, pipe: RestorationPipeline, kinds: Sequence[str | None]
) -> Tensor:
    """A part of an image for each seed [N, C, H, W], degraded."""
    import torch

    from samplers.images.files import image_paths
    from samplers.images.inputs import random_part, read_any
    from samplers.restoration import degrade

    paths, own = image_paths(options.images), pipe.unet.config
    size, channels = options.size or own.sample_size or _SIZE, int(own.out_channels)
    found = []
    for seed, path, kind in zip(
        options.seeds,
        _in_turn(paths, options.count),
        _in_turn(kinds, options.count),
        strict=True,
    ):
        part = random_part(read_any(path), size, seed, str(path))
        if options.task is None and kind is not None:
            part = degrade(part, [kind], [seed])
        found.append(part.expand(-1, channels, -1, -1) if part.shape[1] == 1 else part)
    return torch.cat(found)


def _in_turn(values: Sequence[Item], count: int) -> list[Item]:
    return list(islice(cycle(values), count))
