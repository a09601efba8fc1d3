"""The documentation: it builds, it knows every public name, and its code runs and imports these."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
from nbclient import NotebookClient
from sphinx.util.inventory import InventoryFile
from torch import Tensor

from docs.reference import generate
from samplers import Denoiser, Schedule, SubVP, VPDiscrete, VPLinear, list_samplers, sample

ROOT = Path(__file__).parents[1]
PACKAGES = sorted(generate.PACKAGES)
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))

# ------------------------------------------------------------------------------- the reference


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_has_a_topic(package: str) -> None:
    listed = [name for names in generate.public_names(package).values() for name in names]
    assert sorted(listed) == sorted(import_module(package).__all__)


def test_every_sampler_has_a_section() -> None:
    pages = "".join(text for _, text in generate.sampler_pages())
    for name in list_samplers():
        assert f"\n{name}\n~" in pages, name


def test_a_name_without_a_topic_is_refused() -> None:
    with pytest.raises(ValueError, match="belongs to no topic"):
        generate.topic_of("samplers", "x", "samplers.nowhere")


@pytest.mark.slow
def test_the_site_builds_strictly_and_documents_every_public_name(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-c", "docs", "-b", "html"]
    done = subprocess.run(
        [*command, ".", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with (tmp_path / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "", lambda base, path: path)
    documented = {name for kind, names in inventory.items() if "py:" in kind for name in names}
    for package in PACKAGES:
        public = import_module(package).__all__
        assert {f"{package}.{name}" for name in public} <= documented


# ---------------------------------------------------------------------------------- its imports


def code_of(path: Path) -> list[str]:
    """The Python of a script, of the blocks of a page, or of the cells of a notebook."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return [text]
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def imported_modules(code: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


READ = [
    path
    for pattern in ("*.md", "docs/**/*.md", "examples/**/*.*", "assets/*/README.md")
    for path in sorted(ROOT.glob(pattern))
    if path.suffix in {".md", ".py", ".ipynb"}
]


@pytest.mark.parametrize("path", READ, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_public_modules_are_imported(path: Path) -> None:
    modules = {name for code in code_of(path) for name in imported_modules(code)}
    ours = {name for name in modules if name.partition(".")[0] in PACKAGES}
    assert ours <= set(generate.SUBPACKAGES) | set(PACKAGES)


# --------------------------------------------------------------- "Describing your own network"


MEAN, STD = 2.0, 0.5


def parts(x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """E[x_0 | x_t] and E[eps | x_t] of data N(2, 0.5^2), for x [B, d] and numbers [B]."""
    a, s = alpha[:, None].to(x), sigma[:, None].to(x)
    x_0 = MEAN + STD**2 * a / (STD**2 * a**2 + s**2) * (x - MEAN * a)
    return x_0, (x - a * x_0) / s


def epsilon(x: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    return parts(x, schedule.alpha(t.double()), schedule.sigma(t.double()))[1]


def ornstein_uhlenbeck_score(x: Tensor, t: Tensor) -> Tensor:
    alpha = torch.exp(-t.double())  # beta = 2
    sigma = (1 - alpha**2).sqrt()
    return -parts(x, alpha, sigma)[1] / sigma[:, None].to(x)


def edm_inner_network(x: Tensor, c_noise: Tensor) -> Tensor:
    """F of D(y, rho) = c_skip y + c_out F(c_in y, c_noise), with sigma_data = 0.5."""
    rho, data = torch.exp(4 * c_noise.double()), 0.5
    norm = (rho**2 + data**2).sqrt()
    y = x * norm[:, None].to(x)
    skip, out = data**2 / norm**2, rho * data / norm
    return (parts(y, torch.ones_like(rho), rho)[0] - skip[:, None].to(x) * y) / out[:, None].to(x)


def rectified_flow_velocity(x: Tensor, t: Tensor) -> Tensor:
    x_0, eps = parts(x, t.double(), 1 - t.double())
    return x_0 - eps


# The networks that the page's five cases speak of, by their names there.
NETWORKS = {
    "unet": lambda x, t: epsilon(x, t, VPDiscrete.linear()),
    "score": ornstein_uhlenbeck_score,
    "F": edm_inner_network,
    "velocity": rectified_flow_velocity,
    "ncsnpp": lambda x, t: epsilon(x, t / 999, SubVP()),
}
OWN_NETWORK = (ROOT / "docs" / "own_network.md").read_text(encoding="utf-8")
CASES = code_of(ROOT / "docs" / "own_network.md")
FIVE = [code for code in CASES if re.search(rf"Denoiser\(({'|'.join(NETWORKS)}|flow),", code)]


@pytest.mark.parametrize("code", FIVE)
def test_a_case_of_the_page_samples_the_data(code: str) -> None:
    names: dict[str, Any] = dict(NETWORKS)
    exec(compile(code, "own_network.md", "exec"), names)
    model: Denoiser = names["model"]
    x_T = model.initial((2,), range(4000), dtype=torch.float64)
    x_0 = sample(model, x_T, steps=30)
    torch.testing.assert_close(x_0.mean(0), torch.full_like(x_0[0], MEAN), atol=0.04, rtol=0)
    torch.testing.assert_close(x_0.std(0), torch.full_like(x_0[0], STD), atol=0.04, rtol=0)


def test_there_are_five_cases() -> None:
    assert len(FIVE) == 5


@pytest.mark.parametrize("time_scale", [1.0, 0.5])
def test_the_check_of_the_page_tells_right_from_wrong(
    time_scale: float, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Denoiser(lambda x, t: epsilon(x, t, VPLinear()), VPLinear(), time_scale=time_scale)
    torch.manual_seed(0)
    images = MEAN + STD * torch.randn(4000, 2, dtype=torch.float64)
    (check,) = (code for code in CASES if "at_fraction" in code)
    exec(compile(check, "own_network.md", "exec"), {"model": model, "images": images})
    ratios = [float(line.rpartition(" ")[2]) for line in capsys.readouterr().out.splitlines()]
    assert len(ratios) == 5
    assert (max(ratios) < 1.02) == (time_scale == 1.0)


def test_the_page_names_every_schedule() -> None:
    public = import_module("samplers.schedule")
    classes = {name for name in public.__all__ if isinstance(getattr(public, name), type)}
    abstract = {"Point", "Schedule", "VariancePreserving", "VarianceExploding"}
    assert {name for name in classes - abstract if f"`{name}" not in OWN_NETWORK} == set()


# ---------------------------------------------------------------------------------- notebooks


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    monkeypatch.setenv("PYTHONPATH", search)
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=900, kernel_name="python3", resources=where).execute()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_with_its_outputs(path: Path) -> None:
    assert path.stat().st_size < 500_000
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert any(cell["outputs"] for cell in cells)
    assert all(cell["execution_count"] for cell in cells)
