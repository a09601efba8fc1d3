"""The layers of the design: a module imports from the layers above it only, and lightly.

Read from the source with ``ast``, so that an import inside a function counts as well.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("samplers", "adjoint", "text2pde")

# From the first layer to the last; within a layer a module may import what stands before it.
ORDER = (
    *("samplers.choices", "samplers.spacings"),
    *("samplers.checks", "samplers.errors", "samplers.schedule", "samplers.noise"),
    *("samplers.phi", "samplers.files", "samplers.notebook", "samplers.prediction"),
    *("samplers.pullback", "samplers.denoiser", "samplers.noise_levels"),
    *("samplers.grid", "samplers.guidance"),
    *("samplers.tableau", "samplers.draft"),
    *("samplers.solve", "samplers.methods"),
    "samplers.registry",
    *(
        "samplers.probability_flow",
        "samplers.sampling",
        "samplers.data_scale",
        "samplers.inversion",
    ),
    "samplers.inverse_problems",
    *("samplers.training.config", "samplers.training.draws", "samplers.training.log"),
    *("samplers.training.learner", "samplers.training.denoising", "samplers.training.loop"),
    "samplers.training.claim",
    "samplers.training",
    *("samplers.tuning.config", "samplers.tuning.levels", "samplers.tuning.table"),
    "samplers.tuning.parameters",
    *("samplers.tuning.objective", "samplers.tuning.processes", "samplers.tuning.problem"),
    "samplers.tuning.teacher",
    *("samplers.tuning.starts", "samplers.tuning.learner"),
    *("samplers.tuning.purpose", "samplers.tuning.file"),
    *("samplers.tuning.description", "samplers.tuning.sampler"),
    *("samplers.tuning.loop", "samplers.tuning"),
    *("samplers.fitting.pilots", "samplers.fitting.estimate", "samplers.fitting.levels"),
    *("samplers.fitting.search", "samplers.fitting.geometry", "samplers.fitting.fitted"),
    *("samplers.fitting.fit", "samplers.fitting"),
    "samplers.restoration",
    "samplers.images",
    *("samplers.diffusers.deferred", "samplers.diffusers.distilled"),
    *("samplers.diffusers.classes", "samplers.diffusers.settings", "samplers.diffusers.config"),
    *("samplers.diffusers.conversion", "samplers.diffusers.timesteps", "samplers.diffusers.run"),
    *("samplers.diffusers.loop", "samplers.diffusers.scheduler", "samplers.diffusers.restoration"),
    "samplers.diffusers.denoiser",
    *("samplers.diffusers.blocks", "samplers.diffusers"),
    *("samplers.diffusers_scheduler", "samplers.diffusers_restoration"),
    *("samplers.k_diffusion.levels", "samplers.k_diffusion.noise", "samplers.k_diffusion.run"),
    *("samplers.k_diffusion.function", "samplers.k_diffusion"),
    "samplers.checkpoint",
    *("samplers.cli", "samplers.__main__"),
    "adjoint",
    *("text2pde.mesh", "text2pde.subject", "text2pde.data", "text2pde.solver"),
    *("text2pde.autoencoder", "text2pde.diffusion", "text2pde.pipeline", "text2pde.training"),
    *("text2pde.evaluation", "text2pde.figures", "text2pde.export"),
    *("text2pde.cli", "text2pde.__main__", "text2pde"),
)
# A package may name what is below it in the list to hand it on; it computes nothing.
FACES = {"samplers", "adjoint", "text2pde"}
# Users expect `tableau.plot()`. Such a method hands its object to a module further down, which it
# imports when it is called, and does nothing else.
HANDED_DOWN = dict.fromkeys(("samplers.grid", "samplers.tableau"), "samplers.images.plots")


def modules() -> Iterator[tuple[str, Path]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(path: Path) -> set[str]:
    """Every module of ours that the file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=names):
                found |= {alias.name for alias in names}
            case ast.ImportFrom(module=str(module), level=0, names=names):
                found |= {module} | {f"{module}.{alias.name}" for alias in names}
            case ast.ImportFrom(level=level) if level:
                raise AssertionError(f"{path} imports relatively")
    return {name for name in found if name.split(".")[0] in PACKAGES}


def place(module: str) -> int | None:
    """Where a module stands in the order; what lies in a package stands where the package does."""
    inside = [i for i, entry in enumerate(ORDER) if f"{module}.".startswith(f"{entry}.")]
    return inside[0] if inside else None


MODULES = dict(modules())


@pytest.mark.parametrize("module", [name for name in MODULES if name not in FACES])
def test_a_module_imports_from_the_layers_above_it(module: str) -> None:
    own = place(module)
    assert own is not None, f"{module} has no layer: add it to the design and to the order above"
    for imported in imports(MODULES[module]):
        if imported.startswith(HANDED_DOWN.get(module, " ")):
            continue
        other = place(imported)
        assert other is None or other <= own, f"{module} imports {imported}, which stands below it"


@pytest.mark.parametrize("module", MODULES)
def test_samplers_knows_neither_adjoint_nor_text2pde(module: str) -> None:
    package = module.split(".", maxsplit=1)[0]
    found = {name.split(".")[0] for name in imports(MODULES[module])}
    assert found <= {"samplers", package}


def test_the_executor_names_no_sampler() -> None:
    text = (ROOT / "samplers" / "solve.py").read_text()
    assert "samplers.methods" not in text
    assert "samplers.registry" not in text


def test_import_is_light() -> None:
    code = (
        "import sys, samplers; "
        "print([m for m in ('transformers', 'diffusers', 'accelerate', 'scipy', 'torchsde') "
        "if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert "transformers" not in out.stdout
    assert "accelerate" not in out.stdout
