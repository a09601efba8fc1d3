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


def test_a_command_can_do_without_the_compiler() -> None:
    code = (
        "import sys, torch; from pathlib import Path; "
        "from samplers.checkpoint import LoadOptions, load_checkpoint\n"
        "from samplers.diffusers.deferred import import_without_compiler\n"
        "import_without_compiler()\n"
        "network = load_checkpoint(Path('assets/digits'), LoadOptions()).network\n"
        "print('torch._dynamo' in sys.modules)\n"
        "x, t, labels = torch.zeros(2, 1, 28, 28), torch.zeros(2), torch.zeros(2, dtype=int)\n"
        "compiled = torch.compile(network, backend='eager')\n"
        "with torch.no_grad():\n"
        "    one, two = (own(x, t, labels).sample for own in (network, compiled))\n"
        "print(torch.equal(one, two))"
    )
    assert run(code) == "False\nTrue\n"


def test_what_is_deferred_comes_when_it_is_asked_for() -> None:
    """The packages then have the classes that were imported from their modules before."""
    code = (
        "from samplers.diffusers.deferred import import_diffusers; import_diffusers()\n"
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
