"""What is damaged, mistyped or absurd ends in one sentence; see :mod:`tests.fuzzing`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from samplers.cli import main
from tests.fuzzing import Base, Case, draw, run
from tests.tiny_flows import FRAMES, mesh, pipeline, waves, write_text_encoder
from text2pde.autoencoder.clips import prepare_clip
from text2pde.autoencoder.latents import encode_clips, save_latents
from text2pde.data.clip import load_clip, save_clip
from text2pde.data.mesh_files import write_mesh

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the limits are those of Linux")

CONFIG = """\
checkpoint = "{plain}"
output = "run"

[optimise]
what = "weights"

[reward]
name = "pixel"
target = "{colours}"

[sampling]
steps = 2
guidance = 1.0

[training]
steps = 1
batch_size = 2
learning_rate = 0.01
checkpoint_every = 1

[previews]
every = 0
num_images = 2
"""


TUNED_QUICKLY = (
    "--samples 6 --held-out 4 --iterations 4 --batch-size 6 --teacher-steps 40 --learning-rate 0.02"
)
COMMANDS = r"""
samplers sample {digits} --steps 2 --label 1 --num-images 2 --output {out}.png
samplers sample {plain} --steps 2 --num-images 2 --output {out}
samplers sample {latents} --steps 2 --num-images 2 --output {out}
samplers sample {prompts} --steps 2 --num-images 1 --prompt a --output {out}
samplers sample {plain} --sampler dopri5 --tolerance 0.1 --num-images 1 --output {out}.png
samplers compare {digits} --samplers ddim --nfe 2 --label 1 --reference-steps 2 --output {out}.png
samplers inpaint {plain} {colours} --mask {mask} --steps 2 --num-images 1 --output {out}.png
samplers colorize {plain} {grey} --steps 2 --num-images 1 --output {out}.png
samplers sharpen {digits} {small} --downsampled 2 --steps 2 --num-images 1 --output {out}.png
samplers restore {restoration} {colours} --task rainy --steps 2 --output {out}.png
samplers likelihood {digits} {grey} --label 1 --tolerance 0.5 --csv {table}
samplers encode {digits} {grey} --label 1 --tolerance 0.5 --output {out}.safetensors
samplers decode {digits} {codes} --tolerance 0.5 --output {out}.png
samplers interpolate {digits} --seeds 0,1 --label 1 --frames 2 --tolerance 0.5 --output {out}.png
samplers fit-grid {digits} --steps 2 --samples 2 --output {out}
samplers tune {digits} --nfe 3 TUNED_QUICKLY --output {out}
samplers sample {digits} --sampler {tuned} --label 1 --num-images 2 --output {out}.png
samplers list
samplers show dpmpp-2m --steps 3 --checkpoint {digits}
adjoint finetune --config {config}
adjoint residual {digits} --levels 2 --probes 2 --num-images 2 --output {out}.png
adjoint gap {digits} --steps 2,3 --num-images 4 --output {out}.png
adjoint rewards
text2pde generate {sentence} --checkpoint {flows} --steps 1 --mesh {mesh} --output {out}.png
text2pde infer {clip} --checkpoint {flows} --steps 1 --output {out}.safetensors
text2pde evaluate {clips} --training {clips} --checkpoint {flows} --steps 1 --output {out}.md
text2pde show {clip} --width 160 --output {out}.gif
text2pde encode {autoencoder} {clips} --frames 8 --output {out}.safetensors
text2pde train-autoencoder {clips} --steps 1 --frames 8 --channels 8 --latent 4 --columns 32 \
    --rows 8 --output {out}
text2pde train-diffusion {data} --autoencoder {autoencoder} --text-encoder {words} --steps 1 \
    --batch-size 1 --output {out}
"""
SIMULATION = Base.read("text2pde simulate {out} --family smoke --cases 1 --frames 2 --workers 1")
_LINES = COMMANDS.replace("\\\n", "").replace("TUNED_QUICKLY", TUNED_QUICKLY).strip().splitlines()
BASES = [Base.read(line) for line in _LINES]


@pytest.fixture(scope="module")
def world(places: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All that the commands read."""
    root = tmp_path_factory.mktemp("world")
    clips = root / "clips"
    clips.mkdir()
    for number, x in enumerate((0.28, 0.3)):
        save_clip(waves(x, frames=12), clips / f"case-{number}.safetensors")
    pipe = pipeline(write_text_encoder(root / "words"))
    pipe.save_pretrained(root / "flows")
    pipe.autoencoder.save_pretrained(root / "autoencoder")
    grid, radius = pipe.autoencoder.grid, pipe.autoencoder.config.radius
    prepared = [prepare_clip(load_clip(path), grid, radius) for path in sorted(clips.iterdir())]
    with torch.no_grad():
        save_latents(encode_clips(pipe.autoencoder, prepared, FRAMES, 4), root / "data.safetensors")
    write_mesh(mesh(), root / "mesh.msh")
    (root / "config.toml").write_text(CONFIG.format(**places))
    made = {**places, "table": root / "table.csv", "codes": root / "codes.safetensors"}
    made["tuned"] = root / "tuned" / f"{places['digits'].name}-3.json"
    for command in (
        "likelihood {digits} {grey} --label 1 --tolerance 0.5 --csv {table}",
        "encode {digits} {grey} --label 1 --tolerance 0.5 --output {codes}",
        f"tune {{digits}} --nfe 3 {TUNED_QUICKLY} --output {root / 'tuned'}",
    ):
        assert main(command.format(**made).split()) == 0
    return {
        **made,
        "sentence": "Water flows past a cylinder of radius 0.05 m at Reynolds number 120",
        "clips": clips,
        "clip": clips / "case-0.safetensors",
        "words": root / "words",
        "flows": root / "flows",
        "autoencoder": root / "autoencoder",
        "data": root / "data.safetensors",
        "mesh": root / "mesh.msh",
        "config": root / "config.toml",
    }


def check(seeds: Iterable[int], bases: Sequence[Base], world: dict[str, Any], root: Path) -> None:
    """Run the cases of these seeds; all faults are said together."""
    faults = []
    for seed in seeds:
        folder = root / str(seed)
        case = draw(Random(seed), bases, world, folder)
        end = run(case, folder / "at")
        if fault := end.faults():
            faults.append(f"{seed}: {fault}: {case.harm}\n  {case.words}\n{end.err[-3000:]}")
        shutil.rmtree(folder)
    assert not faults, "\n\n".join([*faults, f"{len(faults)} faults"])


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(BASES)))
def test_the_commands_work_as_long_as_nothing_is_wrong(
    number: int, world: dict[str, Any], tmp_path: Path
) -> None:
    words = [word.format(**world, out=tmp_path / "out") for word in BASES[number].words]
    end = run(Case(BASES[number].program, words, ""), tmp_path / "at")
    assert (end.code, end.faults()) == (0, ""), end.err


def test_what_is_wrong_ends_in_one_sentence(world: dict[str, Any], tmp_path: Path) -> None:
    check(range(30), BASES[:22], world, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(100, 700, 50))
def test_what_is_wrong_ends_in_one_sentence_600_times(
    first: int, world: dict[str, Any], tmp_path: Path
) -> None:
    check(range(first, first + 50), BASES, world, tmp_path)


@pytest.mark.slow
def test_what_is_wrong_in_a_simulation_ends_in_one_sentence(tmp_path: Path) -> None:
    """It starts processes of its own, which takes ten seconds if nothing is wrong."""
    check(range(700, 716), [SIMULATION], {}, tmp_path)
