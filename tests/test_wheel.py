"""The wheel: what is in it, and that it works where the checkout is not.

It is built from a copy of the tracked folders and installed into a new environment, which sees the
libraries of the present one but not the checkout. Beside it lies a package of somebody else with
a sampler of its own.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PACKAGES = ("adjoint", "samplers", "text2pde")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

SAMPLE = """
import torch
from samplers import Denoiser, VPLinear, sample

schedule = VPLinear()

def network(x, t):  # exact for data N(3, 0.25)
    alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
    return 3 + 0.25 * alpha / (0.25 * alpha**2 + sigma**2) * (x - 3 * alpha)

x_T = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
x_0 = sample(Denoiser(network, schedule, "sample"), x_T, steps=80)
torch.testing.assert_close(x_0, 3 + x_T / 2, atol=0.05, rtol=0)
"""

ORIGIN = """
import adjoint, samplers, text2pde
print(adjoint.__file__, samplers.__file__, text2pde.__file__)
"""

THIRD_PARTY = """
from samplers import Sampler
from samplers.methods.pf_ode import HEUN, runge_kutta

SAMPLER = Sampler("of-a-third-party", lambda grid: runge_kutta(grid, HEUN), 2, 2, "nowhere")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing is left in the checkout, and nothing old is taken in."""
    source = tmp_path_factory.mktemp("source")
    for folder in (*PACKAGES, "tests", "examples", "benchmarks", "docs"):
        unwanted = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, source / folder, ignore=unwanted)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    dist = tmp_path_factory.mktemp("dist")
    # The build backend is here already, for torch needs it.
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(dist))
    execute(sys.executable, "-m", "pip", "wheel", *options, str(source))
    (built,) = dist.iterdir()
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel, somebody else's package, and the present libraries."""
    folder = tmp_path_factory.mktemp("environment")
    execute(sys.executable, "-m", "venv", "--without-pip", str(folder))
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
    options = ("--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check")
    pip = (sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"))
    execute(*pip, "install", *options, str(wheel))
    # A path line is not a site folder: the .pth files there, an editable install's, are not read.
    libraries = sysconfig.get_path("purelib")
    (site / "libraries.pth").write_text(f"{libraries}\n", encoding="utf-8")
    (site / "third_party.py").write_text(THIRD_PARTY, encoding="utf-8")
    record = site / "third_party-1.0.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
    (record / "entry_points.txt").write_text("[samplers]\nof-a-third-party = third_party:SAMPLER\n")
    return folder


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another working folder, and nothing in the variables that could lead to the checkout."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return tmp_path


def test_contents(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    metadata = f"retrograde-{PROJECT['version']}.dist-info"
    assert {name.split("/")[0] for name in names} == {*PACKAGES, metadata}
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    inside = {name for name in names if name.split("/")[0] in PACKAGES}
    assert all(name.endswith((".py", ".pyi", "/py.typed")) for name in inside)
    assert inside >= {str(path.relative_to(ROOT)) for path in modules()}
    assert any(name.endswith("/LICENSE") for name in names)


def test_origin(environment: Path, elsewhere: Path) -> None:
    found = execute(str(environment / "bin" / "python"), "-c", ORIGIN).split()
    assert len(found) == len(PACKAGES)
    assert all(Path(path).is_relative_to(environment) for path in found)


def test_sample(environment: Path, elsewhere: Path) -> None:
    execute(str(environment / "bin" / "python"), "-c", SAMPLE)


def test_command_and_entry_point(environment: Path, elsewhere: Path) -> None:
    listed = execute(str(environment / "bin" / "samplers"), "list")
    assert "dpmpp-2m" in listed
    assert "of-a-third-party" in listed
    assert "class-surprisal" in execute(str(environment / "bin" / "adjoint"), "rewards")


def test_imports_are_declared() -> None:
    """Whatever the packages import is a dependency, or comes with an extra."""
    extras = PROJECT["optional-dependencies"]
    offered = [extras[name] for name in ("text", "lora", "transport", "pde", "film")]
    lines = [line for lines in (PROJECT["dependencies"], *offered) for line in lines]
    declared = {_project_name(line) for line in lines}
    owners = packages_distributions()
    imported = {name for path in modules() for name in imports(path)}
    foreign = imported - set(sys.stdlib_module_names) - set(PACKAGES)
    assert "torch" in foreign
    undeclared = {n for n in foreign if not declared & {_project_name(o) for o in owners[n]}}
    assert not undeclared


def test_constraints_satisfy_the_project() -> None:
    """Every dependency has one pin, at or above its lower bound."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pinned = {_project_name(name): version for name, version in pins.items()}
    extras = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    for line in (*PROJECT["dependencies"], *extras):
        if line.startswith("retrograde["):
            continue
        name, bound = re.split(">=|==", line)  # a package of weights is pinned
        assert Version(pinned[_project_name(name)]) >= Version(bound), line


def modules() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def imports(path: Path) -> set[str]:
    """The top-level names that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def execute(*command: str) -> str:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PIP_NO_INPUT": "1", "PYTHONWARNINGS": "default"},
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _project_name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower().replace("_", "-")
