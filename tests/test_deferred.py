"""Networks of diffusers are loaded without everything else that it imports beside them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_network_brings_neither_transformers_nor_peft() -> None:
    code = (
        "import sys; from pathlib import Path; "
        "from samplers.checkpoint import LoadOptions, load_checkpoint; "
        "load_checkpoint(Path('assets/digits'), LoadOptions()); "
        "print([name for name in ('transformers', 'peft', 'diffusers.pipelines', "
        "'diffusers.models.unets.unet_2d_condition') if name in sys.modules])"
    )
    assert run(code) == "[]\n"


def test_what_is_deferred_comes_when_it_is_asked_for() -> None:
    """The packages then have the classes that were imported from their modules before."""
    code = (
        "from samplers.diffusers.deferred import defer_packages; defer_packages()\n"
        "from diffusers import UNet2DModel\n"
        "import diffusers.models.unets.unet_2d\n"
        "from diffusers.models.unets import UNet2DConditionModel, UNet2DModel as again\n"
        "from diffusers import PipelineQuantizationConfig, StableDiffusionPipeline\n"
        "from diffusers.hooks import apply_group_offloading\n"
        "assert again is UNet2DModel is diffusers.models.unets.unet_2d.UNet2DModel\n"
        "assert UNet2DConditionModel is diffusers.UNet2DConditionModel\n"
        "try:\n"
        "    diffusers.models.unets.nothing\n"
        "except AttributeError:\n"
        "    print('done')"
    )
    assert run(code) == "done\n"
